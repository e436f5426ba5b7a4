import cv2
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps
from scipy import ndimage
from skimage import data
from tiny_tasks import encode

from painformer_jax.core.pictures import resize_to_square
from painformer_jax.data import augment
from painformer_jax.data.augment import ops
from painformer_jax.data.decode import decode_rgb, decode_strictly


@pytest.fixture(scope='module')
def photo():
  """[112, 112, 3] uint8 of a face."""
  return cv2.resize(data.astronaut()[:256, 100:356], (112, 112), interpolation=cv2.INTER_AREA)


def assert_close(image, other, *, at_most, on_average=None):
  difference = np.abs(image.astype(int) - np.asarray(other).astype(int))
  assert difference.max() <= at_most
  assert difference.mean() <= (at_most if on_average is None else on_average)


# Operations against Pillow, or against SciPy where Pillow approximates.


def test_flip(photo):
  np.testing.assert_array_equal(ops.flip(photo), ImageOps.mirror(Image.fromarray(photo)))


def test_crop_resized(photo):
  ours = ops.crop_resized(photo, top=5, left=9, height=80, width=100)
  pillow = (
    Image.fromarray(photo).crop((9, 5, 109, 85)).resize((112, 112), Image.Resampling.BILINEAR)
  )
  assert_close(ours, pillow, at_most=1)


@pytest.mark.parametrize('factor', [0.0, 0.4, 1.0, 1.7])
def test_brightness(photo, factor):
  assert_close(
    ops.brightness(photo, factor),
    ImageEnhance.Brightness(Image.fromarray(photo)).enhance(factor),
    at_most=1,
  )


@pytest.mark.parametrize('factor', [0.0, 0.4, 1.0, 1.7])
def test_contrast(photo, factor):
  assert_close(
    ops.contrast(photo, factor),
    ImageEnhance.Contrast(Image.fromarray(photo)).enhance(factor),
    at_most=2,
  )


def test_shift_scale(photo):
  ours = ops.shift_scale(photo, shift=0.1, scale_x=1.1, scale_y=0.95)
  # Pillow maps output to input and counts from pixel corners.
  half = 112 / 2
  pillow = Image.fromarray(photo).transform(
    (112, 112),
    Image.Transform.AFFINE,
    (1 / 1.1, 0, half - (half + 0.1 * 112) / 1.1, 0, 1 / 0.95, half - half / 0.95),
    Image.Resampling.BILINEAR,
  )
  inner = (slice(6, -6), slice(12, -6))
  # OpenCV rounds positions to 1/32 of a pixel.
  assert_close(ours[inner], np.asarray(pillow)[inner], at_most=8, on_average=0.6)


def test_shift_is_to_the_right_by_a_share_of_the_width(photo):
  ours = ops.shift_scale(photo, shift=0.25, scale_x=1.0, scale_y=1.0)
  np.testing.assert_array_equal(ours[:, 28:], photo[:, :-28])
  np.testing.assert_array_equal(ours[:, :28], np.repeat(photo[:, :1], 28, 1))


def test_blur(photo):
  expected = ndimage.gaussian_filter(photo.astype(float), (1.0, 1.0, 0), mode='mirror')
  assert_close(ops.blur(photo, 1.0), np.round(expected), at_most=2)


def test_noise():
  grey = np.full((112, 112, 3), 128, np.uint8)
  noisy = ops.noise(grey, 5.0, np.random.default_rng(0)).astype(float) - 128
  assert abs(noisy.mean()) < 0.2
  assert abs(noisy.std() - 5.0) < 0.2
  # Rounded to whole levels, so 72.9 % within 1.1 sigma and 96.4 % within 2.1.
  assert abs((np.abs(noisy) <= 5.0).mean() - 0.729) < 0.03
  assert abs((np.abs(noisy) <= 10.0).mean() - 0.964) < 0.02
  assert (noisy[..., :1] == noisy).all()
  neighbours = np.corrcoef(noisy[:, 1:, 0].ravel(), noisy[:, :-1, 0].ravel())
  assert abs(neighbours[0, 1]) < 0.05


def test_noise_does_not_wrap_around():
  image = np.zeros((64, 64, 3), np.uint8)
  image[:32] = 255
  noisy = ops.noise(image, 5.0, np.random.default_rng(0))
  assert noisy[:32].min() > 230 and noisy[32:].max() < 25


def test_mask(photo):
  masked = ops.mask(photo, top=10, left=20, height=30, width=40)
  box = (slice(10, 40), slice(20, 60))
  assert_close(masked[box], np.broadcast_to(photo.mean((0, 1)), (30, 40, 3)), at_most=1)
  outside = np.ones((112, 112), bool)
  outside[box] = False
  np.testing.assert_array_equal(masked[outside], photo[outside])
  np.testing.assert_array_equal(ops.mask(photo, top=0, left=0, height=0, width=112), photo)


# Policies.


def flipped_share(name, image):
  """How often a result is more like the mirrored image than like the image."""

  def likeness(a, b):
    return np.corrcoef(a.ravel(), b.ravel())[0, 1]

  count = 0
  for seed in range(100):
    result = augment.policy(name)(image, np.random.default_rng(seed))
    count += likeness(result, ops.flip(image)) > likeness(result, image)
  return count / 100


def test_faces_are_mirrored_half_the_time_and_signals_never(photo):
  assert 0.35 < flipped_share('face', photo) < 0.65
  ramp = np.tile(np.linspace(0, 255, 112), (112, 1)).astype(np.uint8)
  assert flipped_share('signal', np.dstack([ramp] * 3)) == 0


def test_spectrograms_keep_their_frequencies():
  """A tone stays in its row: what is not masked is never moved up or down."""
  tone = np.zeros((96, 96, 3), np.uint8)
  tone[40] = 255
  for seed in range(20):
    image = augment.policy('spectrogram')(tone, np.random.default_rng(seed))
    bright = np.flatnonzero(image.max((1, 2)) > 150)
    assert set(bright) <= {40}


# Decoding.


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
def test_decoders_agree_with_pillow(photo, suffix):
  encoded = encode(photo, suffix)
  decoded = decode_rgb(encoded)
  np.testing.assert_array_equal(decoded, decode_strictly(encoded))
  assert_close(
    decoded, photo, at_most=0 if suffix == '.png' else 60, on_average=0 if suffix == '.png' else 3
  )
  assert decoded.flags.c_contiguous


def test_grey_becomes_three_equal_channels(photo):
  for decode in (decode_rgb, decode_strictly):
    image = decode(encode(photo[..., 1]))
    np.testing.assert_array_equal(image, np.dstack([photo[..., 1]] * 3))


@pytest.mark.parametrize('suffix', ['.png', '.jpg'])
@pytest.mark.parametrize('keep', [0, 4, 0.3, 0.9])
def test_truncated_images_are_errors(photo, suffix, keep):
  encoded = encode(photo, suffix)
  keep = keep if keep in (0, 4) else int(keep * len(encoded))
  with pytest.raises(ValueError, match=f'not a readable image .{keep} bytes'):
    decode_strictly(encoded[:keep])


@pytest.mark.parametrize('shape', [(40, 60), (60, 40), (7, 5), (112, 30)])
def test_squash_does_not_crop(shape):
  """A left-right ramp stays one from the first column to the last."""
  ramp = np.tile(np.linspace(0, 255, shape[1]), (shape[0], 1))
  image = resize_to_square(np.dstack([ramp] * 3).astype(np.uint8), 32)
  assert image.shape == (32, 32, 3)
  row = image[16, :, 0].astype(int)
  assert row[0] < 16 and row[-1] > 238 and (np.diff(row) >= 0).all()
