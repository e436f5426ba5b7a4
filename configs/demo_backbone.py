"""A backbone for `assess_demo.py`: the demo's, without the two tasks assessed there.

One that was trained on those (`configs/demo.py`) has seen their labels, and says nothing.

    painformer data demo --data-dir runs/data     # once
    painformer pretrain --config configs/demo_backbone.py --workdir runs/backbone
    painformer assess --config configs/assess_demo.py --workdir runs/assess_demo \\
        --config.weights=runs/backbone
"""

from ml_collections import ConfigDict

from painformer_jax.training.config import defaults


def get_config(model: str = 'painformer_small') -> ConfigDict:
  """The backbone's configuration for a preset."""
  config = defaults(model)
  config.tasks = dict(
    orl_identity=dict(batch_size=16, augment='face'),
    lfw_face=dict(batch_size=4, augment='face'),
    biosignal_waveform=dict(batch_size=12, augment='signal'),
    biosignal_spectrogram=dict(batch_size=12, augment='spectrogram'),
  )
  config.steps = 300
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_steps = 30
  config.optimizer.weight_decay = 0.05
  config.label_smoothing = 0.1
  return config
