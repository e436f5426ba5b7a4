"""Each operation of the augmentation table against Pillow."""

import functools

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from skimage import data

from painformer_jax.data.augment import ops

SIZES = [(64, 64), (57, 83), (90, 41)]


def random_image(seed):
  """Noise of a few or of all levels, smooth or not: [height, width, 3] uint8."""
  rng = np.random.default_rng(seed)
  shape = (*SIZES[seed % len(SIZES)], 3)
  low, high = sorted(rng.integers(0, 257, 2))
  image = rng.integers(low, max(low + 1, high), shape).astype(np.uint8)
  if rng.random() < 0.5:
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.5, 6))
  if rng.random() < 0.2:
    image[..., rng.integers(3)] = rng.integers(256)
  return image


@functools.cache
def photo():
  """[224, 224, 3] uint8 of a face."""
  return cv2.resize(data.astronaut()[:256, 100:356], (224, 224), interpolation=cv2.INTER_AREA)


# Sharp, smooth and one-coloured things, beside noise and a photo.
def image_of(seed):
  return photo() if seed == 0 else random_image(seed)


def affine(image, matrix):
  return image.transform(image.size, Image.Transform.AFFINE, matrix, Image.Resampling.NEAREST)


# As torchvision's policies call Pillow; translations in pixels of the image.
PILLOW = {
  'identity': lambda image, value: image,
  'shear_x': lambda image, value: affine(image, (1, value, 0, 0, 1, 0)),
  'shear_y': lambda image, value: affine(image, (1, 0, 0, value, 1, 0)),
  'translate_x': lambda image, value: affine(
    image, (1, 0, -int(value * image.width / 224), 0, 1, 0)
  ),
  'translate_y': lambda image, value: affine(
    image, (1, 0, 0, 0, 1, -int(value * image.height / 224))
  ),
  'rotate': lambda image, value: image.rotate(value, Image.Resampling.NEAREST),
  'brightness': lambda image, value: ImageEnhance.Brightness(image).enhance(value),
  'colour': lambda image, value: ImageEnhance.Color(image).enhance(value),
  'contrast': lambda image, value: ImageEnhance.Contrast(image).enhance(value),
  'sharpness': lambda image, value: ImageEnhance.Sharpness(image).enhance(value),
  'posterize': ImageOps.posterize,
  'solarize': ImageOps.solarize,
  'autocontrast': lambda image, value: ImageOps.autocontrast(image),
  'equalize': lambda image, value: ImageOps.equalize(image),
  'invert': lambda image, value: ImageOps.invert(image),
}

FACTOR = st.floats(0, 2)
VALUES = {
  'shear_x': st.floats(-1, 1),
  'shear_y': st.floats(-1, 1),
  'translate_x': st.floats(-100, 100),
  'translate_y': st.floats(-100, 100),
  'rotate': st.floats(-180, 180),
  'posterize': st.integers(1, 8),
  'solarize': st.floats(0, 256),
  **dict.fromkeys(('brightness', 'colour', 'contrast', 'sharpness'), FACTOR),
}

# Where OpenCV's arithmetic is not Pillow's: levels apart at most, and the largest share
# of values that may be apart at all. The others are exact.
APART = {'colour': (1, 0.02), 'sharpness': (1, 0.02)}


def compare(name, seed, value):
  image = image_of(seed)
  before = image.copy()
  found = ops.apply(name, image, value)
  expected = np.asarray(PILLOW[name](Image.fromarray(image), value))
  assert found.dtype == np.uint8 and found.shape == image.shape
  assert found.flags.c_contiguous
  np.testing.assert_array_equal(image, before, 'the input was changed')
  apart = np.abs(found.astype(int) - expected)
  return apart.max(), (apart > 0).mean()


def test_every_operation_is_compared():
  assert PILLOW.keys() == set(ops.NAMES)


@pytest.mark.parametrize('name', ops.NAMES)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 40), st.data())
def test_pillow_does_the_same(name, seed, data):
  value = data.draw(VALUES.get(name, st.just(0)), 'value')
  levels, share = compare(name, seed, value)
  most, widely = APART.get(name, (0, 0.0))
  if name in APART and (0 < value < 0.01 or 0 < abs(value - 1) < 0.01):
    # Next to nothing is left of a fraction, and rounding decides.
    most, widely = 2, 1.0
  assert levels <= most and share <= widely


@pytest.mark.parametrize('name', ops.NAMES)
@pytest.mark.parametrize('value', [0.0, 0.4, 1.0, 1.7, -0.99, 45.0, 90.0, -135.0])
def test_pillow_does_the_same_to_a_photo(name, value):
  """At the ends of the ranges, and where Pillow has ways of its own: 90 degrees."""
  if name in ('brightness', 'colour', 'contrast', 'sharpness', 'solarize'):
    value = abs(value) % 2
  if name.startswith('shear'):
    value = np.clip(value, -2, 2)
  if name == 'posterize':
    value = 1 + int(abs(value)) % 8
  levels, share = compare(name, 0, value)
  most, _ = APART.get(name, (0, 0))
  assert levels <= most and share < 0.003


def test_flat_and_tiny_images():
  """Nothing to stretch or to spread; fewer pixels than a filter has."""
  for image in (
    np.full((9, 9, 3), 77, np.uint8),
    np.zeros((1, 1, 3), np.uint8),
    np.arange(12, dtype=np.uint8).reshape(2, 2, 3),
    np.arange(27, dtype=np.uint8).reshape(3, 3, 3),
  ):
    for name in ('autocontrast', 'equalize', 'contrast', 'rotate', 'shear_x', 'invert'):
      expected = PILLOW[name](Image.fromarray(image), 1.0)
      np.testing.assert_array_equal(ops.apply(name, image, 1.0), expected, name)
    assert ops.apply('sharpness', image, 1.5).shape == image.shape
    for name in ('translate_x', 'translate_y'):
      assert ops.apply(name, image, 1000).shape == image.shape


# What comes in from outside.


@pytest.mark.parametrize(
  'name,value',
  [('shear_x', 0.5), ('shear_y', -0.5), ('translate_x', 40), ('translate_y', -40), ('rotate', 30)],
)
def test_fill(name, value):
  """A level, or the edge repeated; the inside is the same."""
  image = 1 + photo() // 2  # No 0, and no 200.
  black, grey, edge = (ops.apply(name, image, value, fill=fill) for fill in (0, 200, None))
  outside = (black == 0).all(-1)
  assert 0.05 < outside.mean() < 0.5
  assert (grey[outside] == 200).all() and (edge[outside] > 0).all()
  np.testing.assert_array_equal(black[~outside], grey[~outside])
  np.testing.assert_array_equal(black[~outside], edge[~outside])


def test_edges_are_repeated_by_row_and_column():
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  moved = ops.translate_x(image, 3, fill=None)
  np.testing.assert_array_equal(moved[:, :4], np.repeat(image[:, :1], 4, 1))
  np.testing.assert_array_equal(moved[:, 3:], image[:, :5])
  moved = ops.translate_y(image, -2, fill=None)
  np.testing.assert_array_equal(moved[5:], np.repeat(image[7:], 3, 0))
  np.testing.assert_array_equal(moved[:6], image[2:])


def test_directions():
  """Right, down, counter-clockwise."""
  spot = np.zeros((21, 21, 3), np.uint8)
  spot[10, 15] = 255

  def place(image):
    return tuple(int(i[0]) for i in np.nonzero(image[..., 0]))

  assert place(ops.translate_x(spot, 4)) == (10, 19)
  assert place(ops.translate_y(spot, 4)) == (14, 15)
  assert place(ops.rotate(spot, 90)) == (5, 10)
  assert place(ops.flip(spot)) == (10, 5)
