"""Linear heads on the embedding, one a task, as plain arrays."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from painformer_jax.models.layers import trunc_normal


def initial_heads(classes: Mapping[str, int], *, width: int, key: jax.Array) -> dict[str, jax.Array]:
  """Arrays of every head: '<task>/kernel' [width, classes], '<task>/bias'.

  Initialised as the release does its own head. A task's values depend on the
  key and on its name's place in alphabetical order alone.
  """
  arrays = {}
  for number, task in enumerate(sorted(classes)):
    shape = (width, classes[task])
    arrays[f'{task}/kernel'] = trunc_normal(jax.random.fold_in(key, number), shape, jnp.float32)
    arrays[f'{task}/bias'] = jnp.zeros(classes[task])
  return arrays


def logits(arrays: Mapping[str, jax.Array], task: str, embedding: jax.Array) -> jax.Array:
  """[rows, width] -> [rows, classes of the task], float32."""
  return embedding.astype(jnp.float32) @ arrays[f'{task}/kernel'] + arrays[f'{task}/bias']
