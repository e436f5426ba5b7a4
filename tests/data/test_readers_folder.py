import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
from image_files import read_image
from PIL import Image
from tiny_tasks import encode, tiny_image

from painformer_jax.core.errors import InputError
from painformer_jax.data.builders.base import store
from painformer_jax.data.builders.folder import folder_task
from painformer_jax.data.decode import decode_rgb
from painformer_jax.data.prepared import list_tasks

QUIET = {'progress': lambda line: None}


def photos(root, *, classes=('cat', 'dog'), count=10, size=(40, 30)):
  for label, name in enumerate(classes):
    for i in range(count):
      path = root / name / f'{i:02}.jpg'
      path.parent.mkdir(parents=True, exist_ok=True)
      image = tiny_image(name, i, label=label, classes=2, image_size=max(size))
      path.write_bytes(encode(image[: size[0], : size[1]], '.jpg'))
  return root


def keys(task, split):
  return [item.key for item in task.splits[split]]


def item_of(task, key):
  return next(i for of in task.splits.values() for i in of if i.key == key)


def test_folder_with_train_and_test(tmp_path):
  photos(tmp_path / 'train')
  photos(tmp_path / 'test', count=3, classes=('dog',))
  (tmp_path / 'train/.hidden').mkdir()
  (tmp_path / 'train/cat/notes.txt').write_text('no image')
  (tmp_path / 'train/cat/.00.jpg').write_text('hidden')
  (tmp_path / 'train/cat/deeper').mkdir()
  (tmp_path / 'train/cat/00.jpg').rename(tmp_path / 'train/cat/deeper/00.JPG')
  task = folder_task(tmp_path, 'pets', image_size=24)
  assert task.classes == ('cat', 'dog')
  assert len(keys(task, 'train')) == 20
  assert 'train/cat/deeper/00.JPG' in keys(task, 'train')
  assert keys(task, 'test') == [f'test/dog/{i:02}.jpg' for i in range(3)]
  assert {item.label for item in task.splits['test']} == {1}
  prepared = store(task, tmp_path / 'data', **QUIET)
  assert prepared.sizes == {'train': 20, 'test': 3}
  record = prepared.records('test')[0]
  assert decode_rgb(record['image']).shape == (24, 24, 3)


@pytest.mark.parametrize('train,test', [('Train', 'TEST'), ('training', 'val')])
def test_splits_are_no_classes_however_they_are_spelt(tmp_path, train, test):
  photos(tmp_path / train, count=2)
  photos(tmp_path / test, count=1)
  task = folder_task(tmp_path, 'pets')
  assert task.classes == ('cat', 'dog')
  assert keys(task, 'test') == [f'{test}/{name}/00.jpg' for name in ('cat', 'dog')]
  assert len(keys(task, 'train')) == 4


def test_what_is_left_out_is_said(tmp_path):
  for part in ('train', 'test', 'val'):
    photos(tmp_path / part, count=2)
  shutil.copy(tmp_path / 'train/cat/00.jpg', tmp_path / 'train/cover.jpg')
  said = []
  task = folder_task(tmp_path, 'pets', report=said.append)
  assert said == [
    'left out: val/, since test/ is the test split',
    f'left out: 1 image of {tmp_path / "train"} outside a class: cover.jpg',
  ]
  assert not any(key.startswith('val/') for split in task.splits for key in keys(task, split))


def test_listing_opens_no_image(tmp_path):
  photos(tmp_path, count=2)
  for path in tmp_path.rglob('*.jpg'):
    path.write_bytes(b'')
  task = folder_task(tmp_path, 'pets')
  assert len(keys(task, 'train')) == 2
  with pytest.raises(ValueError, match='not a readable image'):
    task.read(task.splits['train'][0])


def test_hold_out_is_by_class_seeded_and_stated(tmp_path):
  photos(tmp_path, count=10)
  photos(tmp_path, classes=('rare',), count=2)
  photos(tmp_path, classes=('single',), count=1)

  def split(**options):
    task = folder_task(tmp_path, 'pets', image_size=8, **options)
    return task, keys(task, 'train'), keys(task, 'test')

  task, train, test = split(test_fraction=0.3)
  assert not set(train) & set(test)
  assert len(train) + len(test) == 23
  held = [k.split('/')[0] for k in test]
  assert {c: held.count(c) for c in task.classes} == {'cat': 3, 'dog': 3, 'rare': 1, 'single': 0}
  assert '0.3 of the images of each class' in task.description
  assert split(test_fraction=0.3)[2] == test
  assert split(test_fraction=0.3, split_seed=1)[2] != test


def test_folder_images_are_resized_once_and_exact_as_png(tmp_path):
  photos(tmp_path, size=(40, 30))
  exact, lossy = (
    {i.key: decode_rgb(task.read(i)) for i in task.splits['train']}
    for task in (
      folder_task(tmp_path, 'pets', image_size=16, encoding=encoding)
      for encoding in ('png', 'jpeg')
    )
  )
  key = next(iter(exact))
  np.testing.assert_array_equal(exact[key], read_image(tmp_path / key, image_size=16))
  difference = np.abs(lossy[key].astype(int) - exact[key])
  assert 0 < difference.mean() < 12


def test_what_decides_the_images_is_in_the_settings(tmp_path):
  photos(tmp_path, count=2)
  settings = {
    folder_task(tmp_path, 'pets', **options).settings
    for options in ({}, {'image_size': 16}, {'short_side': 16}, {'encoding': 'png'})
  }
  assert len(settings) == 4


def test_the_reader_can_be_pickled(tmp_path):
  photos(tmp_path)
  task = folder_task(tmp_path, 'pets', image_size=16)
  item = task.splits['train'][0]
  read = pickle.loads(pickle.dumps(task.read))
  assert read(pickle.loads(pickle.dumps(item))) == task.read(item)


@pytest.mark.parametrize('kind', ['rotated', '16 bit', 'grey', 'transparent'])
def test_unusual_images(tmp_path, kind):
  photos(tmp_path, count=2)
  left_to_right = np.tile(np.linspace(0, 255, 32, dtype=np.uint8), (32, 1))
  path = tmp_path / 'cat/00.png'
  if kind == 'rotated':
    exif = Image.Exif()
    exif[0x0112] = 3  # To be turned by 180 degrees.
    Image.fromarray(left_to_right[:, ::-1]).save(path, exif=exif)
  elif kind == '16 bit':
    Image.fromarray(left_to_right.astype(np.uint16) * 257).save(path)
  elif kind == 'grey':
    Image.fromarray(left_to_right).save(path)
  else:
    rgb = np.dstack([left_to_right] * 3 + [np.full_like(left_to_right, 255)])
    Image.fromarray(rgb).save(path)
  task = folder_task(tmp_path, 'pets', image_size=32, encoding='png')
  image = decode_rgb(task.read(item_of(task, 'cat/00.png')))
  np.testing.assert_array_equal(image, np.dstack([left_to_right] * 3))


def test_a_few_unreadable_files_are_left_out(tmp_path):
  photos(tmp_path / 'train', count=100, size=(8, 8))
  photos(tmp_path / 'test', count=1)
  (tmp_path / 'train/cat/07.jpg').write_bytes(b'junk')
  whole = (tmp_path / 'train/dog/03.jpg').read_bytes()
  (tmp_path / 'train/dog/03.jpg').write_bytes(whole[: len(whole) // 2])
  (tmp_path / 'train/dog/05.jpg').unlink()
  (tmp_path / 'train/dog/05.jpg').symlink_to('nowhere.jpg')
  task = folder_task(tmp_path, 'pets', image_size=8)
  # A link that leads nowhere is no file.
  assert len(keys(task, 'train')) == 199
  said = []
  prepared = store(task, tmp_path / 'data', progress=said.append, max_unreadable=0.02)
  assert prepared.sizes['train'] == 197
  for name in ('cat/07.jpg', 'dog/03.jpg'):
    assert any(f'train/{name}' in line for line in said)
  with pytest.raises(InputError, match='train/cat/07.jpg.*not a readable image'):
    store(task, tmp_path / 'other', **QUIET)
  assert list_tasks(tmp_path / 'other') == []


@pytest.mark.parametrize(
  'make,message',
  [
    (lambda f: None, 'there is no folder'),
    (lambda f: f.mkdir(), 'has 0 folders'),
    (lambda f: photos(f, classes=('cat',)), 'has 1 folders'),
    (lambda f: photos(f, count=1), 'none can be held out'),
    (lambda f: photos(f / 'train'), 'no folder test/'),
    (lambda f: photos(f / 'test'), 'no folder train/'),
    (lambda f: (photos(f), (f / 'empty').mkdir()), 'empty has no image'),
    (
      lambda f: (photos(f / 'train'), photos(f / 'test', classes=('cow',))),
      'classes that train/ has not: cow',
    ),
  ],
)
def test_folders_laid_out_otherwise(tmp_path, make, message):
  make(tmp_path / 'source')
  with pytest.raises(InputError, match=message):
    folder_task(tmp_path / 'source', 'pets', image_size=8)


@pytest.mark.parametrize('closed', ['', 'cat', 'cat/deeper'])
def test_a_folder_that_may_not_be_read(tmp_path, monkeypatch, closed):
  photos(tmp_path)
  photos(tmp_path / 'cat', classes=('deeper',))
  closed = tmp_path / closed

  def refusing(call):
    def wrapped(path='.'):
      if Path(path) == closed:
        raise PermissionError(13, 'Permission denied', str(path))
      return call(path)

    return wrapped

  # A superuser, such as that of many a container, may read any folder.
  for name in ('listdir', 'scandir'):
    monkeypatch.setattr(os, name, refusing(getattr(os, name)))
  with pytest.raises(InputError, match=f'^{closed} cannot be read: Permission denied$'):
    folder_task(tmp_path, 'pets', image_size=8)


def test_a_name_that_is_not_utf_8(tmp_path):
  photos(tmp_path)
  bad = os.fsencode(tmp_path / 'cat') + b'/caf\xe9.jpg'
  Path(os.fsdecode(bad)).write_bytes((tmp_path / 'cat/00.jpg').read_bytes())
  with pytest.raises(InputError, match='caf.xe9.jpg.*not UTF-8; rename'):
    folder_task(tmp_path, 'pets')


@pytest.mark.parametrize(
  'options,message',
  [
    ({'encoding': 'webp'}, "no encoding 'webp', only jpeg and png"),
    ({'test_fraction': 0.0}, 'test fraction'),
    ({'test_fraction': 1.0}, 'test fraction'),
    ({'image_size': 0}, 'image size 0'),
    ({'short_side': -1}, 'short side -1'),
  ],
)
def test_folder_options_out_of_range(tmp_path, options, message):
  with pytest.raises(InputError, match=message):
    folder_task(photos(tmp_path), 'pets', **options)


def test_what_is_not_taken_is_told(tmp_path):
  for kind in 'ab':
    (tmp_path / kind).mkdir()
    for number in range(3):
      Image.new('RGB', (8, 8), (80 * number, 0, 0)).save(tmp_path / kind / f'{number}.avif')
    pages = [Image.new('RGB', (8, 8), (c, 9, 9)) for c in (10, 200)]
    pages[0].save(tmp_path / kind / 'stack.tif', save_all=True, append_images=pages[1:])
    for name in ('notes.txt', '._0.png', 'clip.mp4'):
      (tmp_path / kind / name).touch()
  (tmp_path / 'away').mkdir()
  Image.new('RGB', (8, 8)).save(tmp_path / 'away/x.gif')
  source = tmp_path / 'set'
  source.mkdir()
  for kind in 'ab':
    (tmp_path / kind).rename(source / kind)
  (source / 'a/linked').symlink_to(tmp_path / 'away')
  said = []
  task = folder_task(source, 'some', image_size=8, encoding='png', report=said.append)
  keys = {item.key for items in task.splits.values() for item in items}
  assert keys == {f'{k}/{n}.avif' for k in 'ab' for n in range(3)} | {
    'a/stack.tif',
    'b/stack.tif',
    'a/linked/x.gif',
  }
  assert said == [
    f'left out of {source}: 2 .mp4, 2 .txt, 2 hidden',
    'the first page alone is taken of 2 images with several pages',
  ]
  for item in task.splits['train']:
    assert decode_rgb(task.read(item)).shape == (8, 8, 3)
