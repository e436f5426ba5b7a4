"""Models by name, and their variables as flat tables."""

import dataclasses
import difflib

import jax
import numpy as np
from flax import nnx

from painformer_jax.errors import InputError
from painformer_jax.models.config import PRESETS, PainFormerConfig, Preset
from painformer_jax.models.painformer import PainFormer


def list_models() -> list[str]:
  """Names that `create` takes."""
  return list(PRESETS)


def preset(name: str) -> Preset:
  """The preset of that name.

  Raises:
    InputError: there is none.
  """
  if name not in PRESETS:
    near = difflib.get_close_matches(name, PRESETS, n=1)
    hint = f'; did you mean {near[0]}?' if near else ''
    raise InputError(f'no model {name!r}{hint} (known: {", ".join(PRESETS)})')
  return PRESETS[name]


def make_config(name: str, **overrides) -> PainFormerConfig:
  """A preset's config with some fields replaced.

  Raises:
    InputError: no such preset or field, or a value that does not fit.
  """
  config = preset(name).config
  known = {field.name for field in dataclasses.fields(config)}
  for field in overrides.keys() - known:
    raise InputError(f'model {name} has no field {field!r} (known: {", ".join(sorted(known))})')
  try:
    return dataclasses.replace(config, **overrides)
  except ValueError as error:
    raise InputError(f'model {name}: {error}') from error


def create(name: str, *, num_classes: int = 0, seed: int = 0, **overrides) -> PainFormer:
  """A model with fresh weights, in evaluation mode.

  Args:
    name: one of `list_models()`.
    num_classes: width of the head; 0 for none.
    seed: of the initial values.
    **overrides: fields of `PainFormerConfig`, such as `image_size=112`.

  Raises:
    InputError: no such preset or field, or a value that does not fit.
  """
  config = make_config(name, num_classes=num_classes, **overrides)
  model = PainFormer(config, rngs=nnx.Rngs(seed))
  model.eval()
  return model


def variables(model: nnx.Module) -> dict[str, jax.Array]:
  """Every array of a model by its path, such as 'block1/0/mlp/fc1/kernel'."""
  state = nnx.state(model, (nnx.Param, nnx.BatchStat))
  return {'/'.join(map(str, path)): leaf[...]
          for path, leaf in nnx.to_flat_state(state)}


def abstract_variables(config: PainFormerConfig) -> dict[str, jax.ShapeDtypeStruct]:
  """Paths, shapes and dtypes of a model's arrays, without making them."""
  model = nnx.eval_shape(lambda: PainFormer(config, rngs=nnx.Rngs(0)))
  state = nnx.state(model, (nnx.Param, nnx.BatchStat))
  return {'/'.join(map(str, path)): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
          for path, leaf in nnx.to_flat_state(state)}


def from_variables(config: PainFormerConfig, arrays: dict, *, partition=None) -> PainFormer:
  """A model that holds the given arrays, in evaluation mode.

  Args:
    config: its shape.
    arrays: path -> array, exactly the paths of `abstract_variables(config)`.
    partition: see `PainFormer`.

  Raises:
    KeyError: a path is missing or unknown.
  """
  graph, state = nnx.split(nnx.eval_shape(
      lambda: PainFormer(config, rngs=nnx.Rngs(0), partition=partition)))
  flat = nnx.to_flat_state(state)
  paths = {'/'.join(map(str, path)) for path, _ in flat}
  if paths != arrays.keys():
    raise KeyError(f'paths differ: {sorted(paths ^ arrays.keys())}')
  leaves = [(path, leaf.replace(jax.numpy.asarray(arrays['/'.join(map(str, path))])))
            for path, leaf in flat]
  model = nnx.merge(graph, nnx.from_flat_state(leaves))
  model.eval()
  return model


def count_parameters(config: PainFormerConfig) -> int:
  """Learned values, without running statistics."""
  model = nnx.eval_shape(lambda: PainFormer(config, rngs=nnx.Rngs(0)))
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
