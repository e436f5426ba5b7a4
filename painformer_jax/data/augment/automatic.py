"""TrivialAugment, RandAugment and AugMix over the table of operations.

Levels are torchvision's: of TrivialAugmentWide, RandAugment and AugMix in release
0.13 and later, translations being relative to the image's size throughout. Where a
modality leaves operations out, the rest are drawn more often.
"""

import dataclasses
import functools

import cv2
import numpy as np

from painformer_jax.data.augment import ops
from painformer_jax.data.augment.modalities import GENERAL, Modality

# Steps from the weakest to the strongest level.
BINS, AUGMIX_BINS = 31, 10


@dataclasses.dataclass(frozen=True)
class Levels:
  """Levels of an operation: from `weakest` to `strongest`, evenly; `signed` ones have
  either sign, `whole` ones are whole numbers; added to `base` as factors are to 1."""

  weakest: float
  strongest: float
  signed: bool = False
  whole: bool = False
  base: float = 0.0

  def value(self, share: float, negative: bool) -> float:
    """The level at a share of the way, 0 to 1."""
    level = self.weakest + share * (self.strongest - self.weakest)
    if self.whole:
      level = round(level)
    return self.base + (-level if self.signed and negative else level)


@dataclasses.dataclass(frozen=True, eq=False)
class Space:
  """Operations to draw from: name -> levels, None where it has none."""

  levels: dict[str, Levels | None]

  @functools.cache
  def names(self, modality: Modality) -> tuple[str, ...]:
    """The operations that suit the modality."""
    return tuple(name for name in self.levels if name in modality.ops)

  def apply(
    self, image: np.ndarray, modality: Modality, *, which: float, level: float, sign: float
  ) -> np.ndarray:
    """One operation: the one at `which` of the way through those that suit, at `level`
    of the way to the strongest, negative where `sign` is below a half; all in [0, 1]."""
    names = self.names(modality)
    name = names[int(which * len(names))]
    levels = self.levels[name]
    value = 0.0 if levels is None else levels.value(level, sign < 0.5)
    return ops.apply(name, image, value, fill=modality.fill)


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
  """One operation, at a level drawn evenly (Müller and Hutter 2021)."""

  modality: Modality = GENERAL

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    which, level, sign = rng.random(3).tolist()
    return TRIVIAL_WIDE.apply(
      image, self.modality, which=which, level=int(level * BINS) / (BINS - 1), sign=sign
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class RandAugment:
  """`n` operations in turn, all at one level (Cubuk et al. 2020).

  Attributes:
    n: operations of each image.
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
  """The image mixed with a mixture of its own changed forms (Hendrycks et al. 2020).

  Attributes:
    severity: levels are drawn from this many of the lowest of 10.
    width: changed forms.
    depth: operations in turn for each form; 0 draws 1 to 3.
    alpha: of the Dirichlet and Beta distributions that the shares come from.
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
      form = image
      for _ in range(self.depth or int(1 + 3 * rng.random())):
        which, level, sign = rng.random(3).tolist()
        level = int(level * self.severity) / (AUGMIX_BINS - 1)
        form = AUGMIX.apply(form, self.modality, which=which, level=level, sign=sign)
      total += share
      # Mixed one after the other in whole levels: at most a level or so off the exact
      # sum, at a fraction of the time.
      mixed = form if mixed is None else _mix(mixed, form, share / total if total else 0.0)
    return _mix(image, mixed, changed_share)


def _mix(image, other, share):
  """`share` of the other image, the rest of the first."""
  return cv2.addWeighted(other, share, image, 1 - share, 0)
