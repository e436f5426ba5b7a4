"""The demo: one PainFormer on six tasks of real recordings.

`configs/demo.py` is the small model, `configs/demo.py:painformer` the full one
(for images of 224 pixels). What it reaches, and in which time, is printed by
`painformer report` and quoted in docs/training.md.
"""

from ml_collections import ConfigDict

from painformer_jax.training.config import defaults


def get_config(model: str = 'painformer_small') -> ConfigDict:
  """The demo's configuration for a preset."""
  config = defaults(model)
  config.model.drop_path_rate = 0.05
  # Rows of a batch: more for tasks with more to learn from.
  config.tasks = dict(
    orl_identity=dict(batch_size=16, augment='face'),
    lfw_face=dict(batch_size=4, augment='face'),
    biosignal_waveform=dict(batch_size=8, augment='signal'),
    biosignal_spectrogram=dict(batch_size=8, augment='spectrogram'),
    stimulus_rest=dict(batch_size=4, augment='signal'),
    tapping_rest=dict(batch_size=4, augment='signal'),
  )
  config.steps = 500
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_steps = 30
  config.optimizer.weight_decay = 0.05
  config.label_smoothing = 0.1
  config.log_every = 20
  config.eval_every = 250
  config.checkpoint_every = 100
  return config
