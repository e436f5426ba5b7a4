"""PainFormer as functions of a flat dict of arrays, see `models.flat`."""

import math
from collections.abc import Callable, Sequence

import jax
from flax import nnx

from painformer_jax.models import flat
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.flat import Arrays
from painformer_jax.models.layers import (
  BatchIndices,
  BatchStatistics,
  batch_statistics,
  joint_statistics,
)
from painformer_jax.models.painformer import Output, PainFormer
from painformer_jax.models.stem import NORMS

variables = flat.arrays_of


def abstract_variables(config: PainFormerConfig) -> dict[str, jax.ShapeDtypeStruct]:
  """Paths, shapes and dtypes of a model's arrays, without making them."""
  return flat.shapes(PainFormer, config)


def parameter_paths(config: PainFormerConfig) -> frozenset[str]:
  """Paths of the learned arrays; the others are running statistics."""
  return flat.parameter_paths(PainFormer, config)


def count_parameters(config: PainFormerConfig) -> int:
  """Learned values, without running statistics."""
  paths = parameter_paths(config)
  return sum(math.prod(a.shape) for path, a in abstract_variables(config).items() if path in paths)


def initial_variables(config: PainFormerConfig, seed: int | jax.Array) -> dict[str, jax.Array]:
  """Fresh arrays with the release's initialisation; `seed` may be a key."""
  return variables(PainFormer(config, rngs=nnx.Rngs(seed)))


def from_variables(
  config: PainFormerConfig, arrays: Arrays, *, partition: Callable | None = None
) -> PainFormer:
  """A model that holds the given arrays, in evaluation mode.

  Args:
    config: its shape.
    arrays: path -> array, exactly the paths of `abstract_variables(config)`.
    partition: see `PainFormer`.

  Raises:
    KeyError: a path is missing or unknown.
  """
  return flat.build(PainFormer, config, arrays, partition=partition)


def apply_train(
  config: PainFormerConfig,
  arrays: Arrays,
  images: jax.Array,
  *,
  key: jax.Array | None = None,
  batch_indices: BatchIndices | None = None,
  partition: Callable | None = None,
  remat: Sequence[str] = (),
  stem_statistics: Sequence[BatchStatistics] | None = None,
) -> tuple[Output, dict[str, jax.Array]]:
  """Runs a model in training mode: batch statistics and stochastic depth.

  Args:
    config: its shape.
    arrays: path -> array.
    images: [batch, size, size, 3], normalised.
    key: for stochastic depth.
    batch_indices, partition, remat: see `PainFormer`.
    stem_statistics: of the whole batch, where the images are a microbatch of it; None otherwise.

  Returns:
    The output, and all arrays with the running statistics brought up to date
    (not with `stem_statistics`, see `updated_running_statistics`).
  """
  model = from_variables(config, arrays, partition=partition)
  model.train()
  output = model(
    images, key=key, batch_indices=batch_indices, remat=remat, stem_statistics=stem_statistics
  )
  return output, variables(model)


def stem_statistics(
  config: PainFormerConfig,
  arrays: Arrays,
  microbatches: jax.Array,
  *,
  prepare: Callable[[jax.Array], jax.Array],
) -> tuple[BatchStatistics, ...]:
  """Batch statistics of the stem over a batch that is processed in microbatches.

  Microbatches are normalised with the statistics of the whole batch, so that their
  result is that of the whole. This computes the stem's convolutions two times more, with
  the memory of one microbatch.

  Args:
    config: its shape.
    arrays: path -> array.
    microbatches: [microbatches, images, size, size, 3], any dtype.
    prepare: [images, size, size, 3] of one microbatch -> normalised images.

  Returns:
    For each BatchNorm of the stem, its statistics; differentiable in `arrays`.
  """
  model = from_variables(config, arrays)
  model.train()  # Batch statistics are used, not the running ones.
  stem, found = model.patch_embed1, ()
  for _ in range(NORMS):
    known = found

    @jax.checkpoint
    def of_microbatch(images, known=known):
      return batch_statistics(stem.before_norm(prepare(images).astype(config.dtype), known))

    found += (joint_statistics(*jax.lax.map(of_microbatch, microbatches)),)
  return found


def updated_running_statistics(
  config: PainFormerConfig,
  arrays: Arrays,
  statistics: Sequence[BatchStatistics],
  *,
  batch_size: int,
) -> dict[str, jax.Array]:
  """All arrays with the running statistics brought up to date.

  Args:
    config: its shape.
    arrays: path -> array.
    statistics: from `stem_statistics`.
    batch_size: images of the whole batch.
  """
  model = from_variables(config, arrays)
  size = batch_size * (-(-config.image_size // 2)) ** 2  # The stem's grid is half the input's.
  for n, found in enumerate(statistics, start=1):
    getattr(model.patch_embed1, f'bn{n}').update(found, size=size)
  return variables(model)
