"""The full pre-training: 14 tasks at once, 10.9 M samples, 200 epochs.

Published: the tasks are trained simultaneously, on 10.9 M samples. Reconstructed:
which tasks they are (`painformer_jax/data/corpus.py`), equal shares of a batch of
126 = 14 x 9, learned uncertainty weights, AdamW at 2e-5 with weight decay 0.1 and a
cosine, 200 epochs; label smoothing, warm-up and augmentation are those of the closest
recipe that the same authors published.

Prepare every task first (docs/data.md has the commands); `painformer data list` says
what is missing. A team that lacks some of the datasets names the others after a colon,
`configs/pretrain_painformer.py:vggface2,affectnet`: they keep their 9 images of each batch
and the run its epochs. A preset of the model may stand there instead.

Cost: 17.3 M steps of 126 images. The arithmetic is 36.5 GFLOP an image, 8.0e19 FLOP in
all. Not run: the datasets are not public, so no time and no accuracy are known. As
`painformer plan` compiled it (64 images a chip, bfloat16), memory allows at best 3.2 h on
a v5e:16x16 slice with the FFT gate (822 chip-hours), 2.5 h with the DFT gate (627), and
30 h on 8 H100 (FFT gate, 242).

On more than one device, take a batch that they can share, for instance on 16:
--config.batch_size=1792 --config.batch_size_multiple=16 --config.steps=1216517
--config.optimizer.warmup_steps=121652 --config.eval_every=6083, and choose the learning
rate anew.

The `paper` augmentation gave 787 images/s a core: 8 H100 at their best would want 25 cores
of their host, in processes of their own (--config.workers=24 --config.threads=1).
"""

from ml_collections import ConfigDict

from painformer_jax.data import corpus
from painformer_jax.models import registry
from painformer_jax.training.config import defaults

EPOCHS = 200
WARMUP_EPOCHS = 20
IMAGES_OF_A_TASK = 9


def get_config(choice: str = '') -> ConfigDict:
  """The configuration for tasks of the corpus, commas between, or for a preset."""
  preset = choice in registry.list_models()
  config = defaults(choice if preset else 'painformer')
  config.model.dtype = 'bfloat16'
  tasks = '' if preset else choice
  chosen = corpus.chosen(tasks)
  config.tasks = corpus.task_configs(chosen)
  config.batch_size = IMAGES_OF_A_TASK * len(chosen)
  config.shares = 'equal'
  samples = sum(task.samples for task in chosen) if tasks else corpus.PUBLISHED_SAMPLES
  epoch = samples / config.batch_size
  config.steps = round(EPOCHS * epoch)
  config.optimizer.learning_rate = 2e-5
  config.optimizer.weight_decay = 0.1
  config.optimizer.warmup_steps = round(WARMUP_EPOCHS * epoch)
  config.weighting = 'uncertainty'
  config.label_smoothing = 0.15
  config.log_every = 100
  config.eval_every = round(epoch)
  config.checkpoint_every = 5000
  config.keep_checkpoints = 3
  config.threads = 16
  return config
