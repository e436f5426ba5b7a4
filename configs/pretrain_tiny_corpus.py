"""All 14 tasks for a few steps: whether datasets, mixture and training fit together.

The code path of `configs/pretrain_painformer.py` with the smallest model, for
miniature copies of the datasets or for the real ones, prepared at any size. It takes
1 to 2 minutes on 2 CPU cores, most of it compilation; what it learns is of no use.
`configs/pretrain_tiny_corpus.py:vggface2,affectnet` takes the tasks it names alone.
"""

from ml_collections import ConfigDict

from painformer_jax.data import corpus
from painformer_jax.training.config import defaults


def get_config(tasks: str = '') -> ConfigDict:
  """The configuration: 8 steps of 2 images of each task."""
  config = defaults('painformer_nano')
  chosen = corpus.chosen(tasks)
  config.tasks = corpus.task_configs(chosen)
  config.batch_size = 2 * len(chosen)
  config.shares = 'equal'
  config.steps = 8
  config.optimizer.learning_rate = 1e-3
  config.label_smoothing = 0.15
  config.log_every = 2
  config.checkpoint_every = 4
  config.eval_batch_size = 16
  return config
