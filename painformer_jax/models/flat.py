"""A Flax NNX module as a flat dict from path to array, and back.

Training states, checkpoints and compiled functions hold plain dicts, such as
{'block1/0/mlp/fc1/kernel': ...}. Modules are rebuilt from them where they are called.
"""

import functools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

Arrays = Mapping[str, jax.Array] | Mapping[str, np.ndarray]

_KINDS = (nnx.Param, nnx.BatchStat)


def _path(keys) -> str:
  return '/'.join(map(str, keys))


def arrays_of(model: nnx.Module) -> dict[str, jax.Array]:
  """Every array of a module by its path: parameters and running statistics."""
  return {_path(keys): leaf[...] for keys, leaf in nnx.to_flat_state(nnx.state(model, _KINDS))}


@functools.lru_cache(maxsize=64)
def _structure(module: Callable[..., nnx.Module], config: Hashable, options: tuple):
  """The module's graph and its variables without values."""
  model = nnx.eval_shape(lambda: module(config, rngs=nnx.Rngs(0), **dict(options)))
  graph, state = nnx.split(model, _KINDS)
  return graph, nnx.to_flat_state(state)


def shapes(module: Callable[..., nnx.Module], config: Hashable) -> dict[str, jax.ShapeDtypeStruct]:
  """Path -> shape and dtype of every array of `module(config)`, without making any."""
  return {
    _path(keys): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for keys, leaf in _structure(module, config, ())[1]
  }


def parameter_paths(module: Callable[..., nnx.Module], config: Hashable) -> frozenset[str]:
  """Paths of the learned arrays; the others are running statistics."""
  return frozenset(
    _path(keys) for keys, leaf in _structure(module, config, ())[1] if isinstance(leaf, nnx.Param)
  )


def build(
  module: Callable[..., nnx.Module], config: Hashable, arrays: Arrays, **options: Any
) -> Any:
  """The module that holds the given arrays, in evaluation mode.

  Args:
    module: its class; `module(config, rngs=..., **options)` makes one.
    config: its shape.
    arrays: path -> array, exactly the paths of `shapes(module, config)`.
    **options: further arguments of the class, hashable.

  Raises:
    KeyError: a path is missing or unknown.
  """
  graph, leaves = _structure(module, config, tuple(options.items()))
  unmatched = {_path(keys) for keys, _ in leaves} ^ arrays.keys()
  if unmatched:
    raise KeyError(f'missing or unknown arrays: {", ".join(sorted(unmatched))}')
  state = [(keys, type(leaf)(jnp.asarray(arrays[_path(keys)]))) for keys, leaf in leaves]
  model = nnx.merge(graph, nnx.from_flat_state(state))
  model.eval()
  return model
