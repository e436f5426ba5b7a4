"""Accuracy of a state's own heads on held-out data."""

from collections.abc import Callable, Mapping

import jax
import numpy as np

from painformer_jax.data import mixture
from painformer_jax.models import heads
from painformer_jax.parallel import mesh as parallel
from painformer_jax.training.state import BACKBONE, HEADS, TrainState, group

def evaluate(state: TrainState, embed: Callable, *, mesh: jax.sharding.Mesh,
             tasks: Mapping[str, int], data_dir: str, image_size: int,
             batch_size: int, threads: int,
             stop: Callable[[], bool] = lambda: False) -> dict[str, float] | None:
  """Runs every task's 'test' split through the backbone and the task's head.

  Args:
    state: of training; its running statistics normalise.
    embed: from `step.make_embed_step`, compiled once for all tasks.
    mesh: rows of a batch are split over it.
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
  arrays = parallel.everywhere(mesh, {**group(state.evaluated, BACKBONE), **state.stats})
  head_arrays = group(state.evaluated, HEADS)
  logits_of = jax.jit(heads.logits, static_argnames=('task', 'classes'),
                      out_shardings=parallel.replicated(mesh))
  results = {}
  for task in tasks:
    correct, losses = [], []
    with mixture.eval_batches(
        task, 'test', data_dir=data_dir, image_size=image_size,
        batch_size=batch_size, threads=threads) as batches:
      for batch in batches:
        if stop():
          return None
        embedding = embed(arrays, parallel.put_whole(mesh, batch['image']))
        logits = jax.device_get(logits_of(
            head_arrays, task=task, embedding=embedding, classes=tasks[task]))
        logits, labels = logits[batch['mask']], batch['label'][batch['mask']]
        correct.append(logits.argmax(-1) == labels)
        shifted = logits - logits.max(-1, keepdims=True)
        log_sum = np.log(np.exp(shifted).sum(-1))
        losses.append(log_sum - shifted[np.arange(len(labels)), labels])
    results[f'eval/{task}/accuracy'] = float(np.concatenate(correct).mean())
    results[f'eval/{task}/loss'] = float(np.concatenate(losses).mean())
  return results
