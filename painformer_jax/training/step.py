"""The compiled training step: all tasks in one program, shapes static."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from clu import metrics as clu_metrics

from painformer_jax.models import functional, heads
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel import mesh as parallel
from painformer_jax.training import losses, mix
from painformer_jax.training.mix import Mixing
from painformer_jax.training.state import BACKBONE, HEADS, LOG_VARIANCE, TrainState, group


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepPlan:
  """What the compiled step is made from.

  Attributes:
    model: the backbone.
    rows: task -> its rows of every global batch.
    weights: task -> factor on its loss; None for learned weights.
    label_smoothing: of every task's cross-entropy.
    mean, std: statistics that normalise images in [0, 1].
    mixing: task -> how its rows are mixed; a task that is not there is left alone.
  """

  model: PainFormerConfig
  rows: Mapping[str, int]
  weights: Mapping[str, float] | None
  label_smoothing: float
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  mixing: Mapping[str, Mixing] = dataclasses.field(default_factory=dict)


def normalise(images: jax.Array, mean, std) -> jax.Array:
  """uint8 [..., 3] -> float32, scaled to [0, 1] and standardised."""
  return (images.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


def make_train_step(plan: StepPlan, optimizer, mesh: jax.sharding.Mesh, *,
                    state_shardings: TrainState) -> Callable:
  """Compiles `step(state, batch) -> (state, metrics)`; `state` is donated.

  A batch is {task: {'image': uint8 [rows, size, size, 3], 'label': int32
  [rows]}}, rows split over the devices. Metrics are clu averages by name:
  'loss', 'gradient_norm' (before clipping), 'parameter_norm' (after the update;
  with the others it is finite only if all of the new state is),
  'task/<name>/loss', 'task/<name>/accuracy', 'task/<name>/log_variance'
  (learned weights). Where rows are mixed, accuracy is by the label of the larger
  share.

  The devices change float rounding, and with stochastic depth which rows drop
  a branch: rows are numbered in the order in which they lie on the devices.
  """
  tasks = list(plan.rows)
  mixing = {task: how for task, how in plan.mixing.items() if how}
  partition = parallel.PerDevice(mesh) if mesh.size > 1 else None

  def loss_function(params, stats, batch, key):
    images, shares = {t: batch[t]['image'] for t in tasks}, {}
    for task, how in mixing.items():
      by_pixel, shares[task] = mix.own_share(
          mix.task_key(key, task), how, images[task].shape[1:3])
      images[task] = mix.mixed(images[task], by_pixel)
    images = parallel.interleave(mesh, list(images.values()))
    output, arrays = functional.apply_train(
        plan.model, {**group(params, BACKBONE), **stats},
        normalise(images, plan.mean, plan.std), key=key, partition=partition)
    embeddings = parallel.separate(mesh, output.embedding, list(plan.rows.values()))
    task_losses, correct = {}, {}
    for task, embedding in zip(tasks, embeddings):
      logits, labels = heads.logits(group(params, HEADS), task, embedding), batch[task]['label']
      if task in shares:
        others, share = mix.partners(labels), shares[task]
        task_losses[task] = losses.mixed_cross_entropy(
            logits, labels, others, share, label_smoothing=plan.label_smoothing)
        labels = jnp.where(share < 0.5, others, labels)
      else:
        task_losses[task] = losses.cross_entropy(
            logits, labels, label_smoothing=plan.label_smoothing)
      correct[task] = (logits.argmax(-1) == labels).astype(jnp.float32)
    if plan.weights is None:
      loss = losses.uncertainty_weighted(task_losses, group(params, LOG_VARIANCE))
    else:
      loss = losses.fixed_weighted(task_losses, plan.weights)
    return loss, ({path: arrays[path] for path in stats}, task_losses, correct)

  def step(state: TrainState, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    (loss, (stats, task_losses, correct)), gradients = jax.value_and_grad(
        loss_function, has_aux=True)(state.params, state.stats, batch, key)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    values = {'loss': loss, 'gradient_norm': optax.tree.norm(gradients),
              'parameter_norm': optax.tree.norm(params)}
    for task in tasks:
      values[f'task/{task}/loss'] = task_losses[task]
      values[f'task/{task}/accuracy'] = correct[task]
      if plan.weights is None:
        values[f'task/{task}/log_variance'] = state.params[f'{LOG_VARIANCE}/{task}']
    metrics = {name: clu_metrics.Average.from_model_output(v) for name, v in values.items()}
    state = state.replace(
        step=state.step + 1, params=params, stats=stats, opt_state=opt_state)
    return state, metrics

  return jax.jit(
      step, donate_argnums=0,
      in_shardings=(state_shardings, parallel.batch_sharding(mesh)),
      out_shardings=(state_shardings, parallel.replicated(mesh)))


def make_embed_step(model: PainFormerConfig, mesh: jax.sharding.Mesh, *, mean, std) -> Callable:
  """Compiles `embed(arrays, images) -> embeddings` in evaluation mode.

  Args of the result: the backbone's arrays by path, and uint8 [rows, size,
  size, 3] split over the devices; it gives float32 [rows, width].
  """
  partition = parallel.PerDevice(mesh) if mesh.size > 1 else None

  def embed(arrays, images):
    network = functional.from_variables(model, arrays, partition=partition)
    return network(normalise(images, mean, std)).embedding.astype(jnp.float32)

  return jax.jit(embed, out_shardings=parallel.replicated(mesh))
