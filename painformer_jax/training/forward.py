"""The loss of a multi-task batch: one backbone for all tasks, a head for each."""

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from flax import struct

from painformer_jax.models import functional, heads
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.layers import BatchIndices
from painformer_jax.parallel import class_split, layout
from painformer_jax.parallel.mesh import BatchShardMap, interleave, separate
from painformer_jax.training import losses
from painformer_jax.training.mixup import Mixup
from painformer_jax.training.state import BACKBONE, HEADS, LOG_VARIANCE, group


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepPlan:
  """What the compiled step is made from.

  Attributes:
    model: the backbone.
    batch_sizes: task -> its examples of every global batch.
    weights: task -> factor on its loss; None for learned weights.
    label_smoothing: of every task's cross-entropy.
    mixup: task -> how its images are mixed; a task that is not there is not mixed.
    classes: task -> number of classes.
    grad_accum_steps, remat, ema_decay: see `training.config.TrainConfig`.
    skips_non_finite: whether a step whose loss or gradient is not finite leaves the
      state as it was.
  """

  model: PainFormerConfig
  batch_sizes: Mapping[str, int]
  weights: Mapping[str, float] | None
  label_smoothing: float
  classes: Mapping[str, int]
  mixup: Mapping[str, Mixup] = dataclasses.field(default_factory=dict)
  grad_accum_steps: int = 1
  remat: tuple[str, ...] = ()
  ema_decay: float = 0.0
  skips_non_finite: bool = False


@struct.dataclass
class Result:
  """What a batch, or a microbatch, gives beside its loss.

  Attributes:
    stats: the running statistics after it, by path.
    task_losses: task -> mean cross-entropy, float32 scalar.
    correct: task -> 1 where the class with the largest logit is right, else 0; float32
      [batch].
  """

  stats: dict[str, jax.Array]
  task_losses: dict[str, jax.Array]
  correct: dict[str, jax.Array]


def normalise(images: jax.Array, mean, std) -> jax.Array:
  """uint8 [..., 3] -> float32, scaled to [0, 1] and standardised."""
  return (images.astype(jnp.float32) / 255 - jnp.asarray(mean)) / jnp.asarray(std)


class Forward:
  """Forward pass and loss of all tasks, on one mesh.

  Args:
    plan: what the step is made from.
    mesh: of the devices.
  """

  def __init__(self, plan: StepPlan, mesh: jax.sharding.Mesh):
    self.plan, self.mesh = plan, mesh
    self.batch_size = sum(plan.batch_sizes.values())
    self._shard_map = BatchShardMap(mesh) if mesh.size > 1 else None

  def joined(self, batch, name: str) -> jax.Array:
    """A field of all tasks' examples, [batch, ...]; no example changes its device."""
    return interleave(self.mesh, [batch[task][name] for task in self.plan.batch_sizes])

  def images(self, batch) -> jax.Array:
    """Normalised images of all tasks, float32 [batch, size, size, 3]."""
    return normalise(self.joined(batch, 'image'), self.plan.model.mean, self.plan.model.std)

  def backbone(self, params, stats) -> dict[str, jax.Array]:
    """The backbone's arrays by path, whole on every device."""
    return {**group(layout.gathered(self.mesh, params), BACKBONE), **stats}

  def loss(self, params, stem_statistics, stats, batch, lambdas, key) -> tuple[jax.Array, Result]:
    """The loss of a batch in training mode, and what else it gives.

    Args:
      params: by path, as in `TrainState`.
      stem_statistics: of the whole batch where `batch` is a microbatch, else None.
      stats: running statistics, by path.
      batch: task -> 'image', 'label', and 'partner_label' where the task is mixed;
        'index' where an example's position in the whole batch is not its position here.
      lambdas: of mixup, for each mixed task.
      key: for stochastic depth.
    """
    plan = self.plan
    params = layout.gathered(self.mesh, params)
    indices = None
    if all('index' in examples for examples in batch.values()):
      indices = BatchIndices(self.joined(batch, 'index'), self.batch_size)
    output, arrays = functional.apply_train(
      plan.model,
      {**group(params, BACKBONE), **stats},
      self.images(batch),
      key=key,
      batch_indices=indices,
      partition=self._shard_map,
      remat=plan.remat,
      stem_statistics=stem_statistics,
    )
    embeddings = separate(
      self.mesh, output.embedding, [len(batch[task]['label']) for task in plan.batch_sizes]
    )
    task_losses, correct = {}, {}
    for task, embedding in zip(plan.batch_sizes, embeddings):
      task_losses[task], correct[task] = self._task_loss(
        task, params, embedding, batch[task], lambdas.get(task)
      )
    if plan.weights is None:
      loss = losses.uncertainty_weighted(task_losses, group(params, LOG_VARIANCE))
    else:
      loss = losses.fixed_weighted(task_losses, plan.weights)
    stats = {path: arrays[path] for path in stats}
    return loss, Result(stats=stats, task_losses=task_losses, correct=correct)

  def _task_loss(self, task: str, params, embedding, examples, mixup_lambda):
    """A task's loss, and for each example whether the predicted class is right."""
    plan, arrays, labels = self.plan, group(params, HEADS), examples['label']
    partner_labels = examples.get('partner_label', labels)
    options = dict(mixup_lambda=mixup_lambda, label_smoothing=plan.label_smoothing)
    kernel, bias = arrays[f'{task}/kernel'], arrays[f'{task}/bias']
    if layout.splits_classes(self.mesh, bias.size):
      sums = class_split.logit_sums(
        self.mesh,
        kernel,
        bias=bias,
        embedding=embedding,
        labels=labels,
        partner_labels=partner_labels,
        classes=plan.classes[task],
      )
      loss, predicted = losses.cross_entropy_of_sums(sums, **options), sums.predicted
    else:
      logits = heads.logits(arrays, task, embedding, classes=plan.classes[task])
      loss = losses.cross_entropy(logits, labels, partner_labels=partner_labels, **options)
      predicted = logits.argmax(-1)
    right = (
      labels if mixup_lambda is None else jnp.where(mixup_lambda < 0.5, partner_labels, labels)
    )
    return loss, (predicted == right).astype(jnp.float32)
