"""Frames coloured by a palette are told from those in the colours of light."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from painformer_jax.modalities import maps

PALETTES = sorted(name[9:] for name in vars(cv2) if name.startswith('COLORMAP_'))
# Contrast of a map: all levels, few in the middle, some.
SPANS = {'all': (1.0, 0), 'few': (0.15, 100), 'some': (0.4, 60)}
LIGHTS = {
  'day': (1, 1, 1), 'cold': (0.3, 0.5, 1), 'red': (1, 0.2, 0.1), 'night': (0.2, 0.9, 0.3),
  'warm': (1, 0.8, 0.5),
}  # fmt: skip


def field(rng, *, size=5, height=150, width=200):
  """float32 [height, width] in [0, 1], smooth."""
  small = rng.random((size, size + 1)).astype(np.float32)
  large = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
  return (large - large.min()) / np.ptp(large)


def photograph(seed):
  """uint8 [150, 200, 3]: light and shade, and things of many colours."""
  rng = np.random.default_rng(seed)
  light = 0.15 + 0.85 * field(rng, size=9)
  colour = np.stack([0.35 + 0.65 * field(rng, size=size) for size in (4, 5, 6)], -1)
  return np.uint8(255 * light[..., None] * colour)


def heat(seed):
  """uint8 [150, 200]: a map of temperatures."""
  rng = np.random.default_rng(seed)
  return np.uint8(255 * (0.7 * field(rng, size=4) + 0.3 * field(rng, size=12)))


def jpeg(image, quality=80):
  buffer = io.BytesIO()
  Image.fromarray(np.ascontiguousarray(image)).save(buffer, 'JPEG', quality=quality)
  return np.asarray(Image.open(buffer))


@pytest.mark.parametrize('name', PALETTES)
def test_all_palettes_of_opencv_are_known_at_any_contrast(name):
  palette = getattr(cv2, f'COLORMAP_{name}')
  for span, (gain, offset) in SPANS.items():
    levels = np.uint8(heat(3) * gain + offset)
    image = cv2.applyColorMap(levels, palette)[..., ::-1]
    for made in (image, jpeg(image)):
      kind = maps.kind_of([made])
      # With few levels in the middle, those of bone and cividis are as grey as grey.
      grey = np.percentile(np.ptp(made, axis=-1), 95) <= 8
      assert kind == ('grey' if grey else 'palette'), span


def test_a_palette_that_is_not_known_follows_from_the_brightness():
  corners = [(0, 0, 0), (30, 0, 140), (150, 0, 160), (225, 60, 60), (250, 160, 0), (255, 255, 220)]
  iron = np.stack(
    [np.interp(np.arange(256), np.linspace(0, 255, 6), c) for c in np.transpose(corners)], -1
  )
  assert maps.kind_of([jpeg(np.uint8(iron)[heat(3)])]) == 'palette'


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('light', LIGHTS)
def test_things_under_any_light_are_in_colour(seed, light):
  image = photograph(seed)
  lit = np.uint8(image * np.array(LIGHTS[light]))
  assert maps.kind_of([jpeg(lit)]) == 'colour'
  lit[:, :110] = (10, 200, 30)  # A green screen.
  assert maps.kind_of([jpeg(lit)]) == 'colour'


@pytest.mark.parametrize('share', [0.3, 0.1])
def test_a_dark_clip_in_colour_is_not_grey(share):
  dark = [np.uint8(photograph(seed) * share) for seed in range(3)]
  assert maps.kind_of(dark) == 'colour'
  grey = [np.dstack([np.uint8(heat(seed) * share)] * 3) for seed in range(3)]
  assert maps.kind_of(grey) == maps.kind_of(map(jpeg, grey)) == 'grey'


def test_a_tinted_grey_clip_is_in_colour():
  tinted = np.uint8(heat(1)[..., None] * np.array([0.2, 0.9, 0.3]))
  assert maps.kind_of([tinted]) == 'colour'


@pytest.mark.parametrize('light', LIGHTS)
@pytest.mark.parametrize('share', [1.0, 0.1])
def test_photographs(light, share):
  data = pytest.importorskip('skimage.data')
  for name in ('astronaut', 'chelsea', 'coffee', 'rocket'):
    image = getattr(data, name)()[::2, ::2, :3]
    lit = np.uint8(image * np.array(LIGHTS[light]) * share)
    assert maps.kind_of([jpeg(lit)]) == 'colour', name
