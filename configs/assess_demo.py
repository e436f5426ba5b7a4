"""The whole assessment on real recordings of the demo corpus: two states, no pain.

One person sees pictures while ECG, skin conductance (EDA) and respiration are recorded: does
a window follow a picture, or not? Another taps with the fingers or rests, recorded by fNIRS.
Folds are blocks of time, 10 s apart. The results say how well a state of one person is
recognised at another time. Use weights that were not trained on these two tasks, such as
those of `demo_backbone.py`; `demo.py` trains on their labels.
"""

from ml_collections import ConfigDict

from painformer_jax.assessment.config import defaults


def get_config() -> ConfigDict:
  """The demo's configuration; name the backbone with --config.weights."""
  config = defaults()
  config.dataset = 'demo'
  config.modalities = {name: dict(source=name) for name in ('ecg', 'gsr', 'resp', 'fnirs')}
  three = ('ecg', 'gsr', 'resp')
  stimulus = {
    name: dict(fusion=dict(kind='add', modalities=(source,)), label=label)
    for name, source, label in (
      ('ecg', 'ecg', 'ECG'),
      ('eda', 'gsr', 'EDA'),
      ('respiration', 'resp', 'respiration'),
    )
  }
  stimulus['fusion-1'] = dict(
    fusion=dict(kind='fusion-1', modalities=three), label='ECG+EDA+respiration'
  )
  stimulus['fusion-2'] = dict(
    fusion=dict(kind='fusion-2', modalities=three), label='ECG+EDA+respiration'
  )
  fnirs = {
    f'fnirs-{kind}': dict(fusion=dict(kind=kind, modalities=('fnirs',)), label='fNIRS')
    for kind in ('add', 'concat')
  }
  config.rows = {
    **{name: dict(row, tasks=('stimulus-rest',)) for name, row in stimulus.items()},
    **{name: dict(row, tasks=('tapping-rest',)) for name, row in fnirs.items()},
  }
  config.tasks = ('stimulus-rest', 'tapping-rest')
  config.protocol = 'blocks'
  config.normalise = 'study'
  config.max_left_out = 0.9  # Each recording has the signals of only one task.
  # Small enough for some hundred samples, and for a quarter of an hour on two cores.
  config.mixer.update(width=16, cross_head_width=16, depth=1, self_attentions=1)
  config.fit.epochs = 10
  config.seeds = (0, 1, 2)
  config.shuffled = 19
  return config
