"""The AI4Pain challenges on their fixed split, by edition: `assess_ai4pain.py:2025`.

    painformer assess --config configs/assess_ai4pain.py:2025 --workdir runs/ai4pain \\
        --config.data_dir=/data/AI4Pain2025 --config.weights=painformer.pth

2024: video, and fNIRS once `config.fnirs` says where its tables lie (their layout is not
public). 2025 and 2026: blood volume pulse, skin conductance, respiration and saturation.
Test labels may be withheld: the protocol is 'validation'; take
`--config.protocol=test` where you have them.
"""

from ml_collections import ConfigDict

from painformer_jax.assessment.config import defaults

SIGNALS = ('bvp', 'eda', 'resp', 'spo2')


def get_config(edition: str = '2024') -> ConfigDict:
  """An edition's configuration."""
  if edition not in ('2024', '2025', '2026'):
    raise ValueError(f'there is no edition {edition}: 2024, 2025 or 2026')
  config = defaults()
  config.dataset = f'ai4pain-{edition}'
  if edition == '2024':
    config.modalities = dict(face=dict(source='video', picture='face', max_tokens=300))
    config.rows = dict(face=dict(fusion=dict(kind='add', modalities=('face',)), label='face'))
  else:
    # Segments of 10 s at 100 Hz are short of matplotlib's windows of 256 samples.
    drawn = dict(images=dict(spectrogram=dict(segment=128, overlap=64)))
    config.modalities = {name: dict(source=name, signal=drawn) for name in SIGNALS}
    config.rows = {
        **{name: dict(fusion=dict(kind='add', modalities=(name,)), label=name.upper())
           for name in SIGNALS},
        'fusion-1': dict(fusion=dict(kind='fusion-1', modalities=SIGNALS), label='all four'),
        'fusion-2': dict(fusion=dict(kind='fusion-2', modalities=SIGNALS), label='all four')}
  config.tasks = ('3-site',) if edition == '2026' else ('3-class',)
  config.protocol = 'validation'
  config.normalise = 'none' if edition == '2024' else 'subject'
  return config
