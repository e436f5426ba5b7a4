"""A first try: the smallest model on any prepared tasks.

`configs/tiny.py:my_task,my_other_task`; by default two tasks of the demo. Its 200
steps take seconds on a CPU, after half a minute or so of compilation. The model is
too small to say what the tasks can teach; it shows that they can be read and learned.
"""

from ml_collections import ConfigDict

from painformer_jax.training.config import defaults


def get_config(tasks: str = 'biosignal_waveform,stimulus_rest') -> ConfigDict:
  """The configuration for prepared tasks, named with commas between."""
  config = defaults('painformer_nano')
  config.model.drop_path_rate = 0.05
  config.tasks = {name: dict(rows=8, augment='signal') for name in tasks.split(',')}
  config.steps = 200
  config.optimizer.learning_rate = 3e-3
  config.optimizer.warmup_steps = 10
  config.optimizer.weight_decay = 0.05
  config.log_every = 20
  config.checkpoint_every = 50
  return config
