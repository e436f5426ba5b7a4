"""Readers of AffectNet and RAF-DB: what a face expresses."""

import collections
import re
import shutil

import corpus_layouts as layouts
import numpy as np
import pytest
from PIL import Image

from painformer_jax.core.errors import InputError
from painformer_jax.data.builders.affectnet import CLASSES, affectnet_task
from painformer_jax.data.builders.catalog import READERS
from painformer_jax.data.builders.image_files import CropBox
from painformer_jax.data.builders.rafdb import COMPOUND
from painformer_jax.data.decode import decode_rgb

basic_task, compound_task = (READERS[f'rafdb-{part}'].build for part in ('basic', 'compound'))


def keys(task, split):
  return [item.key for item in task.splits[split]]


def everything(task):
  return [item for of in task.splits.values() for item in of]


def labels(task):
  return collections.Counter(item.label for item in everything(task))


# AffectNet.


def test_affectnet_lists(tmp_path):
  said = []
  task = affectnet_task(layouts.affectnet_lists(tmp_path), max_missing=0.05, report=said.append)
  assert task.classes == CLASSES
  assert collections.Counter(i.label for i in task.splits['train']) == dict.fromkeys(range(8), 4)
  assert collections.Counter(i.label for i in task.splits['test']) == dict.fromkeys(range(8), 2)
  assert said == [
    'left out: 18 images without one of the 8 expressions',
    'left out: 1 image listed before',
    'kept whole: 2 images without a valid face box',
    'left out: 1 of 68 files that AffectNet names are missing: 77/gone.jpg',
  ]
  prefix = 'Manually_Annotated/Manually_Annotated_Images'
  by_key = {i.key: i for i in everything(task)}
  assert by_key[f'{prefix}/1/t00abc.jpg'].detail == CropBox(x=5, y=6, width=16, height=18)
  assert by_key[f'{prefix}/2/t00abc.jpg'].detail is None
  # The list says .JPG.
  assert by_key[f'{prefix}/4/t01abc.jpg'].label == 3
  # In both lists: tested, not trained on.
  assert f'{prefix}/1/v00abc.jpg' in keys(task, 'test')


def test_affectnet_faces_are_cut_out(tmp_path):
  layouts.affectnet_lists(tmp_path)
  task = affectnet_task(
    tmp_path, short_side=100, encoding='png', max_missing=0.05, report=lambda line: None
  )
  prefix = 'Manually_Annotated/Manually_Annotated_Images'
  shapes = {i.key: decode_rgb(task.read(i)).shape[:2] for i in task.splits['train']}
  assert shapes[f'{prefix}/1/t00abc.jpg'] == (18, 16)
  assert shapes[f'{prefix}/2/t00abc.jpg'] == (30, 30)
  # A box beyond the image.
  assert shapes[f'{prefix}/3/t00abc.jpg'] == (30, 30)


def test_affectnet_images_of_any_type_wherever_they_lie(tmp_path):
  layouts.affectnet_lists(tmp_path)
  home = tmp_path / 'Manually_Annotated'
  image = home / 'Manually_Annotated_Images/1/t00abc.jpg'
  Image.open(image).save(image.with_suffix('.TIF'))
  Image.open(image).save(image.with_name('more.bmp'))
  image.unlink()
  path = tmp_path / 'Manually_Annotated_file_lists/training.csv'
  text = path.read_text().replace('1/t00abc.jpg', '1/t00abc.tif')
  path.write_text(f'{text}1/more.bmp,0,0,9,9,,0,0,0\n')
  home.rename(tmp_path / 'Manually_Annotated_compressed')
  task = affectnet_task(tmp_path, max_missing=0.05, report=lambda line: None)
  prefix = 'Manually_Annotated_compressed/Manually_Annotated_Images/1'
  found = {i.key: i for i in task.splits['train']}
  for key in (f'{prefix}/t00abc.TIF', f'{prefix}/more.bmp'):
    assert decode_rgb(task.read(found[key])).shape == (224, 224, 3)


def test_affectnet_with_too_much_missing(tmp_path):
  layouts.affectnet_lists(tmp_path)
  for path in tmp_path.rglob('5/t0*.jpg'):
    path.unlink()
  with pytest.raises(
    InputError,
    match='5 of 68 files that AffectNet names are missing: '
    '5/t00abc.jpg.*complete .*/Manually_Annotated_Images, or allow',
  ):
    affectnet_task(tmp_path, report=lambda line: None)
  task = affectnet_task(tmp_path, max_missing=0.1, report=lambda line: None)
  assert len(task.splits['train']) == 28


def test_affectnet_annotations(tmp_path):
  said = []
  task = affectnet_task(layouts.affectnet_annotations(tmp_path), report=said.append)
  assert collections.Counter(i.label for i in task.splits['train']) == {
    **dict.fromkeys(range(8), 3),
    1: 2,
  }
  assert keys(task, 'test') == [f'val_set/images/{i}.jpg' for i in range(8)]
  assert [i.label for i in task.splits['test']] == list(range(8))
  assert keys(task, 'train')[-1] == 'train_set/images/23.jpg'
  assert said == [
    'left out: 1 of 32 files that AffectNet names are missing: '
    'train_set/images/4.jpg (its expression)'
  ]


def test_affectnet_annotations_without_parts_are_held_out(tmp_path):
  layouts.affectnet_annotations(tmp_path)
  task = affectnet_task(tmp_path / 'train_set', test_fraction=0.3, report=lambda line: None)
  assert len(task.splits['test']) == 8 and len(task.splits['train']) == 15
  assert 'reconstructed' in task.description
  assert keys(task, 'train')[0].startswith('images/')


def test_affectnet_annotations_never_run_code(tmp_path):
  layouts.affectnet_annotations(tmp_path)
  np.save(
    tmp_path / 'train_set/annotations/5_exp.npy',
    np.array({'a': 1}, dtype=object),
    allow_pickle=True,
  )
  (tmp_path / 'train_set/annotations/6_exp.npy').write_bytes(b'')
  said = []
  task = affectnet_task(tmp_path, max_missing=0.1, report=said.append)
  assert 'train_set/images/5.jpg' not in keys(task, 'train')
  assert said[-1].startswith('left out: 3 of 32 ')


@pytest.mark.parametrize(
  'row,message',
  [
    ('1/t00abc.jpg,0,0,9,9,,eleven,0,0', "row 2: expression 'eleven' is not a number"),
    ('1/t00abc.jpg,0,0,9,9,,11,0,0', "row 2: expression '11'"),
    ('1/t00abc.jpg,0,0,9,9,,2.5,0,0', "row 2: expression '2.5'"),
    ('1/t00abc.jpg,0,0,9,9,,,0,0', "row 2: expression ''"),
    (',0,0,9,9,,1,0,0', "row 2: 'subDirectory_filePath' is empty"),
    ('1/t00abc.jpg,0,0,9,9,,1,0,0,7', 'row 2: 10 values in 9 columns'),
  ],
)
def test_affectnet_malformed_rows(tmp_path, row, message):
  layouts.affectnet_lists(tmp_path)
  path = tmp_path / 'Manually_Annotated_file_lists/training.csv'
  path.write_text(f'{layouts.AFFECTNET_HEADER}\n{row}\n')
  with pytest.raises(InputError, match=f'training.csv, {message}'):
    affectnet_task(tmp_path, report=lambda line: None)


def test_affectnet_laid_out_otherwise(tmp_path):
  with pytest.raises(InputError, match='no known layout of AffectNet'):
    affectnet_task(tmp_path)
  (tmp_path / 'train_set/images').mkdir(parents=True)
  with pytest.raises(InputError, match='no folder images/ or no annotations/'):
    affectnet_task(tmp_path)
  (tmp_path / 'train_set/annotations').mkdir(parents=True)
  with pytest.raises(InputError, match='no image with one of the 8 expressions'):
    affectnet_task(tmp_path)


# RAF-DB.


def test_rafdb_basic(tmp_path):
  said = []
  task = basic_task(layouts.rafdb_basic(tmp_path), report=said.append)
  assert task.classes[0] == 'surprise' and task.classes[6] == 'neutral'
  assert collections.Counter(i.label for i in task.splits['train']) == {
    **dict.fromkeys(range(7), 4),
    0: 3,
  }
  assert keys(task, 'test')[0] == 'basic/Image/aligned/test_00001_aligned.jpg'
  assert [i.label for i in task.splits['test']] == [n // 2 for n in range(14)]
  assert said == [
    'left out: 1 of 42 files that list_patition_label.txt names are '
    'missing: train_00002_aligned.jpg'
  ]
  same = basic_task(tmp_path / 'basic', report=lambda line: None)
  assert keys(same, 'test')[0] == 'Image/aligned/test_00001_aligned.jpg'


def test_rafdb_compound_and_spellings(tmp_path):
  layouts.rafdb_compound(tmp_path)
  labels = tmp_path / 'Compound/EmoLabel'
  (labels / 'list_patition_label.txt').rename(labels / 'List_Partition_Label.TXT')
  aligned = tmp_path / 'Compound/Image/aligned'
  (aligned / 'train_00003_aligned.jpg').rename(aligned / 'train_00003_aligned.JPG')
  (aligned / 'train_00004_aligned.jpg').rename(aligned / 'train_00004.jpg')
  task = compound_task(tmp_path, report=lambda line: None)
  assert task.classes == COMPOUND and len(COMPOUND) == 11
  assert len(task.splits['train']) == 43 and len(task.splits['test']) == 22
  assert any(k.endswith('.JPG') for k in keys(task, 'train'))


def test_rafdb_parts_are_not_mistaken(tmp_path):
  layouts.rafdb_basic(tmp_path / 'a')
  layouts.rafdb_compound(tmp_path / 'b')
  with pytest.raises(InputError, match="label '8' is not .* rafdb-compound"):
    basic_task(tmp_path / 'b/Compound', report=lambda line: None)
  with pytest.raises(InputError, match='no label above 7.*rafdb-basic'):
    compound_task(tmp_path / 'a/basic', report=lambda line: None)


@pytest.mark.parametrize(
  'line,message',
  [
    ('train_00001.jpg', "line 2: 'train_00001.jpg' is not a file and a label"),
    ('train_00001.jpg five', "line 2: label 'five'"),
    ('train_00001.jpg 0', "line 2: label '0' is not a number from 1 to 7"),
    ('valid_00001.jpg 1', 'line 2: valid_00001.jpg begins with neither'),
    ('test_00001.jpg 1', 'line 2: test_00001.jpg is listed before, in line 1'),
  ],
)
def test_rafdb_malformed_lines(tmp_path, line, message):
  layouts.rafdb_basic(tmp_path)
  listing = tmp_path / 'basic/EmoLabel/list_patition_label.txt'
  listing.write_text(f'test_00001.jpg 1\n{line}\n')
  with pytest.raises(InputError, match=re.escape(message)):
    basic_task(tmp_path, report=lambda line: None)


def test_rafdb_laid_out_otherwise(tmp_path):
  with pytest.raises(InputError, match='has no EmoLabel/list_patition_label.txt'):
    basic_task(tmp_path)
  layouts.rafdb_basic(tmp_path)
  listing = tmp_path / 'basic/EmoLabel/list_patition_label.txt'
  listing.write_text('train_00001.jpg 1\n')
  with pytest.raises(InputError, match="no image for 'test'"):
    basic_task(tmp_path)
  listing.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(InputError, match='is no text'):
    basic_task(tmp_path)
  shutil.rmtree(tmp_path / 'basic/Image')
  with pytest.raises(InputError, match='no folder Image/aligned'):
    basic_task(tmp_path)
