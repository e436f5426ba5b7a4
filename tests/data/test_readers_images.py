"""What the image readers share: listing, sizing, cutting, holding out."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiny_tasks import encode

from painformer_jax.core.errors import InputError, counted
from painformer_jax.data.builders import image_files, shards
from painformer_jax.data.builders.image_files import (
  CropBox,
  FileIndex,
  ImageReader,
  Missing,
  StoredAs,
  find_child,
  hold_out,
  list_files,
  named,
  split_by,
)
from painformer_jax.data.decode import decode_rgb
from painformer_jax.data.task_source import Item


def test_listing_is_sorted_deep_and_of_any_case(tmp_path):
  for name in (
    'b/z.jpg',
    'b/a.JPEG',
    'a.png',
    'c/d/e.Jpg',
    '.hidden/x.jpg',
    'b/.x.jpg',
    'notes.txt',
    'c/f.gif',
  ):
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_bytes(b'')
  left_out = Counter()
  wanted = ['a.png', 'b/a.JPEG', 'b/z.jpg', 'c/d/e.Jpg', 'c/f.gif']
  assert list_files(tmp_path, left_out=left_out) == wanted
  assert left_out == {'.txt': 1, 'hidden': 2}
  assert list_files(tmp_path, suffixes=('.txt',)) == ['notes.txt']
  assert list_files(tmp_path / 'c') == ['d/e.Jpg', 'f.gif']


def test_listing_follows_links_to_folders(tmp_path):
  (tmp_path / 'real').mkdir()
  (tmp_path / 'real/0.jpg').write_bytes(b'')
  (tmp_path / 'set').mkdir()
  (tmp_path / 'set/linked').symlink_to(tmp_path / 'real')
  assert list_files(tmp_path / 'set') == ['linked/0.jpg']
  (tmp_path / 'set/round').symlink_to(tmp_path / 'set')
  (tmp_path / 'set/again').symlink_to(tmp_path / 'set/linked')
  (tmp_path / 'real/up').symlink_to(tmp_path)
  (tmp_path / 'set/gone.jpg').symlink_to('nowhere')
  left_out = Counter()
  assert list_files(tmp_path / 'set', left_out=left_out) == ['again/0.jpg']
  assert left_out == {'that cannot be read': 1}
  # The folder itself is entered before links to it.
  assert list_files(tmp_path) == ['real/0.jpg']


def test_children_and_files_are_found_in_any_case(tmp_path):
  for name in ('Train', 'test', 'TEST'):
    (tmp_path / name).mkdir()
  assert find_child(tmp_path, 'train').name == 'Train'
  assert find_child(tmp_path, 'test').name == 'test'
  assert find_child(tmp_path, 'val', 'Test').name == 'TEST'
  assert find_child(tmp_path, 'val') is None
  assert find_child(tmp_path / 'nowhere', 'val') is None
  (tmp_path / 'test/A.JPG').write_bytes(b'')
  index = FileIndex(tmp_path)
  assert index.find('TEST/a.jpg') == 'test/A.JPG'
  assert index.find('test\\./A.JPG') == 'test/A.JPG'
  assert index.find('test/b.jpg') is None
  assert index.find('../test/A.JPG') is None
  assert list(index) == ['test/A.JPG'] and len(index) == 1


def gradient(height, width):
  """Red says the column, green the row."""
  rows, columns = np.mgrid[:height, :width]
  return np.stack([columns, rows, 0 * rows], -1).astype(np.uint8)


def read(tmp_path, image, detail=None, **stored):
  (tmp_path / 'x.png').write_bytes(encode(image))
  reader = ImageReader(root=str(tmp_path), stored=StoredAs(encoding='png', **stored))
  return decode_rgb(reader(Item(key='x.png', label=0, detail=detail)))


@pytest.mark.parametrize(
  'size,short_side,expected',
  [
    ((60, 40), 20, (30, 20)),
    ((40, 61), 20, (20, 30)),
    ((20, 90), 20, (20, 90)),
    ((12, 15), 20, (12, 15)),
  ],
)
def test_short_side_shrinks_and_never_enlarges(tmp_path, size, short_side, expected):
  image = read(tmp_path, gradient(*size), short_side=short_side)
  assert image.shape == (*expected, 3)
  if expected == size:
    np.testing.assert_array_equal(image, gradient(*size))
  else:
    # Proportions: the picture spans its whole width and height still.
    assert image[..., 0].max() > 0.9 * (size[1] - 1)
    assert image[..., 1].max() > 0.9 * (size[0] - 1)


def test_the_square_is_squashed(tmp_path):
  assert read(tmp_path, gradient(60, 40), image_size=16).shape == (16, 16, 3)


@pytest.mark.parametrize(
  'box,rows,columns',
  [
    (CropBox(x=5, y=10, width=20, height=8), (10, 17), (5, 24)),
    (CropBox(x=-5, y=-5, width=15, height=15), (0, 9), (0, 9)),
    (CropBox(x=30, y=50, width=100, height=100), (50, 59), (30, 39)),
    (CropBox(x=4.6, y=0.4, width=10, height=10), (0, 9), (5, 14)),
    (CropBox(x=500, y=0, width=10, height=10), (0, 59), (0, 39)),
    (CropBox(x=0, y=0, width=0.2, height=10), (0, 59), (0, 39)),
  ],
)
def test_boxes_are_cut_and_clamped(tmp_path, box, rows, columns):
  image = read(tmp_path, gradient(60, 40), box, short_side=1000)
  assert (image[0, 0, 1], image[-1, 0, 1]) == rows
  assert (image[0, 0, 0], image[0, -1, 0]) == columns


def test_unreadable_files_raise_what_the_builder_counts(tmp_path):
  reader = ImageReader(root=str(tmp_path), stored=StoredAs())
  with pytest.raises(OSError):
    reader(Item(key='gone.jpg', label=0))
  content = encode(gradient(60, 40), '.jpg')
  for damaged in (b'', b'junk', content[: len(content) // 2]):
    (tmp_path / 'x.jpg').write_bytes(damaged)
    with pytest.raises(ValueError, match='not a readable image'):
      reader(Item(key='x.jpg', label=0))


@given(st.sets(st.text(max_size=5), max_size=30), st.floats(0.01, 0.99), st.integers(0, 3))
def test_hold_out_takes_some_and_never_all(units, fraction, seed):
  held = hold_out(units, fraction=fraction, seed=seed)
  assert held <= units
  assert held == hold_out(sorted(units, reverse=True), fraction=fraction, seed=seed)
  if len(units) > 1:
    assert 1 <= len(held) < len(units)
    assert abs(len(held) - fraction * len(units)) <= 1
  else:
    assert not held


def test_hold_out_is_the_same_everywhere():
  """The hash is a promise: stored tasks are compared with it."""
  held = hold_out(map(str, range(20)), fraction=0.2, seed=0)
  assert sorted(held) == ['0', '14', '15', '17']


def test_units_stay_together():
  items = [
    Item(key=f'{label}/{unit}/{i}', label=label, identity=f'{label}/{unit}')
    for label in (0, 1)
    for unit in range(6)
    for i in range(3)
  ]
  splits = split_by(items, lambda i: i.identity, fraction=0.3, seed=1)
  test = {i.identity for i in splits['test']}
  assert not test & {i.identity for i in splits['train']}
  assert [sum(u.startswith(f'{label}/') for u in test) for label in (0, 1)] == [2, 2]
  assert len(splits['train']) + len(splits['test']) == len(items)
  assert splits['train'] == [i for i in items if i.identity not in test]


def test_missing_files_up_to_a_limit():
  said = []
  missing = Missing(what='the list', folder='photos', limit=0.1)
  missing.close(100, said.append)
  assert not said
  for i in range(10):
    missing.add(f'{i}.jpg')
  missing.close(100, said.append)
  assert said == [
    'left out: 10 of 100 files that the list names are missing: 0.jpg, 1.jpg, 2.jpg and 7 more'
  ]
  missing.add('10.jpg')
  with pytest.raises(InputError, match=r'11 of 100 .*--max-missing, now 0.1'):
    missing.close(100, said.append)
  one = Missing(what='the list', folder='photos', limit=0.0)
  one.add('0.jpg')
  one.close(5, said.append)
  with pytest.raises(InputError, match='not from 0 to 1'):
    Missing(what='the list', folder='photos', limit=1.5)


def test_images_longer_than_an_encoding_allows():
  with pytest.raises(ValueError, match='70000 x 5 pixels cannot be stored as jpeg'):
    StoredAs(short_side=10).encode(np.zeros((5, 70_000, 3), np.uint8))


@pytest.mark.parametrize('checked', [False, True])
def test_images_are_decoded_once(monkeypatch, checked):
  decoded = []
  monkeypatch.setattr(shards, 'decode_strictly', lambda image: decoded.append(image))
  items = [Item(key=str(i), label=0) for i in range(5)]
  found = list(
    shards.read_images(items, lambda item: item.key.encode(), threads=2, checked=checked)
  )
  assert found == [(item, item.key.encode()) for item in items]
  assert len(decoded) == (0 if checked else 5)


def test_wording():
  assert counted(1, 'identity') == '1 identity'
  assert counted(9131, 'identity') == '9,131 identities'
  assert counted(0, 'image') == '0 images'
  assert named(['a', 'b']) == 'a, b'
  assert named(list('abcde')) == 'a, b, c and 2 more'
  assert image_files.NAMED == 3
