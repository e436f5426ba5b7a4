"""TrivialAugment, RandAugment and AugMix over the table of operations.

Levels are those of torchvision's TrivialAugmentWide, RandAugment and AugMix (0.13 and
later), but all translations are relative to the image's size. Where a modality leaves
operations out, the others are sampled more often.
"""

import dataclasses
import functools

import cv2
import numpy as np

from painformer_jax.data.augment import ops
from painformer_jax.data.augment.modalities import GENERAL, Modality

# Number of levels from the weakest to the strongest.
BINS, AUGMIX_BINS = 31, 10


@dataclasses.dataclass(frozen=True)
class Levels:
  """The levels of an operation, evenly spaced.

  Attributes:
    weakest, strongest: the ends.
    signed: whether a level may also be negative.
    whole: whether levels are whole numbers.
    base: added to the level: 1 for factors.
  """

  weakest: float
  strongest: float
  signed: bool = False
  whole: bool = False
  base: float = 0.0

  def value(self, share: float, negative: bool) -> float:
    """The level at `share` of the way from the weakest to the strongest, in [0, 1]."""
    level = self.weakest + share * (self.strongest - self.weakest)
    if self.whole:
      level = round(level)
    return self.base + (-level if self.signed and negative else level)


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
  """Operations to sample from: name -> levels, None for an operation without a level."""

  levels: dict[str, Levels | None]

  def apply(
    self, image: np.ndarray, modality: Modality, *, which: float, level: float, sign: float
  ) -> np.ndarray:
    """Applies one operation.

    Args:
      image: [height, width, 3] uint8 RGB.
      modality: whose operations are chosen from.
      which: chooses the operation, in [0, 1).
      level: of the way from the weakest to the strongest level, in [0, 1].
      sign: the level is negative where this is below 0.5.
    """
    names = _suitable(self, modality)
    name = names[int(which * len(names))]
    levels = self.levels[name]
    value = 0.0 if levels is None else levels.value(level, sign < 0.5)
    return ops.apply(name, image, value, fill=modality.fill)


@functools.cache
def _suitable(space: Space, modality: Modality) -> tuple[str, ...]:
  """The operations that suit the modality."""
  return tuple(name for name in space.levels if name in modality.ops)


def _space(*, shear, pixels, degrees, factor, bits, identity=True) -> Space:
  geometric = {
    'shear_x': shear,
    'shear_y': shear,
    'translate_x': pixels,
    'translate_y': pixels,
    'rotate': degrees,
  }
  factors = ('brightness', 'colour', 'contrast', 'sharpness')
  return Space(
    {
      **({'identity': None} if identity else {}),
      **{name: Levels(0, most, signed=True) for name, most in geometric.items()},
      **{name: Levels(0, factor, signed=True, base=1.0) for name in factors},
      'posterize': Levels(*bits, whole=True),
      'solarize': Levels(255, 0),
      'autocontrast': None,
      'equalize': None,
    }
  )


TRIVIAL_WIDE = _space(shear=0.99, pixels=32, degrees=135, factor=0.99, bits=(8, 2))
RAND = _space(shear=0.3, pixels=ops.REFERENCE_SIDE * 150 / 331, degrees=30, factor=0.9, bits=(8, 4))
AUGMIX = _space(
  shear=0.3, pixels=ops.REFERENCE_SIDE / 3, degrees=30, factor=0.9, bits=(4, 0), identity=False
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrivialAugmentWide:
  """One operation, at a uniformly sampled level (Müller and Hutter 2021)."""

  modality: Modality = GENERAL

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    which, level, sign = rng.random(3).tolist()
    return TRIVIAL_WIDE.apply(
      image, self.modality, which=which, level=int(level * BINS) / (BINS - 1), sign=sign
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugment:
  """`n` operations one after the other, all at one level (Cubuk et al. 2020).

  Attributes:
    n: number of operations.
    magnitude: level, 0 to 30.
  """

  n: int = 2
  magnitude: int = 9
  modality: Modality = GENERAL

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for which, sign in rng.random((self.n, 2)).tolist():
      image = RAND.apply(
        image, self.modality, which=which, level=self.magnitude / (BINS - 1), sign=sign
      )
    return image


@dataclasses.dataclass(frozen=True, kw_only=True)
class AugMix:
  """A weighted mean of the image and of augmented versions of it (Hendrycks et al. 2020).

  Attributes:
    severity: levels are sampled from this many of the lowest of 10.
    width: number of versions.
    depth: operations for each version, one after the other; 0 samples 1 to 3.
    alpha: of the Dirichlet and Beta distributions that the weights come from.
  """

  severity: int = 3
  width: int = 3
  depth: int = 0
  alpha: float = 1.0
  modality: Modality = GENERAL

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    shares = rng.dirichlet([self.alpha] * self.width).tolist()
    changed_share = rng.beta(self.alpha, self.alpha)
    mixed, total = None, 0.0
    for share in shares:
      version = image
      for _ in range(self.depth or int(1 + 3 * rng.random())):
        which, level, sign = rng.random(3).tolist()
        level = int(level * self.severity) / (AUGMIX_BINS - 1)
        version = AUGMIX.apply(version, self.modality, which=which, level=level, sign=sign)
      total += share
      # Added one after the other, each sum rounded: about a grey level off the exact sum,
      # in a fraction of the time.
      mixed = version if mixed is None else _blend(mixed, version, share / total if total else 0.0)
    return _blend(image, mixed, changed_share)


def _blend(image, other, share):
  """The weighted mean of two images; `share` is the weight of the other."""
  return cv2.addWeighted(other, share, image, 1 - share, 0)
