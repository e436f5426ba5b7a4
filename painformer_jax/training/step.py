"""The compiled training step: all tasks in one program, shapes static."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from clu import metrics as clu_metrics

from painformer_jax.models import functional, heads
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.layers import Places
from painformer_jax.parallel import class_split, layout
from painformer_jax.parallel import mesh as parallel
from painformer_jax.training import losses, mix
from painformer_jax.training.mix import Mixing
from painformer_jax.training.state import BACKBONE, HEADS, LOG_VARIANCE, TrainState, group


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepPlan:
  """What the compiled step is made from.

  Attributes:
    model: the backbone.
    batch_sizes: task -> its examples of every global batch.
    weights: task -> factor on its loss; None for learned weights.
    label_smoothing: of every task's cross-entropy.
    mean, std: statistics that normalise images in [0, 1].
    mixing: task -> how its rows are mixed; a task that is not there is left alone.
    classes: task -> number of classes.
    grad_accum_steps, remat, ema_decay: see `training.config.TrainConfig`.
    skips_non_finite: whether a step whose loss or gradient is not finite leaves the
      state as it was.
  """

  model: PainFormerConfig
  batch_sizes: Mapping[str, int]
  weights: Mapping[str, float] | None
  label_smoothing: float
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  classes: Mapping[str, int]
  mixing: Mapping[str, Mixing] = dataclasses.field(default_factory=dict)
  grad_accum_steps: int = 1
  remat: tuple[str, ...] = ()
  ema_decay: float = 0.0
  skips_non_finite: bool = False


def normalise(images: jax.Array, mean, std) -> jax.Array:
  """uint8 [..., 3] -> float32, scaled to [0, 1] and standardised."""
  return (images.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


def make_train_step(
  plan: StepPlan, optimizer, mesh: jax.sharding.Mesh, *, state_shardings: TrainState
) -> jax.stages.Wrapped:
  """Compiles `step(state, batch) -> (state, metrics)`; `state` is donated.

  A batch is {task: {'image': uint8 [rows, size, size, 3], 'label': int32
  [rows]}}, rows split over the devices. Metrics are clu averages by name:
  'loss', 'gradient_norm' (before clipping), 'parameter_norm' (after the update;
  with the others it is finite only if all of the new state is),
  'task/<name>/loss', 'task/<name>/accuracy', 'task/<name>/log_variance'
  (learned weights), and 'skipped' (1 where nothing was updated) if non-finite steps
  are skipped. Where rows are mixed, accuracy is by the label of the larger share.

  The devices and the parts of a step change float rounding and nothing else: rows
  are mixed, and drop branches, by their place in the batch and not by where they lie.
  """
  tasks = list(plan.batch_sizes)
  mixing = {task: how for task, how in plan.mixing.items() if how}
  partition = parallel.BatchShardMap(mesh) if mesh.size > 1 else None
  counts = [plan.batch_sizes[task] for task in tasks]
  # Else the rows are the whole batch, in its order.
  needs_places = plan.model.drop_path_rate > 0 and (mesh.size > 1 or plan.grad_accum_steps > 1)

  def joined(batch, name):
    return parallel.interleave(mesh, [batch[task][name] for task in tasks])

  def joined_images(batch):
    return normalise(joined(batch, 'image'), plan.mean, plan.std)

  def with_places(batch):
    """The batch with each row's place in it, which goes where the row goes."""
    # From NumPy, so that every device has all of them and none is told of its own.
    numbers = np.split(np.arange(sum(counts), dtype=np.int32), np.cumsum(counts)[:-1])
    return {task: {**batch[task], 'place': jnp.asarray(own)} for task, own in zip(tasks, numbers)}

  def mixed_rows(batch, key):
    """The batch with images mixed and both labels, and the first label's shares."""
    rows, shares = {task: dict(batch[task]) for task in tasks}, {}
    for task, how in mixing.items():
      images, labels = batch[task]['image'], batch[task]['label']
      by_pixel, shares[task] = mix.own_share(mix.task_key(key, task), how, images.shape[1:3])
      rows[task] = {
        'image': mix.mixed(images, by_pixel),
        'label': labels,
        'other': mix.partners(labels),
      }
    return with_places(rows) if needs_places else rows, shares

  def task_loss(params, task, embedding, rows, share):
    """A task's loss, and for each row whether the first class is the right one."""
    arrays, labels = group(params, HEADS), rows['label']
    others, smooth = rows.get('other', labels), dict(label_smoothing=plan.label_smoothing)
    kernel, bias = arrays[f'{task}/kernel'], arrays[f'{task}/bias']
    if layout.splits_classes(mesh, bias.size):
      sums = class_split.logit_sums(
        mesh,
        kernel,
        bias=bias,
        embedding=embedding,
        labels=labels,
        partner_labels=others,
        classes=plan.classes[task],
      )
      loss, best = losses.cross_entropy_of_sums(sums, share, **smooth), sums.predicted
    else:
      logits = heads.logits(arrays, task, embedding, classes=plan.classes[task])
      best = logits.argmax(-1)
      loss = (
        losses.cross_entropy(logits, labels, **smooth)
        if share is None
        else losses.mixed_cross_entropy(logits, labels, others, share, **smooth)
      )
    right = labels if share is None else jnp.where(share < 0.5, others, labels)
    return loss, (best == right).astype(jnp.float32)

  def loss_function(params, moments, stats, rows, shares, key):
    """Of a batch, or of a part of one with the `moments` of the whole."""
    params = layout.gathered(mesh, params)
    places = Places(joined(rows, 'place'), sum(counts)) if needs_places else None
    output, arrays = functional.apply_train(
      plan.model,
      {**group(params, BACKBONE), **stats},
      joined_images(rows),
      key=key,
      places=places,
      partition=partition,
      remat=plan.remat,
      stem_moments=moments,
    )
    embeddings = parallel.separate(
      mesh, output.embedding, [len(rows[task]['label']) for task in tasks]
    )
    task_losses, correct = {}, {}
    for task, embedding in zip(tasks, embeddings):
      task_losses[task], correct[task] = task_loss(
        params, task, embedding, rows[task], shares.get(task)
      )
    if plan.weights is None:
      loss = losses.uncertainty_weighted(task_losses, group(params, LOG_VARIANCE))
    else:
      loss = losses.fixed_weighted(task_losses, plan.weights)
    return loss, ({path: arrays[path] for path in stats}, task_losses, correct)

  def whole(params, stats, batch, key):
    rows, shares = mixed_rows(batch, key)
    return jax.value_and_grad(loss_function, has_aux=True)(params, None, stats, rows, shares, key)

  def in_parts(params, stats, batch, key):
    """The same, one part of the rows after the other."""
    rows, shares = mixed_rows(batch, key)
    parts = parallel.split_microbatches(mesh, rows, plan.grad_accum_steps)

    def backbone(params):
      return {**group(layout.gathered(mesh, params), BACKBONE), **stats}

    moments, to_parameters = jax.vjp(
      lambda params: functional.stem_moments(
        plan.model, backbone(params), parts, prepare=joined_images
      ),
      params,
    )

    def add_part(total, rows):
      (loss, (_, task_losses, correct)), gradients = jax.value_and_grad(
        loss_function, argnums=(0, 1), has_aux=True
      )(params, moments, stats, rows, shares, key)
      total = jax.tree.map(lambda t, g: t + g / plan.grad_accum_steps, total, gradients)
      total = (layout.constrained(total[0], state_shardings.params), total[1])
      return total, (loss, task_losses, correct)

    (gradients, of_moments), (loss, task_losses, correct) = jax.lax.scan(
      add_part, jax.tree.map(jnp.zeros_like, (params, moments)), parts
    )
    gradients = jax.tree.map(jnp.add, gradients, to_parameters(of_moments)[0])
    arrays = functional.updated_statistics(plan.model, backbone(params), moments, rows=sum(counts))
    aux = ({path: arrays[path] for path in stats}, jax.tree.map(jnp.mean, task_losses), correct)
    return (loss.mean(), aux), gradients

  def step(state: TrainState, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    value_and_gradients = whole if plan.grad_accum_steps == 1 else in_parts
    (loss, (stats, task_losses, correct)), gradients = value_and_gradients(
      state.params, state.stats, batch, key
    )
    gradients = layout.constrained(gradients, state_shardings.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new = dataclasses.replace(state, params=params, stats=stats, opt_state=opt_state)
    if plan.ema_decay:
      count = state.step.astype(jnp.float32)
      decay = jnp.minimum(plan.ema_decay, (1 + count) / (10 + count))
      new = dataclasses.replace(
        new,
        ema={
          path: decay * average + (1 - decay) * params[path] for path, average in state.ema.items()
        },
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
    for task in tasks:
      values[f'task/{task}/loss'] = task_losses[task]
      values[f'task/{task}/accuracy'] = correct[task]
      if plan.weights is None:
        values[f'task/{task}/log_variance'] = state.params[f'{LOG_VARIANCE}/{task}']
    metrics = {name: clu_metrics.Average.from_model_output(v) for name, v in values.items()}
    return dataclasses.replace(new, step=state.step + 1), metrics

  return jax.jit(
    step,
    donate_argnums=0,
    in_shardings=(state_shardings, parallel.batch_sharding(mesh)),
    out_shardings=(state_shardings, parallel.replicated(mesh)),
  )


def make_embed_step(model: PainFormerConfig, mesh: jax.sharding.Mesh, *, mean, std) -> Callable:
  """Compiles `embed(arrays, images) -> embeddings` in evaluation mode.

  Args of the result: the backbone's arrays by path, and uint8 [rows, size,
  size, 3] split over the devices; it gives float32 [rows, width].
  """
  partition = parallel.BatchShardMap(mesh) if mesh.size > 1 else None

  def embed(arrays, images):
    network = functional.from_variables(model, arrays, partition=partition)
    return network(normalise(images, mean, std)).embedding.astype(jnp.float32)

  return jax.jit(embed, out_shardings=parallel.replicated(mesh))
