"""Cross-entropy of a head whose classes are divided over devices.

No device ever has an example's logits for all classes. Each computes those of its own
classes for all examples of its group, and a few sums per example are exchanged.
"""

import jax
import jax.numpy as jnp
from flax import struct
from jax.sharding import Mesh, PartitionSpec

from painformer_jax.parallel.layout import MODEL
from painformer_jax.parallel.mesh import batch_spec


@struct.dataclass
class LogitSums:
  """What cross-entropy needs of every example's logits; float32 [batch] each.

  Attributes:
    logsumexp: over the classes.
    mean: over the classes.
    target_logit: of the example's label.
    partner_logit: of the label of the example that it is mixed with.
    predicted: int32, the first class with the largest logit.
  """

  logsumexp: jax.Array
  mean: jax.Array
  target_logit: jax.Array
  partner_logit: jax.Array
  predicted: jax.Array


# Logits that a device has at a time: 64 MiB of them, and as much again for gradients.
MOST_LOGITS = 2**24


def logit_sums(
  mesh: Mesh,
  kernel: jax.Array,
  *,
  bias: jax.Array,
  embedding: jax.Array,
  labels: jax.Array,
  partner_labels: jax.Array,
  classes: int,
  most_logits: int = MOST_LOGITS,
) -> LogitSums:
  """Sums over the classes of a head that is divided over the axis 'model'.

  Args:
    mesh: from `layout.training_mesh`.
    kernel: [width, columns] float32, divided by column; see `models.heads`.
    bias: [columns] float32, divided likewise.
    embedding: [batch, width], divided by example over all devices.
    labels, partner_labels: [batch] int32 below `classes`, divided likewise.
    classes: how many columns are classes; the rest is padding.
    most_logits: that a device computes at a time, if more than an example's. With more,
      it goes through the examples in chunks, and through each once more for the gradient.
  """

  def of_device(kernel, bias, embedding, labels, partner_labels):
    own = embedding.shape[0]
    # All examples of the group of devices over which the classes are divided.
    of_group = [
      jax.lax.all_gather(a, MODEL, tiled=True) for a in (embedding, labels, partner_labels)
    ]
    count = of_group[0].shape[0]
    chunks = next(
      n
      for n in range(1, count + 1)
      if not count % n and (count // n * bias.size <= most_logits or n == count)
    )
    if chunks == 1:
      sums = of_chunk(kernel, bias, *of_group)
    else:
      sums = jax.lax.map(
        jax.checkpoint(lambda chunk: of_chunk(kernel, bias, *chunk)),
        [a.reshape(chunks, -1, *a.shape[1:]) for a in of_group],
      )
      sums = jax.tree.map(lambda a: a.reshape(count), sums)
    start = jax.lax.axis_index(MODEL) * own  # Each device keeps its own examples' sums.
    return jax.tree.map(lambda a: jax.lax.dynamic_slice_in_dim(a, start, own), sums)

  def of_chunk(kernel, bias, embedding, labels, partner_labels):
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

    first_best = jnp.where(
      own_largest == largest, first + logits_or_low.argmax(-1), jnp.iinfo(jnp.int32).max
    )
    return LogitSums(
      logsumexp=jnp.log(total) + largest,
      mean=mean,
      target_logit=logit_of(labels),
      partner_logit=logit_of(partner_labels),
      predicted=jax.lax.pmin(first_best, MODEL),
    )

  batch, by_class = batch_spec(mesh), PartitionSpec(MODEL)
  return jax.shard_map(
    of_device,
    mesh=mesh,
    in_specs=(PartitionSpec(None, MODEL), by_class, batch, batch, batch),
    out_specs=LogitSums(*[batch] * 5),
  )(kernel, bias, embedding, labels, partner_labels)
