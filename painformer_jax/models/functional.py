"""PainFormer as functions of a flat dict of arrays, see `models.flat`."""

import math
from collections.abc import Callable, Sequence

import jax
from flax import nnx

from painformer_jax.models import flat
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.flat import Arrays
from painformer_jax.models.layers import Moments, Places, batch_moments, joint_moments
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
  places: Places | None = None,
  partition: Callable | None = None,
  remat: Sequence[str] = (),
  stem_moments: Sequence[Moments] | None = None,
) -> tuple[Output, dict[str, jax.Array]]:
  """Runs a model in training mode: batch statistics and stochastic depth.

  Args:
    config: its shape.
    arrays: path -> array.
    images: [rows, size, size, 3], normalised.
    key: for stochastic depth.
    places, partition, remat: see `PainFormer`.
    stem_moments: of the batch that the images are a part of; None if they are all.

  Returns:
    The output, and all arrays with the running statistics brought up to date
    (not with `stem_moments`, see `updated_statistics`).
  """
  model = from_variables(config, arrays, partition=partition)
  model.train()
  output = model(images, key=key, places=places, remat=remat, stem_moments=stem_moments)
  return output, variables(model)


def stem_moments(
  config: PainFormerConfig,
  arrays: Arrays,
  parts: jax.Array,
  *,
  prepare: Callable[[jax.Array], jax.Array],
) -> tuple[Moments, ...]:
  """Batch statistics of the stem over a batch that is looked at part by part.

  The parts of a batch that go through the model one after the other are normalised
  with the statistics of all of it, so that the parts give what the whole gives. It
  takes the stem's convolutions two times more, and their memory for one part.

  Args:
    config: its shape.
    arrays: path -> array.
    parts: [parts, rows, size, size, 3], any dtype.
    prepare: [rows, size, size, 3] of one part -> normalised images.

  Returns:
    For each BatchNorm of the stem, its moments; differentiable by `arrays`.
  """
  model = from_variables(config, arrays)
  model.train()  # So that the moments serve, not the running statistics.
  stem, found = model.patch_embed1, ()
  for _ in range(NORMS):
    known = found

    @jax.checkpoint
    def of_part(images, known=known):
      return batch_moments(stem.before_norm(prepare(images).astype(config.dtype), known))

    found += (joint_moments(*jax.lax.map(of_part, parts)),)
  return found


def updated_statistics(
  config: PainFormerConfig, arrays: Arrays, moments: Sequence[Moments], *, rows: int
) -> dict[str, jax.Array]:
  """All arrays with the running statistics brought up to date.

  Args:
    config: its shape.
    arrays: path -> array.
    moments: from `stem_moments`.
    rows: images of the whole batch.
  """
  model = from_variables(config, arrays)
  size = rows * (-(-config.image_size // 2)) ** 2  # The stem's grid is half the input's.
  for n, found in enumerate(moments, start=1):
    getattr(model.patch_embed1, f'bn{n}').update(found, size=size)
  return variables(model)
