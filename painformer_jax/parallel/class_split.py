"""The loss of a head whose classes are divided over devices.

No device ever has a row's logits for all classes: each computes those of its own
classes for the rows of its group, and only a few sums a row travel.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh, PartitionSpec

from painformer_jax.parallel.layout import MODEL
from painformer_jax.parallel.mesh import rows_spec


@struct.dataclass
class RowSums:
  """What cross-entropy needs of every row's logits; float32 [rows] each.

  Attributes:
    log_sum: logarithm of the sum of the exponentials.
    mean: over the classes.
    own, other: logits of the row's two labels.
    best: int32, the first class with the largest logit.
  """

  log_sum: jax.Array
  mean: jax.Array
  own: jax.Array
  other: jax.Array
  best: jax.Array


# Logits that a device has at a time: 64 MiB of them, and as much again for gradients.
MOST_LOGITS = 2**24


def row_sums(
  mesh: Mesh,
  kernel: jax.Array,
  bias: jax.Array,
  embedding: jax.Array,
  *,
  labels: jax.Array,
  others: jax.Array,
  classes: int,
  most_logits: int = MOST_LOGITS,
) -> RowSums:
  """Sums over the classes of a head that lies divided over the axis 'model'.

  Args:
    mesh: from `layout.training_mesh`.
    kernel: [width, columns] float32, divided by column; see `models.heads`.
    bias: [columns] float32, likewise.
    embedding: [rows, width], divided by row over all devices.
    labels, others: [rows] int32 below `classes`, likewise.
    classes: columns that are classes; the rest is padding.
    most_logits: that a device computes at a time, if more than a row's; with more, it
      goes through the rows in pieces, and through each once more for the gradient.
  """

  def of_own_classes(kernel, bias, embedding, labels, others):
    rows = embedding.shape[0]
    # All rows of the group: the devices that share the classes.
    of_group = [jax.lax.all_gather(a, MODEL, tiled=True) for a in (embedding, labels, others)]
    count = of_group[0].shape[0]
    pieces = next(
      n
      for n in range(1, count + 1)
      if not count % n and (count // n * bias.size <= most_logits or n == count)
    )
    if pieces == 1:
      sums = of_piece(kernel, bias, *of_group)
    else:
      sums = jax.lax.map(
        jax.checkpoint(lambda piece: of_piece(kernel, bias, *piece)),
        [a.reshape(pieces, -1, *a.shape[1:]) for a in of_group],
      )
      sums = jax.tree.map(lambda a: a.reshape(count), sums)
    start = jax.lax.axis_index(MODEL) * rows  # Each keeps its own rows' sums.
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, rows), sums)

  def of_piece(kernel, bias, embedding, labels, others):
    first = jax.lax.axis_index(MODEL) * bias.size
    real = first + jnp.arange(bias.size) < classes
    logits = embedding.astype(jnp.float32) @ kernel + bias
    logits_or_low = jnp.where(real, logits, -jnp.inf)
    # The largest cancels out of the result, and with it out of the gradient.
    own_largest = jax.lax.stop_gradient(logits_or_low).max(-1)
    largest = jax.lax.pmax(own_largest, MODEL)
    total = jax.lax.psum(jnp.exp(logits_or_low - largest[:, None]).sum(-1), MODEL)
    mean = jax.lax.psum(jnp.where(real, logits, 0).sum(-1), MODEL) / classes

    def logit_of(label):
      column = label - first
      mine = (column >= 0) & (column < bias.size)
      found = jnp.take_along_axis(logits, jnp.clip(column, 0, bias.size - 1)[:, None], axis=1)[:, 0]
      return jax.lax.psum(jnp.where(mine, found, 0), MODEL)

    best = jnp.where(
      own_largest == largest, first + logits_or_low.argmax(-1), jnp.iinfo(jnp.int32).max
    )
    return RowSums(
      log_sum=jnp.log(total) + largest,
      mean=mean,
      own=logit_of(labels),
      other=logit_of(others),
      best=jax.lax.pmin(best, MODEL),
    )

  rows, by_class = rows_spec(mesh), PartitionSpec(MODEL)
  return jax.shard_map(
    of_own_classes,
    mesh=mesh,
    in_specs=(PartitionSpec(None, MODEL), by_class, rows, rows, rows),
    out_specs=RowSums(*[rows] * 5),
  )(kernel, bias, embedding, labels, others)
