"""Mixup and CutMix, on the device: a task's rows mixed with one another.

Each row's partner is the row before it in the global batch, so that what is mixed with
what does not depend on the number of devices. One share, and one box, are drawn for
all of a task's rows in a step.
"""

import dataclasses
import zlib

import jax
import jax.numpy as jnp

# Folded into the step's key: above any block's number, so that the keys of stochastic
# depth (which JAX derives from small numbers alike) are others.
_OWN_KEY = 0x6D6978


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixing:
  """How a task's rows are mixed.

  Attributes:
    mixup: images are blended, shares from Beta(mixup, mixup) (Zhang et al. 2018); 0
      for never.
    cutmix: a box comes from the other image, the rest's share from Beta(cutmix,
      cutmix) (Yun et al. 2019); 0 for never.

  Where both are above 0, a fair coin in each step takes one of them.
  """

  mixup: float = 0.0
  cutmix: float = 0.0

  def __bool__(self) -> bool:
    return self.mixup > 0 or self.cutmix > 0


def task_key(key: jax.Array, task: str) -> jax.Array:
  """The key of a task's mixing, from that of the step; other tasks do not change it."""
  return jax.random.fold_in(jax.random.fold_in(key, _OWN_KEY), zlib.crc32(task.encode()))


def partners(rows: jax.Array) -> jax.Array:
  """What each row is mixed with: [rows, ...], the row before it, the last for the first."""
  return jnp.roll(rows, 1, axis=0)


def own_share(key: jax.Array, mixing: Mixing, size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
  """Draws which share of each pixel is the row's own.

  Args:
    key: from `task_key`.
    mixing: at least one of the two above 0.
    size: height and width of the images.

  Returns:
    [height, width] float32 in [0, 1], and its mean: the share of the row's own label.
  """
  coin, blend, cut = jax.random.split(key, 3)
  if not mixing.cutmix:
    shares = _blended(blend, mixing.mixup, size)
  elif not mixing.mixup:
    shares = _cut(cut, mixing.cutmix, size)
  else:
    shares = jnp.where(
      jax.random.bernoulli(coin),
      _blended(blend, mixing.mixup, size),
      _cut(cut, mixing.cutmix, size),
    )
  return shares, shares.mean()


def mixed(images: jax.Array, shares: jax.Array) -> jax.Array:
  """uint8 [rows, height, width, 3] mixed with their partners, in whole levels.

  Args:
    images: of one task.
    shares: [height, width] of `own_share`.
  """
  shares = shares[..., None]
  levels = images * shares + partners(images) * (1 - shares)
  return jnp.round(levels).astype(jnp.uint8)


def _blended(key, alpha, size):
  return jnp.full(size, jax.random.beta(key, alpha, alpha))


def _cut(key, alpha, size):
  """0 in a box of the image's proportions, 1 elsewhere; it may reach over the edge."""
  key_share, key_centre = jax.random.split(key)
  side = jnp.sqrt(1 - jax.random.beta(key_share, alpha, alpha))
  centre = jax.random.uniform(key_centre, (2,))
  inside = [jnp.abs(jnp.arange(n) + 0.5 - c * n) < side * n / 2 for n, c in zip(size, centre)]
  return jnp.where(inside[0][:, None] & inside[1], 0.0, 1.0)
