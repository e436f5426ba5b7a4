"""A first try: the smallest model on any prepared tasks.

`configs/tiny.py:my_task,my_other_task`; by default two tasks of the demo, of which it
gets biosignal_waveform right on 84.5 % of the held-out images (chance 20 %) and
stimulus_rest on 65.6 % (chance 50 %), in 86 s on 2 busy CPU cores, most of it
compilation.
"""

from ml_collections import ConfigDict

from painformer_jax.training.config import defaults


def get_config(tasks: str = 'biosignal_waveform,stimulus_rest') -> ConfigDict:
  """The configuration for prepared tasks, named with commas between."""
  config = defaults('painformer_nano')
  config.model.drop_path_rate = 0.05
  config.tasks = {name: dict(batch_size=8, augment='signal') for name in tasks.split(',')}
  config.steps = 200
  config.optimizer.learning_rate = 3e-3
  config.optimizer.warmup_steps = 10
  config.optimizer.weight_decay = 0.05
  config.log_every = 20
  config.checkpoint_every = 50
  return config
