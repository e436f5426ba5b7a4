"""Samples each pixel's mixup/CutMix weight: 1 keeps this image, 0 takes its partner.

Each image's partner is the one before it in the task's global batch, so that the result
does not depend on the number of devices. One weight, and one box, are sampled for all of a
task's images in a step.
"""

import dataclasses
import zlib
from collections.abc import Mapping

import jax
import jax.numpy as jnp

# Folded into the step's key. It is larger than any block's number, so that these keys
# differ from those of stochastic depth, which JAX derives from small numbers alike.
_KEY_OF_MIXUP = 0x6D6978


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixup:
  """How a task's images are mixed.

  Attributes:
    mixup: alpha of mixup; images are blended with lambda from Beta(alpha, alpha) (Zhang
      et al. 2018); 0 for never.
    cutmix: alpha of CutMix; a box of area 1 - lambda comes from the partner, lambda from
      Beta(alpha, alpha) (Yun et al. 2019); 0 for never.

  Where both are above 0, a fair coin chooses one of them in each step.
  """

  mixup: float = 0.0
  cutmix: float = 0.0

  def __bool__(self) -> bool:
    return self.mixup > 0 or self.cutmix > 0


def mix_batch(
  batch: Mapping[str, Mapping[str, jax.Array]], tasks: Mapping[str, Mixup], key: jax.Array
) -> tuple[dict[str, dict[str, jax.Array]], dict[str, jax.Array]]:
  """Mixes the images of the tasks that ask for it.

  Args:
    batch: task -> 'image' uint8 [batch, height, width, 3] and 'label' int32 [batch].
    tasks: task -> how its images are mixed; a task that is not there stays as it is.
    key: of the step.

  Returns:
    The batch, with the partners' labels as 'partner_label' where a task is mixed; and for
    each mixed task its lambda, float32 scalar: the share of the image's own label.
  """
  mixed, lambdas = {task: dict(examples) for task, examples in batch.items()}, {}
  for task, how in tasks.items():
    if how:
      examples = mixed[task]
      weights, lambdas[task] = mixup_lambda(task_key(key, task), how, examples['image'].shape[1:3])
      examples['image'] = mix_images(examples['image'], weights)
      examples['partner_label'] = partners(examples['label'])
  return mixed, lambdas


def task_key(key: jax.Array, task: str) -> jax.Array:
  """The key of a task's mixing, from that of the step; it does not depend on other tasks."""
  return jax.random.fold_in(jax.random.fold_in(key, _KEY_OF_MIXUP), zlib.crc32(task.encode()))


def partners(examples: jax.Array) -> jax.Array:
  """Each example's partner, [batch, ...]: the one before it, the last for the first."""
  return jnp.roll(examples, 1, axis=0)


def mixup_lambda(
  key: jax.Array, mixup: Mixup, size: tuple[int, int]
) -> tuple[jax.Array, jax.Array]:
  """Samples the weight of each pixel, and lambda.

  Args:
    key: from `task_key`.
    mixup: at least one of the two alphas above 0.
    size: height and width of the images.

  Returns:
    Weights, [height, width] float32 in [0, 1]; and lambda, their mean: the share of the
    image's own label.
  """
  key_coin, key_blend, key_box = jax.random.split(key, 3)
  if not mixup.cutmix:
    weights = _blend(key_blend, mixup.mixup, size)
  elif not mixup.mixup:
    weights = _box(key_box, mixup.cutmix, size)
  else:
    weights = jnp.where(
      jax.random.bernoulli(key_coin),
      _blend(key_blend, mixup.mixup, size),
      _box(key_box, mixup.cutmix, size),
    )
  return weights, weights.mean()


def mix_images(images: jax.Array, weights: jax.Array) -> jax.Array:
  """uint8 [batch, height, width, 3] mixed with their partners, rounded to whole levels.

  Args:
    images: of one task.
    weights: [height, width] of `mixup_lambda`.
  """
  weights = weights[..., None]
  levels = images * weights + partners(images) * (1 - weights)
  return jnp.round(levels).astype(jnp.uint8)


def _blend(key, alpha, size):
  return jnp.full(size, jax.random.beta(key, alpha, alpha))


def _box(key, alpha, size):
  """0 in a box of the image's proportions, 1 elsewhere; the box may cross the edge."""
  key_area, key_centre = jax.random.split(key)
  side = jnp.sqrt(1 - jax.random.beta(key_area, alpha, alpha))
  centre = jax.random.uniform(key_centre, (2,))
  inside = [jnp.abs(jnp.arange(n) + 0.5 - c * n) < side * n / 2 for n, c in zip(size, centre)]
  return jnp.where(inside[0][:, None] & inside[1], 0.0, 1.0)
