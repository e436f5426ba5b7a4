"""Augmentation policies by name, and the choice of a policy for a task."""

from collections.abc import Callable

import cv2
import numpy as np

from painformer_jax.core.config_fields import hint
from painformer_jax.core.errors import InputError
from painformer_jax.data.augment import ops
from painformer_jax.data.augment.modalities import MODALITIES
from painformer_jax.data.augment.recipe import OPERATIONS, Recipe, parse

Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def policy(spec: str, *, modality: str = 'image') -> Policy:
  """The policy of that name, or the recipe.

  A policy takes ([size, size, 3] uint8 RGB, np.random.Generator) and returns an image of
  the same shape and dtype. All its randomness comes from the generator; the numbers that
  it samples do not depend on the image.

  Args:
    spec: a name in POLICIES, or a recipe such as 'flip@0.5|noise(8)' (see `recipe`).
    modality: kind of image. `modalities.MODALITIES` says which operations suit which;
      images of any other modality are general images.

  Raises:
    InputError: there is no such policy or operation, or it is not for the modality.
  """
  if spec not in POLICIES:
    # A single word may be a misspelt policy.
    if spec.isidentifier() and spec not in OPERATIONS:
      names = sorted(POLICIES, key=lambda n: (isinstance(POLICIES[n], Recipe), n))
      raise InputError(
        f"no augmentation '{spec}'{hint(spec, names + sorted(OPERATIONS))}; several operations "
        'are joined by |'
      )
    return parse(spec, modality=modality)
  found = POLICIES[spec]
  if modality not in MODALITIES:
    return found
  if isinstance(found, Recipe):
    return parse(found.text, modality=modality)
  if spec in _FLIP and not MODALITIES[modality].flip:
    raise InputError(
      f"augmentation '{spec}' mirrors left and right, which is not for images of "
      f"modality '{modality}': take 'signal', 'spectrogram' or 'biosignal'"
    )
  return found


# Policies in code. Published results were trained with them: the same generator must give
# the same image in every release.


def _none(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  del rng
  return image


def _face(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  size = image.shape[0]
  area = rng.uniform(0.75, 1.0)
  aspect = rng.uniform(0.9, 1.1)
  height = min(size, round(size * (area / aspect) ** 0.5))
  width = min(size, round(size * (area * aspect) ** 0.5))
  image = ops.crop_resized(
    image,
    top=int(rng.integers(size - height + 1)),
    left=int(rng.integers(size - width + 1)),
    height=height,
    width=width,
  )
  if rng.random() < 0.5:
    image = ops.flip(image)
  image = _brightness(image, rng.uniform(0.8, 1.2))
  return _contrast(image, rng.uniform(0.8, 1.2))


def _signal(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  # Never flipped: time has a direction.
  image = ops.shift_scale(
    image,
    shift=rng.uniform(-0.05, 0.05),
    scale_x=rng.uniform(0.9, 1.1),
    scale_y=rng.uniform(0.9, 1.1),
  )
  chance = rng.random()
  if chance < 0.25:
    return ops.blur(image, rng.uniform(0.3, 1.0))
  if chance < 0.5:
    return ops.noise(image, rng.uniform(1.0, 6.0), rng)
  return image


def _spectrogram(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  # Frequencies stay where they are. One band of frequencies and one span of time are
  # masked, as in SpecAugment (Park et al. 2019), so that no single band, such as the noise
  # of a recorder, decides alone.
  size = image.shape[0]
  image = ops.shift_scale(
    image, shift=rng.uniform(-0.1, 0.1), scale_x=rng.uniform(0.9, 1.1), scale_y=1.0
  )
  image = _brightness(image, rng.uniform(0.8, 1.2))
  band, span = rng.integers(0, size // 4 + 1, 2)
  image = ops.mask(
    image, top=int(rng.integers(size - band + 1)), left=0, height=int(band), width=size
  )
  return ops.mask(
    image, top=0, left=int(rng.integers(size - span + 1)), height=size, width=int(span)
  )


def _brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """As `ops.brightness`, but rounds where Pillow truncates."""
  return cv2.convertScaleAbs(image, alpha=factor)


def _contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """As `ops.contrast`, but rounds where Pillow truncates."""
  mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
  table = mean + factor * (np.arange(256) - mean)
  return cv2.LUT(image, np.clip(np.round(table), 0, 255).astype(np.uint8))


# The closest published recipe of PainFormer's first author: AugMix, TrivialAugment, a
# centre crop of 200 pixels, noise, masks of 3 or of 20 blocks of 32 × 32, the probability
# of each sampled per image from a range. The order, the ranges and the strength of the
# noise are reconstructed: the paper's values are not public.
_PAPER = (
  'augmix@0-0.5|trivial_augment@0-0.5|centre_crop(200)@0-0.5|noise(8)@0-0.5|'
  'mask_blocks(3,32)@0-0.5|mask_blocks(20,32)@0-0.2'
)
_THERMAL = (
  'random_resized_crop(0.6)|flip@0.5|trivial_augment@0-0.5|noise(1,6)@0-0.5|mask_blocks(3,32)@0-0.5'
)
_BIOSIGNAL = 'shift_scale(0.05,0.1)|trivial_augment@0-0.5|noise(1,6)@0-0.5|mask_blocks(3,32)@0-0.5'

POLICIES: dict[str, Policy] = {
  'none': _none,
  'face': _face,
  'signal': _signal,
  'spectrogram': _spectrogram,
  'paper': parse(_PAPER),
  # These two follow the rules of their modality where the task's modality has none.
  'thermal': parse(_THERMAL, modality='thermal'),
  'biosignal': parse(_BIOSIGNAL, modality='eeg'),
}

# The policies in code that mirror left and right.
_FLIP = frozenset({'face'})
