"""Accuracy of a state's own heads on held-out data."""

import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np
import optax

from painformer_jax.data import mixture
from painformer_jax.models import heads
from painformer_jax.parallel import class_split, layout
from painformer_jax.parallel.mesh import batch_sharding, put_batch, replicate, replicated
from painformer_jax.training.state import BACKBONE, HEADS, TrainState, group


def evaluate(
  state: TrainState,
  embed: Callable,
  *,
  mesh: jax.sharding.Mesh,
  tasks: Mapping[str, int],
  data_dir: str,
  image_size: int,
  batch_size: int,
  threads: int,
  stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
  """Runs every task's 'test' split through the backbone and the task's head.

  Of several processes, each reads its own share of every batch, and all get the figures.

  Args:
    state: of training; its running statistics normalise.
    embed: from `step.make_embed_step`, compiled once for all tasks.
    mesh: a batch is sharded over it.
    tasks: task -> number of classes.
    data_dir: folder of the prepared tasks.
    image_size: in pixels.
    batch_size: rounded up to a multiple of the devices.
    threads: that read and decode.
    stop: asked before each batch; where it answers True, nothing is returned.

  Returns:
    'eval/<task>/accuracy' and 'eval/<task>/loss' (cross-entropy without label
    smoothing) for each task.
  """
  batch_size = -(-batch_size // mesh.size) * mesh.size
  arrays = replicate(mesh, {**group(state.evaluated, BACKBONE), **state.stats})
  results = {}
  for task, classes in tasks.items():
    head = {
      path: state.evaluated[path] for path in (f'{HEADS}/{task}/kernel', f'{HEADS}/{task}/bias')
    }
    found = []
    with mixture.eval_batches(
      task,
      'test',
      data_dir=data_dir,
      image_size=image_size,
      batch_size=batch_size,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      threads=threads,
    ) as batches:
      for batch in batches:
        if stop():
          return None
        batch = put_batch(mesh, {name: batch[name] for name in ('image', 'label', 'mask')})
        embedding = embed(arrays, batch.pop('image'))
        losses, correct, mask = jax.device_get(
          _judged(head, embedding, batch, mesh=mesh, task=task, classes=classes)
        )
        found.append((losses[mask], correct[mask]))
    losses, correct = map(np.concatenate, zip(*found))
    results[f'eval/{task}/accuracy'] = float(correct.mean())
    results[f'eval/{task}/loss'] = float(losses.mean(dtype=np.float64))
  return results


@functools.partial(jax.jit, static_argnames=('mesh', 'task', 'classes'))
def _judged(head, embedding, batch, *, mesh, task, classes):
  """Of each example: its loss, whether the predicted class is right, and the mask.

  No device computes logits of examples that are not its own, nor, where classes are
  sharded, logits of all classes.
  """
  arrays, labels = group(layout.gathered(mesh, head), HEADS), batch['label']
  embedding = jax.lax.with_sharding_constraint(embedding, batch_sharding(mesh))
  kernel, bias = arrays[f'{task}/kernel'], arrays[f'{task}/bias']
  if layout.splits_classes(mesh, bias.size):
    sums = class_split.logit_sums(
      mesh,
      kernel,
      bias=bias,
      embedding=embedding,
      labels=labels,
      partner_labels=labels,
      classes=classes,
    )
    losses, best = sums.logsumexp - sums.target_logit, sums.predicted
  else:
    logits = heads.logits(arrays, task, embedding, classes=classes)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    best = logits.argmax(-1)
  return jax.lax.with_sharding_constraint((losses, best == labels, batch['mask']), replicated(mesh))
