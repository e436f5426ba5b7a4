"""The compiled training step: all tasks in one program, shapes static."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics

from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel import layout
from painformer_jax.parallel.mesh import (
  BatchShardMap,
  batch_sharding,
  replicated,
  split_microbatches,
)
from painformer_jax.training.forward import Forward, Result, StepPlan, normalise
from painformer_jax.training.mixup import mix_batch
from painformer_jax.training.state import LOG_VARIANCE, TrainState


def make_train_step(
  plan: StepPlan, optimizer, mesh: jax.sharding.Mesh, *, state_shardings: TrainState
) -> jax.stages.Wrapped:
  """Compiles `step(state, batch) -> (state, metrics)`; `state` is donated.

  A batch is {task: {'image': uint8 [batch, size, size, 3], 'label': int32
  [batch]}}, examples sharded over the devices. Metrics are clu averages by name:
  'loss', 'gradient_norm' (before clipping), 'parameter_norm' (after the update;
  with the others it is finite only if all of the new state is),
  'task/<name>/loss', 'task/<name>/accuracy', 'task/<name>/log_variance'
  (learned weights), and 'skipped' (1 where nothing was updated) if non-finite steps
  are skipped. Where images are mixed, accuracy is by the label of the larger share.

  The numbers of devices and microbatches change float rounding and nothing else: mixup
  and stochastic depth depend on an example's index in the batch, not on its device.
  """
  forward = Forward(plan, mesh)
  # Otherwise the examples are the whole batch, in its order.
  needs_indices = plan.model.drop_path_rate > 0 and (mesh.size > 1 or plan.grad_accum_steps > 1)
  loss_and_gradients = _accumulated if plan.grad_accum_steps > 1 else _at_once

  def step(state: TrainState, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    batch, lambdas = mix_batch({task: batch[task] for task in plan.batch_sizes}, plan.mixup, key)
    if needs_indices:
      batch = _with_indices(batch, plan)
    loss, result, gradients = loss_and_gradients(
      forward, state, batch, lambdas, key, state_shardings.params
    )
    gradients = layout.constrained(gradients, state_shardings.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new = dataclasses.replace(
      state,
      params=params,
      stats=result.stats,
      opt_state=opt_state,
      ema=_averaged(state, params, plan.ema_decay),
    )
    values = {
      'loss': loss,
      'gradient_norm': optax.tree.norm(gradients),
      'parameter_norm': optax.tree.norm(params),
    }
    if plan.skips_non_finite:
      finite = jnp.all(jnp.isfinite(jnp.stack(list(values.values()))))
      new = jax.tree.map(lambda n, o: jnp.where(finite, n, o), new, state)
      values['skipped'] = 1 - finite.astype(jnp.float32)
    for task in plan.batch_sizes:
      values[f'task/{task}/loss'] = result.task_losses[task]
      values[f'task/{task}/accuracy'] = result.correct[task]
      if plan.weights is None:
        values[f'task/{task}/log_variance'] = state.params[f'{LOG_VARIANCE}/{task}']
    metrics = {name: clu_metrics.Average.from_model_output(v) for name, v in values.items()}
    return dataclasses.replace(new, step=state.step + 1), metrics

  return jax.jit(
    step,
    donate_argnums=0,
    in_shardings=(state_shardings, batch_sharding(mesh)),
    out_shardings=(state_shardings, replicated(mesh)),
  )


def _with_indices(batch, plan: StepPlan):
  """The batch with each example's index in it, for when examples are reordered."""
  sizes = list(plan.batch_sizes.values())
  # A NumPy constant, which every device has in full, so that nothing is sent.
  indices = np.split(np.arange(sum(sizes), dtype=np.int32), np.cumsum(sizes)[:-1])
  return {
    task: {**batch[task], 'index': jnp.asarray(own)} for task, own in zip(plan.batch_sizes, indices)
  }


def _at_once(forward: Forward, state: TrainState, batch, lambdas, key, shardings):
  """Loss, result and gradients of a batch."""
  del shardings
  (loss, result), gradients = jax.value_and_grad(forward.loss, has_aux=True)(
    state.params, None, state.stats, batch, lambdas, key
  )
  return loss, result, gradients


def _accumulated(forward: Forward, state: TrainState, batch, lambdas, key, shardings):
  """Loss, result and gradients of a batch, one microbatch after the other.

  The stem's batch statistics are those of the whole batch, computed first. Each
  microbatch adds to the gradients of the parameters and of the statistics; the latter go
  back to the parameters at the end.
  """
  plan, params = forward.plan, state.params
  steps = plan.grad_accum_steps
  microbatches = split_microbatches(forward.mesh, batch, steps)
  statistics, gradients_of_statistics = jax.vjp(
    lambda params: functional.stem_statistics(
      plan.model, forward.backbone(params, state.stats), microbatches, prepare=forward.images
    ),
    params,
  )

  def add_microbatch(total, microbatch):
    (loss, result), gradients = jax.value_and_grad(forward.loss, argnums=(0, 1), has_aux=True)(
      params, statistics, state.stats, microbatch, lambdas, key
    )
    total = jax.tree.map(lambda t, g: t + g / steps, total, gradients)
    total = (layout.constrained(total[0], shardings), total[1])
    return total, (loss, result.task_losses, result.correct)

  (gradients, of_statistics), (loss, task_losses, correct) = jax.lax.scan(
    add_microbatch, jax.tree.map(jnp.zeros_like, (params, statistics)), microbatches
  )
  gradients = jax.tree.map(jnp.add, gradients, gradients_of_statistics(of_statistics)[0])
  arrays = functional.updated_running_statistics(
    plan.model, forward.backbone(params, state.stats), statistics, batch_size=forward.batch_size
  )
  result = Result(
    stats={path: arrays[path] for path in state.stats},
    task_losses=jax.tree.map(jnp.mean, task_losses),
    correct=correct,
  )
  return loss.mean(), result, gradients


def _averaged(state: TrainState, params, decay: float) -> dict[str, jax.Array]:
  """The moving averages after an update; the first steps average over less."""
  if not decay:
    return state.ema
  count = state.step.astype(jnp.float32)
  decay = jnp.minimum(decay, (1 + count) / (10 + count))
  return {path: decay * average + (1 - decay) * params[path] for path, average in state.ema.items()}


def make_embed_step(model: PainFormerConfig, mesh: jax.sharding.Mesh) -> Callable:
  """Compiles `embed(arrays, images) -> embeddings` in evaluation mode.

  Args of the result: the backbone's arrays by path, and uint8 [batch, size, size, 3]
  sharded over the devices; it gives float32 [batch, width].
  """
  partition = BatchShardMap(mesh) if mesh.size > 1 else None

  def embed(arrays, images):
    network = functional.from_variables(model, arrays, partition=partition)
    return network(normalise(images, model.mean, model.std)).embedding.astype(jnp.float32)

  return jax.jit(embed, out_shardings=replicated(mesh))
