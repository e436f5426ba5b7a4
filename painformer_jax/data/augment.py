"""Augmentation policies: a table from a name to a function.

A policy takes ([size, size, 3] uint8 RGB, np.random.Generator) and returns an
image of the same shape and type; all its chance comes from the generator, which
the mixture seeds anew for each element. A new policy is a new row of POLICIES.
"""

from collections.abc import Callable

import cv2
import numpy as np
from scipy.special import ndtri

from painformer_jax.errors import InputError

Policy = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def policy(name: str) -> Policy:
  """The policy of that name.

  Raises:
    InputError: there is none; lists those there are.
  """
  if name not in POLICIES:
    raise InputError(
        f"no augmentation '{name}', only {', '.join(sorted(POLICIES))}")
  return POLICIES[name]


# Operations: images are [height, width, 3] uint8 RGB, in and out.


def flip(image: np.ndarray) -> np.ndarray:
  """Mirrors left and right."""
  return cv2.flip(image, 1)


def crop_resized(
    image: np.ndarray, *, top: int, left: int, height: int, width: int,
) -> np.ndarray:
  """Cuts a box out (pixels) and enlarges it to the image's size, bilinearly."""
  box = image[top:top + height, left:left + width]
  return cv2.resize(
      box, image.shape[1::-1], interpolation=cv2.INTER_LINEAR)


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
  """Multiplies by `factor`: 0 is black, 1 changes nothing."""
  return cv2.convertScaleAbs(image, alpha=factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
  """Blends with the mean grey: 0 is flat grey, 1 changes nothing."""
  mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
  table = mean + factor * (np.arange(256) - mean)
  return cv2.LUT(image, np.clip(np.round(table), 0, 255).astype(np.uint8))


def shift_scale(
    image: np.ndarray, *, shift: float, scale_x: float, scale_y: float,
) -> np.ndarray:
  """Moves right by `shift` (a share of the width) and scales about the centre.

  Edge pixels are repeated where nothing else is there.
  """
  height, width = image.shape[:2]
  matrix = np.array([
      [scale_x, 0, (width - 1) / 2 * (1 - scale_x) + shift * width],
      [0, scale_y, (height - 1) / 2 * (1 - scale_y)]])
  return cv2.warpAffine(
      image, matrix, (width, height), flags=cv2.INTER_LINEAR,
      borderMode=cv2.BORDER_REPLICATE)


def blur(image: np.ndarray, sigma: float) -> np.ndarray:
  """Gaussian blur of `sigma` pixels."""
  return cv2.GaussianBlur(image, (0, 0), sigma)


def noise(
    image: np.ndarray, sigma: float, rng: np.random.Generator) -> np.ndarray:
  """Adds Gaussian noise of `sigma` grey levels, the same to all channels."""
  # 256 quantiles of the normal distribution looked up by random bytes: several
  # times quicker than normal variates, and the tails end at 2.9 sigma.
  quantiles = sigma * ndtri((np.arange(256) + 0.5) / 256)
  added = np.round(quantiles).astype(np.int16)[
      rng.integers(0, 256, image.shape[:2], np.uint8)]
  return cv2.add(image, cv2.merge([added] * 3), dtype=cv2.CV_8U)


def mask(image: np.ndarray, *, top: int, left: int, height: int, width: int) -> np.ndarray:
  """Fills a box (pixels) with the image's mean colour."""
  image = image.copy()
  image[top:top + height, left:left + width] = np.round(cv2.mean(image)[:3])
  return image


# Policies.


def _face(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  size = image.shape[0]
  area = rng.uniform(0.75, 1.0)
  aspect = rng.uniform(0.9, 1.1)
  height = min(size, round(size * (area / aspect) ** 0.5))
  width = min(size, round(size * (area * aspect) ** 0.5))
  image = crop_resized(
      image, top=int(rng.integers(size - height + 1)),
      left=int(rng.integers(size - width + 1)), height=height, width=width)
  if rng.random() < 0.5:
    image = flip(image)
  image = brightness(image, rng.uniform(0.8, 1.2))
  return contrast(image, rng.uniform(0.8, 1.2))


def _signal(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  # Never flipped: time has a direction.
  image = shift_scale(
      image, shift=rng.uniform(-0.05, 0.05),
      scale_x=rng.uniform(0.9, 1.1), scale_y=rng.uniform(0.9, 1.1))
  chance = rng.random()
  if chance < 0.25:
    return blur(image, rng.uniform(0.3, 1.0))
  if chance < 0.5:
    return noise(image, rng.uniform(1.0, 6.0), rng)
  return image


def _spectrogram(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  # Frequencies stay where they are. One band of them and one span of time are
  # hidden, as in SpecAugment (Park et al. 2019), so that no single band, such
  # as a recorder's noise floor, decides alone.
  size = image.shape[0]
  image = shift_scale(
      image, shift=rng.uniform(-0.1, 0.1), scale_x=rng.uniform(0.9, 1.1), scale_y=1.0)
  image = brightness(image, rng.uniform(0.8, 1.2))
  band, span = rng.integers(0, size // 4 + 1, 2)
  image = mask(image, top=int(rng.integers(size - band + 1)), left=0,
               height=int(band), width=size)
  return mask(image, top=0, left=int(rng.integers(size - span + 1)),
              height=size, width=int(span))


def _none(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  del rng
  return image


POLICIES: dict[str, Policy] = {
    'none': _none,
    'face': _face,
    'signal': _signal,
    'spectrogram': _spectrogram,
}
