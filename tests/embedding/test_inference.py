"""Preprocessing against Pillow, and embedding in memory."""

import functools
import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from test_models import drawn, run

import painformer_jax as pj
from painformer_jax.core.pictures import resize_to_square, to_rgb
from painformer_jax.embedding import inference
from painformer_jax.models import functional
from painformer_jax.models.config import IMAGENET, PRESETS
from painformer_jax.models.registry import make_config

CONFIG = make_config('painformer_nano')
MEAN = np.array([0.6068, 0.4517, 0.3800])
STD = np.array([0.2492, 0.2173, 0.2082])


@pytest.fixture(scope='module')
def model():
  return functional.from_variables(CONFIG, drawn(CONFIG))


def noise(batch, height=40, width=48, seed=0):
  shape = (batch, height, width, 3)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def pillow(image, size):
  """What torchvision's Resize does to an image of Pillow 12: the width first."""
  wide = Image.fromarray(image).resize((size, image.shape[0]), Image.Resampling.BILINEAR)
  return np.asarray(wide.resize((size, size), Image.Resampling.BILINEAR))


def levels(normalised):
  """Back from normalised values to 0..255."""
  return (np.asarray(normalised, np.float64) * STD + MEAN) * 255


# --- preprocess --------------------------------------------------------------


def test_values_are_normalised_by_vggface2_statistics():
  images = noise(2, 224, 224)
  actual = pj.preprocess(images)
  assert actual.shape == (2, 224, 224, 3) and actual.dtype == jnp.float32
  np.testing.assert_allclose(actual, (images / 255 - MEAN) / STD, atol=1e-5)
  for preset in PRESETS.values():
    other = preset.evidence.startswith('the published code of SpectFormer')
    expected = IMAGENET if other else (tuple(MEAN), tuple(STD))
    assert (preset.config.mean, preset.config.std) == expected


def test_own_size_and_statistics():
  images = noise(1, 32, 32)
  actual = pj.preprocess(images, image_size=32, mean=(0, 0, 0), std=(1, 1, 1))
  np.testing.assert_allclose(actual, images / 255, atol=1e-6)


@pytest.mark.parametrize(
  'height, width, size',
  [(512, 512, 224), (40, 48, 32), (31, 100, 32), (20, 24, 32), (224, 100, 224), (600, 400, 224)],
)
def test_all_ways_resize_alike(model, height, width, size):
  """Bit for bit: by Pillow and in a jitted function, which computes by itself."""
  images = noise(2, height, width)
  wanted = np.stack([pillow(image, size) for image in images])
  np.testing.assert_array_equal([resize_to_square(image, size) for image in images], wanted)
  plain = pj.preprocess(images, image_size=size)
  np.testing.assert_allclose(levels(plain), wanted, atol=1e-3)
  for jitted in (
    jax.jit(functools.partial(pj.preprocess, image_size=size))(images),
    pj.preprocess(jnp.asarray(images), image_size=size),
  ):
    np.testing.assert_allclose(levels(jitted), wanted, atol=1e-3)


def test_a_portrait_is_resized_as_on_pillow_12():
  # Pillow 13 would begin with the height; the digest is of what 12.0.0 gives in one call.
  rows, columns = np.mgrid[:600, :400]
  image = np.stack([rows * 7 % 256, columns * 5 % 256, rows * columns % 256], -1).astype(np.uint8)
  resized = resize_to_square(image, 224)
  assert hashlib.sha256(resized.tobytes()).hexdigest() == (
    '09f226847ca205baee62b067706040d8b17b89de749b422a6f5d7c2a5030b282'
  )


def test_images_are_squashed_not_cropped():
  image = np.zeros((1, 32, 64, 3), np.uint8)
  image[:, :, 32:] = 255
  out = levels(pj.preprocess(image, image_size=32))[0]
  assert out[:, :14].max() < 1e-3 and out[:, 18:].min() > 254.9


@pytest.mark.parametrize(
  'images',
  [
    np.zeros((2, 8, 8, 3), np.float32),
    np.zeros((2, 3, 8, 8), np.uint8),
    np.zeros((8, 8, 3), np.uint8),
    [[1, 2]],
  ],
  ids=['floats', 'nchw', 'single', 'list'],
)
def test_wrong_input_is_named(model, images):
  for call in pj.preprocess, lambda x: pj.embed(model, x):
    with pytest.raises(ValueError, match=r'not a uint8 array \[(batch, )?height, width, 3\]'):
      call(images)


class Tensor:
  """What a tensor of PyTorch offers, as far as it matters here."""

  def __init__(self, values, steps=()):
    self._values, self._steps = values, steps

  def detach(self):
    return Tensor(self._values, (*self._steps, 'detach'))

  def cpu(self):
    return Tensor(self._values, (*self._steps, 'cpu'))

  def __array__(self, dtype=None, copy=None):
    assert self._steps == ('detach', 'cpu')
    return self._values


class Capsule:
  """An array that only DLPack hands over, as bfloat16 tensors."""

  def __init__(self, values):
    self._values = jnp.asarray(values)

  def __dlpack__(self, **options):
    return self._values.__dlpack__(**options)

  def __dlpack_device__(self):
    return self._values.__dlpack_device__()


def test_tensors_of_other_libraries_just_work(model):
  images = noise(2)
  for kind in Tensor, Capsule:
    np.testing.assert_array_equal(pj.embed(model, kind(images)), pj.embed(model, images))
    np.testing.assert_array_equal(pj.preprocess(kind(images)), pj.preprocess(images))
    x = np.asarray(model.preprocess(images))
    np.testing.assert_allclose(model(kind(x)).embedding, pj.embed(model, images), atol=1e-5)


def test_pillow_images_just_work(model):
  """Of any mode and size; each as its file would be embedded."""
  photographs = [Image.fromarray(image) for image in noise(2)]
  np.testing.assert_array_equal(pj.embed(model, photographs), pj.embed(model, noise(2)))
  np.testing.assert_array_equal(pj.embed(model, photographs[0]), pj.embed(model, noise(2)[:1]))
  mixed = [photographs[0].convert('L'), photographs[1].resize((20, 60)), photographs[1]]
  wanted = [resize_to_square(to_rgb(image), 32) for image in mixed]
  np.testing.assert_array_equal(pj.embed(model, mixed), pj.embed(model, np.stack(wanted)))
  np.testing.assert_array_equal(
    pj.preprocess(tuple(mixed), image_size=32), pj.preprocess(np.stack(wanted), image_size=32)
  )
  turned = photographs[0].copy()
  turned.getexif()[0x0112] = 6
  quarter = np.rot90(noise(2)[0], -1)[None]
  np.testing.assert_array_equal(pj.embed(model, turned), pj.embed(model, quarter))
  np.testing.assert_array_equal(model.preprocess(mixed), model.preprocess(np.stack(wanted)))
  with pytest.raises(ValueError, match='are a Pillow image'):
    model(photographs[0])


@pytest.mark.parametrize(
  'images, words',
  [
    (noise(2) / 255, r'\* 255'),
    (noise(2) / 127.5 - 1, r'127.5'),
    (noise(2).astype(np.float32), r'images.round\(\).astype'),
    (jnp.asarray(noise(2), jnp.float32), r'images.round\(\).astype'),
    (np.asarray(pj.preprocess(noise(2))), 'into the model itself'),
    (noise(2).astype(np.int64), 'astype'),
    (np.moveaxis(noise(2), -1, 1), 'colours come last'),
    (noise(2)[0], r'images\[None\]'),
    (noise(2)[..., 0], 'grey'),
    (np.concatenate([noise(2), noise(2)], -1)[..., :4], 'transparency'),
    ('clip.mp4', 'painformer embed'),
    (None, 'NoneType'),
  ],
)
def test_what_is_no_levels_is_told_what_would_do(model, images, words):
  for call in pj.preprocess, model.preprocess, lambda x: pj.embed(model, x):
    with pytest.raises(pj.InputError, match=words) as caught:
      call(images)
    assert isinstance(caught.value, ValueError) and '\n' not in str(caught.value)


def test_a_model_knows_its_own_size(model):
  images = noise(2)
  x = model.preprocess(images)
  assert x.shape == (2, 32, 32, 3)
  np.testing.assert_array_equal(x, pj.preprocess(images, image_size=32))
  np.testing.assert_allclose(model(x).embedding, pj.embed(model, images), atol=1e-5)


@pytest.mark.parametrize('other', ['painformer_nano', None, noise(1)])
def test_what_is_no_model_is_named(model, other):
  with pytest.raises(pj.InputError, match='embed takes a model first, not'):
    pj.embed(other, model if isinstance(other, np.ndarray) else noise(1))
  if not isinstance(other, np.ndarray):
    with pytest.raises(pj.InputError, match='path of a file|painformer_nano'):
      pj.load(other)


def test_lists_of_images_are_taken(model):
  """Arrays and Pillow images, of one size or of several."""
  images = noise(3)
  mixed = [images[0], Image.fromarray(images[1]), images[2]]
  np.testing.assert_array_equal(pj.preprocess(mixed), pj.preprocess(images))
  other = np.asarray(Image.fromarray(images[0]).resize((20, 40)))
  x = model.preprocess([other, Image.fromarray(images[1])])
  np.testing.assert_array_equal(x[:1], model.preprocess(other[None]))
  np.testing.assert_array_equal(x[1:], model.preprocess(images[1:2]))


@pytest.mark.parametrize(
  'images, words',
  [
    ([], 'empty list'),
    (['a.png'], r'images\[0\] is a str, not .*painformer embed'),
    ([noise(1)[0], noise(1)], r'images\[1\] is uint8 \[1, '),
    ([noise(1)[0], noise(1)[0] / 255], r'images\[1\] is float64 .*0 to 1'),
  ],
)
def test_what_cannot_be_in_a_list_is_named(model, images, words):
  with pytest.raises(ValueError, match=words):
    pj.embed(model, images)


@pytest.mark.parametrize(
  'images, words',
  [
    (np.full((1, 8, 8, 3), 300, np.uint16), '>> 8'),
    (np.full((1, 8, 8, 3), 200, np.uint16), r'astype\(numpy.uint8'),
    (np.full((1, 8, 8, 3), -5, np.int64), 'values -5 to -5 are no levels'),
    (np.full((1, 8, 8, 3), 'x', object), r'are object \[1, 8, 8, 3\], not a uint8 array .*3\]$'),
  ],
)
def test_no_advice_loses_levels(images, words):
  with pytest.raises(ValueError, match=words):
    pj.preprocess(images)


@pytest.mark.parametrize('count', ['2', 2.0, True, None])
def test_counts_are_whole_numbers(model, count):
  with pytest.raises(ValueError, match='batch_size is .* no whole number'):
    pj.embed(model, noise(1), batch_size=count)
  with pytest.raises(ValueError, match='image_size is .* no whole number'):
    pj.preprocess(noise(1), image_size=count)


@pytest.mark.parametrize('shape', [(1, 0, 8, 3), (1, 8, 0, 3), (0, 0, 8, 3)])
def test_images_without_pixels(model, shape):
  for call in pj.preprocess, lambda x: pj.embed(model, x):
    with pytest.raises(ValueError, match='without pixels'):
      call(np.zeros(shape, np.uint8))


def test_a_size_below_one():
  with pytest.raises(ValueError, match='image_size is 0, below 1'):
    pj.preprocess(noise(1), image_size=0)


# --- embed -------------------------------------------------------------------


def test_embedding_is_the_model_s(model):
  images = noise(4)
  x = pj.preprocess(images, image_size=32)
  wanted = run(CONFIG, functional.variables(model), x).embedding
  actual = pj.embed(model, images)
  assert actual.shape == (4, 32) and actual.dtype == np.float32
  assert isinstance(actual, np.ndarray)
  np.testing.assert_allclose(actual, wanted, atol=1e-5)


@pytest.mark.parametrize('count', [0, 1, 3, 4, 5, 9])
def test_any_number_of_images_in_batches_of_four(model, count):
  # The same program serves all counts: each row does not mind its neighbours.
  embedder = inference.Embedder(model, batch_size=4)
  images = noise(9, seed=1)
  all_rows = np.concatenate([embedder(images[i : i + 4]) for i in (0, 4, 8)])
  actual = pj.embed(model, images[:count], batch_size=4)
  assert actual.shape == (count, 32) and actual.dtype == np.float32
  np.testing.assert_allclose(actual, all_rows[:count], atol=1e-5)


def test_one_program_serves_every_count_and_every_model_of_a_config(model):
  other = functional.from_variables(CONFIG, drawn(CONFIG, seed=1))
  images = noise(9)
  pj.embed(model, images[:4], batch_size=4)
  before = inference._embed._cache_size()
  first = pj.embed(model, images, batch_size=4)
  for count in 3, 4, 5, 7:
    pj.embed(model, images[:count], batch_size=4)
  pj.embed(model, images[:3], batch_size=32)
  second = pj.embed(other, images, batch_size=4)
  assert inference._embed._cache_size() == before
  assert np.abs(first - second).max() > 1e-3


def test_a_head_changes_nothing(model):
  config = make_config('painformer_nano', num_classes=5)
  arrays = drawn(config) | functional.variables(model)
  headed = functional.from_variables(config, arrays)
  np.testing.assert_allclose(pj.embed(headed, noise(4)), pj.embed(model, noise(4)), atol=1e-5)


def test_bfloat16_gives_float32_rows():
  config = make_config('painformer_nano', dtype='bfloat16')
  rows = jax.eval_shape(
    functools.partial(inference._embed, config=config),
    functional.abstract_variables(config),
    noise(4),
  )
  assert rows.shape == (4, 32) and rows.dtype == jnp.float32


@pytest.mark.parametrize('size', [0, -1])
def test_batch_size_below_one(model, size):
  with pytest.raises(ValueError, match='batch_size'):
    pj.embed(model, noise(1), batch_size=size)
