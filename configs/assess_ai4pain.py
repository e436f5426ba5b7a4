"""The AI4Pain challenges on their fixed split, by edition: `assess_ai4pain.py:2025`.

`:2025,mixer_published` uses the Embedding-Mixer's published size, which needs a GPU.

    painformer assess --config configs/assess_ai4pain.py:2025 --workdir runs/ai4pain \\
        --config.data_dir=/data/AI4Pain2025 --config.weights=painformer.pth

2025 and 2026: blood volume pulse, skin conductance, respiration and oxygen saturation. 2024:
video. `2024-fnirs`: also fNIRS, alone and fused with the face. The format of its files is
not documented publicly, so name the path of each clip's table, its columns that are channels
(the paper probably uses 24 of HbO2) and its rows per second:

    painformer assess --config configs/assess_ai4pain.py:2024-fnirs --workdir runs/fnirs \\
        --config.data_dir=/data/AI4Pain2024 --config.weights=painformer.pth \\
        --config.fnirs.path='{split}/fnirs/{subject}/{sample}.csv' --config.fnirs.rate=10 \\
        --config.fnirs.columns="('CH1 HbO2', 'CH2 HbO2')"

Test labels may be withheld, so the protocol is 'validation'; with test labels take
`--config.protocol=test`.
"""

from ml_collections import ConfigDict

from painformer_jax import InputError
from painformer_jax.assessment.config import ENCODERS, defaults
from painformer_jax.assessment.datasets.ai4pain import SATURATION

SIGNALS = ('bvp', 'eda', 'resp', 'spo2')
EDITIONS = ('2024', '2024-fnirs', '2025', '2026')
# What may be written after the file's name.
OPTIONS = EDITIONS


def get_config(options: str = '2024') -> ConfigDict:
  """An edition's configuration.

  Args:
    options: one of EDITIONS, and after a comma a preset of the Embedding-Mixer.

  Raises:
    InputError: there is no such edition or preset.
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
    # Segments of 10 s at 100 Hz are too short for matplotlib's windows of 256 samples.
    drawing = dict(images=dict(spectrogram=dict(segment=128, overlap=64)))
    # Oxygen saturation is a whole percentage, which often is constant over a segment.
    config.modalities = {
      name: dict(
        source=name,
        signal=dict(drawing, quality=dict(flat_between=SATURATION if name == 'spo2' else ())),
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
