"""Linear heads on the embedding, one a task, as plain arrays.

Big heads (thousands of identities) have columns for a multiple of 128 classes, so
that any power of two of devices up to 128 can share them, and a checkpoint fits all of
them. The columns past the last class are zero, are never read and stay zero.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from painformer_jax.models.layers import trunc_normal

# From this many classes on, a head is padded to a multiple of `PADDED_TO`.
PADDED_FROM, PADDED_TO = 1024, 128


def columns(classes: int) -> int:
  """Columns of a head for so many classes."""
  return classes if classes < PADDED_FROM else -(-classes // PADDED_TO) * PADDED_TO


def is_padded(count: int) -> bool:
  """Whether a head of so many columns is one of those that are padded."""
  return count >= PADDED_FROM and count % PADDED_TO == 0


def used_columns(kernel: np.ndarray) -> int:
  """How many classes a stored head has: columns up to the last one that is not zero.

  No column of a class is all zeros, since it starts from random values.

  Args:
    kernel: [width, columns].
  """
  if not is_padded(kernel.shape[1]):
    return kernel.shape[1]
  return int(np.flatnonzero(kernel.any(axis=0))[-1:].sum()) + 1


def initial_heads(
  classes: Mapping[str, int], *, width: int, key: jax.Array
) -> dict[str, jax.Array]:
  """Arrays of every head: '<task>/kernel' [width, columns], '<task>/bias' [columns].

  Initialised as the release does its own head. A task's values depend on the
  key and on its name's place in alphabetical order alone.
  """
  arrays = {}
  for number, task in enumerate(sorted(classes)):
    count = classes[task]
    kernel = trunc_normal(jax.random.fold_in(key, number), (width, count), jnp.float32)
    arrays[f'{task}/kernel'] = jnp.pad(kernel, ((0, 0), (0, columns(count) - count)))
    arrays[f'{task}/bias'] = jnp.zeros(columns(count))
  return arrays


def logits(
  arrays: Mapping[str, jax.Array], task: str, embedding: jax.Array, *, classes: int
) -> jax.Array:
  """[rows, width] -> [rows, classes of the task], float32."""
  kernel, bias = arrays[f'{task}/kernel'][:, :classes], arrays[f'{task}/bias'][:classes]
  return embedding.astype(jnp.float32) @ kernel + bias
