"""What a model says about images that are not normalised."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_models import HALF

import painformer_jax as pj

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
FLOATS = IMAGES.astype(np.float32)


@pytest.fixture
def model():
  return pj.create('painformer_nano', **HALF)


def said(call, *inputs):
  with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    for images in inputs:
      call(images)
  return [str(each.message) for each in caught]


@pytest.mark.parametrize(
  'images, words',
  [
    (FLOATS, 'lie between 0 and 255'),
    (FLOATS / 255, 'lie between 0 and 1,'),
    (FLOATS / 127.5 - 1, 'lie between -1 and 1,'),
    (jnp.asarray(FLOATS / 255, jnp.bfloat16), 'lie between 0 and 1,'),
    (FLOATS / 250 - 0.01, 'lie between 0 and 1,'),
    (np.where(np.arange(FLOATS.size).reshape(FLOATS.shape) == 97, np.nan, 0), 'hold NaN'),
  ],
)
def test_another_range_is_warned_about_once(model, images, words):
  [line] = said(model, images, images[:1], np.flip(images))
  assert words in line and 'model.preprocess' in line
  assert len(said(pj.create('painformer_nano', **HALF), images)) == 1


@pytest.mark.parametrize(
  'images',
  [
    pj.preprocess(IMAGES, image_size=32),
    # Black, white, grey, of little contrast, and noise for trials.
    *[pj.preprocess(np.full_like(IMAGES, level), image_size=32) for level in (0, 128, 255)],
    pj.preprocess(100 + IMAGES // 8, image_size=32),
    np.random.default_rng(0).normal(size=IMAGES.shape).astype(np.float32),
    np.zeros(IMAGES.shape, np.float32),
  ],
)
def test_normalised_images_are_not(model, images):
  assert said(model, images) == []


def test_nothing_is_asked_inside_jit(model):
  compiled = jax.jit(lambda images: model(images).embedding)
  assert said(compiled, FLOATS, FLOATS / 255) == []
  # What is concrete in there may be looked at; nothing fails.
  assert len(said(jax.jit(lambda _: model(jnp.asarray(FLOATS)).embedding), 0.0)) <= 1
  assert said(jax.vmap(lambda image: model(image[None]).embedding), jnp.asarray(FLOATS)) == []


@pytest.mark.parametrize(
  'images, words',
  [
    (IMAGES, 'are uint8.*pj.preprocess'),
    (IMAGES.astype(np.int32), 'are int32.*pj.preprocess'),
    (IMAGES > 9, 'are bool'),
    (np.moveaxis(FLOATS, -1, 1), 'colours come last'),
    (FLOATS[0], r'of one image: images\[None\]'),
    (FLOATS[:, :16], r'shape \(2, 16, 32, 3\).*resizes'),
    (list(FLOATS), 'are a list'),
    ('a.png', 'are a str'),
  ],
)
def test_other_types_and_shapes_are_refused(model, images, words):
  calls = [model]
  if isinstance(images, np.ndarray):
    calls.append(jax.jit(lambda x: model(x).embedding))
  for call in calls:
    with pytest.raises(ValueError, match=words) as caught:
      call(images)
    assert isinstance(caught.value, pj.InputError)
