"""Folds to train in small: a task, a model, and how far two results are apart."""

import functools

import numpy as np

from painformer_jax.assessment.folds.batches import Fold
from painformer_jax.assessment.mixers.fit import fit_folds
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig

# Without self-attention, which takes half of the compiling.
MODEL = EmbeddingMixerConfig(
  outputs=2,
  input_width=6,
  tokens='vector',
  positions=2,
  latents=2,
  width=16,
  cross_heads=2,
  cross_head_width=8,
  self_attentions=0,
  depth=1,
  mlp_ratio=1,
)
CONFIG = FitConfig(model=MODEL, steps=24, batch=8, learning_rate=5e-3)
# Two trainings of the same fold in differently shaped programs: float32 sums
# run in another order, and AdamW's first steps amplify what differs.
CLOSE = 1e-5


@functools.cache
def task(samples=96, tokens=2, effect=2.0, seed=0):
  """Embeddings whose first number carries the label, and the labels."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 2, samples)
  inputs = rng.standard_normal((samples, tokens, 6)).astype(np.float32)
  inputs[:, :, 0] += effect * (2 * labels[:, None] - 1)
  return inputs, labels


def leave_out(count, samples=96):
  """Folds that leave a share out each, of almost the same size."""
  parts = np.array_split(np.arange(samples), count)
  return [
    Fold(name=f's{i}', test=part, train=np.setdiff1d(np.arange(samples), part))
    for i, part in enumerate(parts)
  ]


def train(folds=None, config=CONFIG, **options):
  inputs, labels = task()
  return fit_folds(inputs, labels, folds or leave_out(5), config=config, **options)


def difference(result, other, fold=0, other_fold=0):
  return max(
    np.abs(result.logits[fold] - other.logits[other_fold]).max(),
    np.abs(result.losses[fold] - other.losses[other_fold]).max(),
  )
