"""The AI4Pain challenges on their fixed split, by edition: `assess_ai4pain.py:2025`.

`:2025,mixer_published` takes the Mixer's published size, a GPU's work.

    painformer assess --config configs/assess_ai4pain.py:2025 --workdir runs/ai4pain \\
        --config.data_dir=/data/AI4Pain2025 --config.weights=painformer.pth

2025 and 2026: blood volume pulse, skin conductance, respiration and saturation. 2024: video.
`2024-fnirs`: also fNIRS, alone and joined with the face. What its files look like is not
public, so say where the table of each clip lies, which of its columns are channels (the
paper's are thought to be 24 of HbO2) and how many rows a second it has:

    painformer assess --config configs/assess_ai4pain.py:2024-fnirs --workdir runs/fnirs \\
        --config.data_dir=/data/AI4Pain2024 --config.weights=painformer.pth \\
        --config.fnirs.path='{split}/fnirs/{subject}/{sample}.csv' --config.fnirs.rate=10 \\
        --config.fnirs.columns="('CH1 HbO2', 'CH2 HbO2')"

Test labels may be withheld: the protocol is 'validation'; take
`--config.protocol=test` where you have them.
"""

from ml_collections import ConfigDict

from painformer_jax.assessment.config import ENCODERS, defaults
from painformer_jax.assessment.datasets.ai4pain import SATURATION
from painformer_jax.core.errors import InputError

SIGNALS = ('bvp', 'eda', 'resp', 'spo2')
EDITIONS = ('2024', '2024-fnirs', '2025', '2026')


def get_config(options: str = '2024') -> ConfigDict:
  """An edition's configuration.

  Args:
    options: one of EDITIONS; behind a comma a preset of the Mixer.

  Raises:
    InputError: something else.
  """
  edition, _, size = options.partition(',')
  size = size or 'mixer_laptop'
  if edition not in EDITIONS:
    raise InputError(f'there is no edition {edition}, only {", ".join(EDITIONS)}')
  if size not in ENCODERS:
    raise InputError(f'the Mixer is one of {", ".join(ENCODERS)}, not {size}')
  year = edition.removesuffix('-fnirs')
  config = defaults(size, ENCODERS[size])
  config.dataset = f'ai4pain-{year}'

  def row(label, kind, *modalities, **further):
    return dict(fusion=dict(kind=kind, modalities=modalities, **further), label=label)

  if year == '2024':
    config.modalities = dict(face=dict(source='video', image_type='face', max_tokens=300))
    config.rows = dict(face=row('face', 'add', 'face'))
  else:
    # Segments of 10 s at 100 Hz are short of matplotlib's windows of 256 samples.
    drawn = dict(images=dict(spectrogram=dict(segment=128, overlap=64)))
    # Saturation is a whole percentage, which often stays for all of them.
    config.modalities = {
      name: dict(
        source=name,
        signal=dict(drawn, quality=dict(flat_between=SATURATION if name == 'spo2' else ())),
      )
      for name in SIGNALS
    }
    config.rows = {
      **{name: row(name.upper(), 'add', name) for name in SIGNALS},
      'fusion-1': row('all four', 'fusion-1', *SIGNALS),
      'fusion-2': row('all four', 'fusion-2', *SIGNALS),
    }
  if edition == '2024-fnirs':
    config.modalities.fnirs = dict(source='fnirs')
    config.rows.update(
      {
        'fnirs': row('fNIRS', 'add', 'fnirs'),
        'fusion-1': row('face+fNIRS', 'fusion-1', 'face', 'fnirs'),
        'fusion-2': row('face+fNIRS', 'fusion-2', 'face', 'fnirs'),
        'fusion-n': row('face+fNIRS', 'fusion-n', 'face', 'fnirs', coded=('face',)),
      }
    )
  config.tasks = ('3-site',) if year == '2026' else ('3-class',)
  config.protocol = 'validation'
  config.normalise = 'none' if year == '2024' else 'subject'
  return config
