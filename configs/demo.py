"""The demo: a small PainFormer on six tasks of real recordings."""

from ml_collections import ConfigDict

from painformer_jax.training.config import defaults


def get_config() -> ConfigDict:
  config = defaults('painformer_small')
  config.model.drop_path_rate = 0.05
  config.tasks = dict(
      orl_identity=dict(rows=16, augment='face'),
      lfw_face=dict(rows=4, augment='face'),
      biosignal_waveform=dict(rows=8, augment='signal'),
      biosignal_spectrogram=dict(rows=8, augment='spectrogram'),
      stimulus_rest=dict(rows=4, augment='signal'),
      tapping_rest=dict(rows=4, augment='signal'),
  )
  config.steps = 600
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_steps = 30
  config.optimizer.weight_decay = 0.05
  config.label_smoothing = 0.1
  config.log_every = 20
  config.eval_every = 150
  config.checkpoint_every = 100
  return config
