"""Readers of VGGFace2, DigiFace-1M, SpeakingFaces, AffectNet and RAF-DB."""

import collections
import re
import shutil

import numpy as np
import pytest

import corpus_layouts as layouts
from painformer_jax.data.batch import decode_rgb
from painformer_jax.data.builders.affectnet import CLASSES, affectnet_task
from painformer_jax.data.builders.digiface import digiface_task
from painformer_jax.data.builders.image_files import Box
from painformer_jax.data.builders.rafdb import (
    COMPOUND, rafdb_basic_task, rafdb_compound_task)
from painformer_jax.data.builders.speakingfaces import (
    speakingfaces_rgb_task, speakingfaces_thermal_task)
from painformer_jax.data.builders.vggface2 import vggface2_task
from painformer_jax.errors import InputError


def keys(task, split):
  return [item.key for item in task.splits[split]]


def everything(task):
  return [item for of in task.splits.values() for item in of]


def labels(task):
  return collections.Counter(item.label for item in everything(task))


# VGGFace2.


def test_vggface2_joins_both_folders_and_holds_out_of_each_person(tmp_path):
  said = []
  task = vggface2_task(
      layouts.vggface2(tmp_path), test_fraction=0.25, report=said.append)
  assert task.name == 'vggface2' and task.modality == 'face'
  assert task.classes == ('n000001', 'n000008', 'n000015', 'n000022', 'n000029',
                          'n000036')
  assert labels(task) == dict.fromkeys(range(6), 12)
  assert collections.Counter(i.label for i in task.splits['test']) == dict.fromkeys(
      range(6), 3)
  assert 'Test/n000036/0001_01.jpg' in keys(task, 'train') + keys(task, 'test')
  assert 'train/n000008/0004_01.JPG' in keys(task, 'train') + keys(task, 'test')
  assert said == [
      'left out: 1 folder not named as an identity: train/notes',
      'identity_meta.csv: 1 identity that it lists without a folder: n999999',
      'vggface2: 6 identities found; the release has 9,131']


def test_vggface2_meta_is_held_against_the_folders(tmp_path):
  layouts.vggface2(tmp_path)
  (tmp_path / 'train/n000008/0001_01.jpg').unlink()
  shutil.copytree(tmp_path / 'Test/n000036', tmp_path / 'train/n000777')
  (tmp_path / 'train/n000778').mkdir()
  (tmp_path / 'meta').mkdir()
  (tmp_path / 'identity_meta.csv').rename(tmp_path / 'meta/Identity_Meta.csv')
  said = []
  vggface2_task(tmp_path, report=said.append)
  assert [line.split(': ', 1)[1] for line in said if 'identit' in line][:4] == [
      '1 folder not named as an identity: train/notes',
      '1 identity without an image: train/n000778',
      '1 identity that it lists without a folder: n999999',
      '1 identity that it does not list: n000777']
  assert any('1 identity with fewer images than it says: n000008' in s for s in said)


def test_vggface2_meta_in_another_encoding(tmp_path):
  layouts.vggface2(tmp_path)
  path = tmp_path / 'identity_meta.csv'
  path.write_bytes(path.read_text(encoding='utf-8').encode('latin-1'))
  said = []
  vggface2_task(tmp_path, report=said.append)
  assert any('n999999' in line for line in said)


def test_vggface2_without_meta_and_with_one_folder(tmp_path):
  layouts.vggface2(tmp_path)
  (tmp_path / 'identity_meta.csv').unlink()
  shutil.rmtree(tmp_path / 'Test')
  said = []
  task = vggface2_task(tmp_path, report=said.append)
  assert len(task.classes) == 4
  assert not any('meta' in line for line in said)


@pytest.mark.parametrize('damage,message', [
    (lambda f: [shutil.rmtree(f / n) for n in ('train', 'Test')],
     'neither train/ nor test/'),
    (lambda f: [shutil.rmtree(p) for p in f.glob('*/n*')], 'has 0 identities'),
    (lambda f: (f / 'identity_meta.csv').write_text('Class_ID, Name\n, x\n'),
     r"identity_meta.csv, row 2: 'Class_ID' is empty"),
    (lambda f: shutil.rmtree(f), 'there is no folder'),
])
def test_vggface2_laid_out_otherwise(tmp_path, damage, message):
  damage(layouts.vggface2(tmp_path / 'vgg'))
  with pytest.raises(InputError, match=message):
    vggface2_task(tmp_path / 'vgg', report=lambda line: None)


# DigiFace-1M.


def test_digiface_nested_and_flat_are_the_same_task(tmp_path):
  nested, flat = (
      digiface_task(layouts.digiface(tmp_path / str(n), nested=n),
                    report=lambda line: None) for n in (True, False))
  assert nested.classes == flat.classes == (
      '0', '1', '2', '3', *(str(100_000 + i) for i in range(4, 10)))
  assert keys(nested, 'train')[0].startswith('subjects_0-1999_72_imgs/0/')
  assert len(everything(nested)) == len(everything(flat)) == 4 * 8 + 6 * 5
  for task in (nested, flat):
    # One of each identity, however few it has.
    assert [i.label for i in task.splits['test']] == list(range(10))


def test_digiface_is_in_order_of_numbers(tmp_path):
  for identity in ('10', '9', 'x'):
    for k in (0, 2, 10, 11):
      layouts.image_file(tmp_path / identity / f'{k}.png', label=0, classes=2)
  said = []
  layouts.image_file(tmp_path / 'cover.png', label=0, classes=2)
  task = digiface_task(tmp_path, test_fraction=0.2, report=said.append)
  assert task.classes == ('9', '10', 'x')
  numbers = [int(k.split('/')[1][:-4]) for k in keys(task, 'train') if k[0] == '9']
  assert numbers == sorted(numbers)
  assert said[0] == 'left out: 1 image outside a folder: cover.png'


def test_digiface_with_an_identity_twice(tmp_path):
  layouts.digiface(tmp_path)
  layouts.image_file(tmp_path / 'again/0/0.png', label=0, classes=2)
  with pytest.raises(InputError, match="identity '0' is in two folders, again/0 and "
                     'subjects_0-1999_72_imgs/0'):
    digiface_task(tmp_path, report=lambda line: None)


# SpeakingFaces.


def utterance(key):
  return key.rpartition('/')[2].rsplit('_', 2)[0]


@pytest.mark.parametrize('build,suffix,count', [
    (speakingfaces_rgb_task, '_3.png', 3 * 2 * 5 * 3),
    (speakingfaces_thermal_task, '_1.png', (3 * 2 - 1) * 5 * 3)])
def test_speakingfaces_never_splits_an_utterance(tmp_path, build, suffix, count):
  said = []
  task = build(layouts.speakingfaces(tmp_path), test_fraction=0.2, report=said.append)
  assert task.classes == ('sub_1', 'sub_101', 'sub_121')
  assert len(everything(task)) == count
  assert all(item.key.endswith(suffix) for item in everything(task))
  train, test = (set(map(utterance, keys(task, s))) for s in ('train', 'test'))
  assert not train & test
  assert {i.label for i in task.splits['test']} == {0, 1, 2}
  assert len(task.splits['test']) == 3 * len(test)
  assert all(i.detail is None for i in everything(task))


def test_speakingfaces_reports_what_is_unusual(tmp_path):
  layouts.speakingfaces(tmp_path)
  rgb, thermal = [], []
  speakingfaces_rgb_task(tmp_path, report=rgb.append)
  speakingfaces_thermal_task(tmp_path, report=thermal.append)
  assert rgb[0].startswith("left out: 1 image not named as this camera's")
  assert thermal[0] == (
      'left out: 1 trial without thr_image_cmd: valid_data/sub_101/trial_2')
  assert rgb[-1] == 'speakingfaces_rgb: 3 subjects found; the release has 142'


def test_speakingfaces_cameras_hold_out_the_same_utterances(tmp_path):
  layouts.speakingfaces(tmp_path)
  rgb, thermal = ({utterance(i.key) for i in task.splits['test'] if i.label != 1}
                  for task in (build(tmp_path, report=lambda line: None) for build in (
                      speakingfaces_rgb_task, speakingfaces_thermal_task)))
  # All but subject 101, of whom the thermal camera has one trial.
  assert rgb == thermal and len(rgb) == 2


def test_speakingfaces_by_trial(tmp_path):
  task = speakingfaces_thermal_task(
      layouts.speakingfaces(tmp_path), hold_out='trial', report=lambda line: None)
  assert all('/trial_2/' in k for k in keys(task, 'test'))
  assert all('/trial_1/' in k for k in keys(task, 'train'))
  # Subject 101 has one thermal trial, which is trained on.
  assert {i.label for i in task.splits['test']} == {0, 2}
  shutil.move(tmp_path / 'valid_data/sub_101/trial_1/thr_image_cmd',
              tmp_path / 'valid_data/sub_101/trial_2/thr_image_cmd')
  task = speakingfaces_thermal_task(tmp_path, hold_out='trial', report=lambda line: None)
  assert {i.label for i in task.splits['train']} == {0, 1, 2}


def test_speakingfaces_frame_step(tmp_path):
  layouts.speakingfaces(tmp_path, frames=11)
  task = speakingfaces_rgb_task(tmp_path, frame_step=4, report=lambda line: None)
  frames = collections.defaultdict(list)
  for item in everything(task):
    frames[utterance(item.key)].append(int(item.key.rsplit('_', 2)[1]))
  assert len(frames) == 30
  # In the order of numbers: 10 comes after 9.
  assert all(f == [1, 5, 9] for f in frames.values())


def test_speakingfaces_subjects_at_the_top(tmp_path):
  layouts.speakingfaces(tmp_path)
  flat = tmp_path / 'flat'
  flat.mkdir()
  for folder in tmp_path.glob('*_?ata/sub_*'):
    shutil.move(folder, flat / folder.name.replace('sub_1', 'Sub_001'))
  task = speakingfaces_rgb_task(flat, report=lambda line: None)
  assert task.classes == ('sub_1', 'sub_101', 'sub_121')


@pytest.mark.parametrize('damage,options,message', [
    (lambda f: None, {'hold_out': 'frame'}, "hold_out is command or trial"),
    (lambda f: None, {'frame_step': 0}, 'frame step'),
    (lambda f: shutil.copytree(f / 'train_data/sub_1', f / 'valid_data/sub_01'), {},
     'subject 1 is in two folders'),
    (lambda f: [shutil.rmtree(p) for p in f.glob('*/sub_1?1')], {},
     'frames of 1 subject;'),
    (lambda f: [shutil.rmtree(p) for p in f.glob('*/*/trial_2')],
     {'hold_out': 'trial'}, "nothing is left for 'test'"),
])
def test_speakingfaces_laid_out_otherwise(tmp_path, damage, options, message):
  damage(layouts.speakingfaces(tmp_path))
  with pytest.raises(InputError, match=message):
    speakingfaces_rgb_task(tmp_path, report=lambda line: None, **options)


# AffectNet.


def test_affectnet_lists(tmp_path):
  said = []
  task = affectnet_task(layouts.affectnet_lists(tmp_path), max_missing=0.05,
                        report=said.append)
  assert task.classes == CLASSES
  assert collections.Counter(i.label for i in task.splits['train']) == dict.fromkeys(
      range(8), 4)
  assert collections.Counter(i.label for i in task.splits['test']) == dict.fromkeys(
      range(8), 2)
  assert said == [
      'left out: 18 images without one of the 8 expressions',
      'left out: 1 image listed before',
      'kept whole: 2 images without a valid face box',
      'left out: 1 of 68 files that AffectNet names are missing: 77/gone.jpg']
  prefix = 'Manually_Annotated/Manually_Annotated_Images'
  by_key = {i.key: i for i in everything(task)}
  assert by_key[f'{prefix}/1/t00abc.jpg'].detail == Box(x=5, y=6, width=16, height=18)
  assert by_key[f'{prefix}/2/t00abc.jpg'].detail is None
  # The list says .JPG.
  assert by_key[f'{prefix}/4/t01abc.jpg'].label == 3
  # In both lists: tested, not trained on.
  assert f'{prefix}/1/v00abc.jpg' in keys(task, 'test')


def test_affectnet_faces_are_cut_out(tmp_path):
  layouts.affectnet_lists(tmp_path)
  task = affectnet_task(tmp_path, short_side=100, encoding='png', max_missing=0.05,
                        report=lambda line: None)
  prefix = 'Manually_Annotated/Manually_Annotated_Images'
  shapes = {i.key: decode_rgb(task.read(i)).shape[:2] for i in task.splits['train']}
  assert shapes[f'{prefix}/1/t00abc.jpg'] == (18, 16)
  assert shapes[f'{prefix}/2/t00abc.jpg'] == (30, 30)
  # A box beyond the image.
  assert shapes[f'{prefix}/3/t00abc.jpg'] == (30, 30)


def test_affectnet_with_too_much_missing(tmp_path):
  layouts.affectnet_lists(tmp_path)
  for path in tmp_path.rglob('5/t0*.jpg'):
    path.unlink()
  with pytest.raises(InputError, match='5 of 68 files that AffectNet names are missing: '
                     '5/t00abc.jpg.*complete the copy'):
    affectnet_task(tmp_path, report=lambda line: None)
  task = affectnet_task(tmp_path, max_missing=0.1, report=lambda line: None)
  assert len(task.splits['train']) == 28


def test_affectnet_annotations(tmp_path):
  said = []
  task = affectnet_task(layouts.affectnet_annotations(tmp_path), report=said.append)
  assert collections.Counter(i.label for i in task.splits['train']) == {
      **dict.fromkeys(range(8), 3), 1: 2}
  assert keys(task, 'test') == [f'val_set/images/{i}.jpg' for i in range(8)]
  assert [i.label for i in task.splits['test']] == list(range(8))
  assert keys(task, 'train')[-1] == 'train_set/images/23.jpg'
  assert said == ['left out: 1 of 32 files that AffectNet names are missing: '
                  'train_set/images/4.jpg (its expression)']


def test_affectnet_annotations_without_parts_are_held_out(tmp_path):
  layouts.affectnet_annotations(tmp_path)
  task = affectnet_task(
      tmp_path / 'train_set', test_fraction=0.3, report=lambda line: None)
  assert len(task.splits['test']) == 8 and len(task.splits['train']) == 15
  assert 'reconstructed' in task.description
  assert keys(task, 'train')[0].startswith('images/')


def test_affectnet_annotations_never_run_code(tmp_path):
  layouts.affectnet_annotations(tmp_path)
  np.save(tmp_path / 'train_set/annotations/5_exp.npy',
          np.array({'a': 1}, dtype=object), allow_pickle=True)
  (tmp_path / 'train_set/annotations/6_exp.npy').write_bytes(b'')
  said = []
  task = affectnet_task(
      tmp_path, max_missing=0.1, report=said.append)
  assert 'train_set/images/5.jpg' not in keys(task, 'train')
  assert said[-1].startswith('left out: 3 of 32 ')


@pytest.mark.parametrize('row,message', [
    ('1/t00abc.jpg,0,0,9,9,,eleven,0,0', "row 2: expression 'eleven' is not a number"),
    ('1/t00abc.jpg,0,0,9,9,,11,0,0', "row 2: expression '11'"),
    ('1/t00abc.jpg,0,0,9,9,,2.5,0,0', "row 2: expression '2.5'"),
    ('1/t00abc.jpg,0,0,9,9,,,0,0', "row 2: expression ''"),
    (',0,0,9,9,,1,0,0', "row 2: 'subDirectory_filePath' is empty"),
    ('1/t00abc.jpg,0,0,9,9,,1,0,0,7', 'row 2: 10 values in 9 columns'),
])
def test_affectnet_malformed_rows(tmp_path, row, message):
  layouts.affectnet_lists(tmp_path)
  path = tmp_path / 'Manually_Annotated_file_lists/training.csv'
  path.write_text(f'{layouts.AFFECTNET_HEADER}\n{row}\n')
  with pytest.raises(InputError, match=f'training.csv, {message}'):
    affectnet_task(tmp_path, report=lambda line: None)


def test_affectnet_laid_out_otherwise(tmp_path):
  with pytest.raises(InputError, match='laid out in no way known of AffectNet'):
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
  task = rafdb_basic_task(layouts.rafdb_basic(tmp_path), report=said.append)
  assert task.classes[0] == 'surprise' and task.classes[6] == 'neutral'
  assert collections.Counter(i.label for i in task.splits['train']) == {
      **dict.fromkeys(range(7), 4), 0: 3}
  assert keys(task, 'test')[0] == 'basic/Image/aligned/test_00001_aligned.jpg'
  assert [i.label for i in task.splits['test']] == [n // 2 for n in range(14)]
  assert said == ['left out: 1 of 42 files that list_patition_label.txt names are '
                  'missing: train_00002_aligned.jpg']
  same = rafdb_basic_task(tmp_path / 'basic', report=lambda line: None)
  assert keys(same, 'test')[0] == 'Image/aligned/test_00001_aligned.jpg'


def test_rafdb_compound_and_spellings(tmp_path):
  layouts.rafdb_compound(tmp_path)
  labels = tmp_path / 'Compound/EmoLabel'
  (labels / 'list_patition_label.txt').rename(labels / 'List_Partition_Label.TXT')
  aligned = tmp_path / 'Compound/Image/aligned'
  (aligned / 'train_00003_aligned.jpg').rename(aligned / 'train_00003_aligned.JPG')
  (aligned / 'train_00004_aligned.jpg').rename(aligned / 'train_00004.jpg')
  task = rafdb_compound_task(tmp_path, report=lambda line: None)
  assert task.classes == COMPOUND and len(COMPOUND) == 11
  assert len(task.splits['train']) == 43 and len(task.splits['test']) == 22
  assert any(k.endswith('.JPG') for k in keys(task, 'train'))


def test_rafdb_parts_are_not_mistaken(tmp_path):
  layouts.rafdb_basic(tmp_path / 'a')
  layouts.rafdb_compound(tmp_path / 'b')
  with pytest.raises(InputError, match="label '8' is not .* rafdb-compound"):
    rafdb_basic_task(tmp_path / 'b/Compound', report=lambda line: None)
  with pytest.raises(InputError, match='no label above 7.*rafdb-basic'):
    rafdb_compound_task(tmp_path / 'a/basic', report=lambda line: None)


@pytest.mark.parametrize('line,message', [
    ('train_00001.jpg', "line 2: 'train_00001.jpg' is not a file and a label"),
    ('train_00001.jpg five', "line 2: label 'five'"),
    ('train_00001.jpg 0', "line 2: label '0' is not a number from 1 to 7"),
    ('valid_00001.jpg 1', "line 2: valid_00001.jpg begins with neither"),
    ('test_00001.jpg 1', 'line 2: test_00001.jpg is listed before, in line 1'),
])
def test_rafdb_malformed_lines(tmp_path, line, message):
  layouts.rafdb_basic(tmp_path)
  listing = tmp_path / 'basic/EmoLabel/list_patition_label.txt'
  listing.write_text(f'test_00001.jpg 1\n{line}\n')
  with pytest.raises(InputError, match=re.escape(message)):
    rafdb_basic_task(tmp_path, report=lambda line: None)


def test_rafdb_laid_out_otherwise(tmp_path):
  with pytest.raises(InputError, match='has no EmoLabel/list_patition_label.txt'):
    rafdb_basic_task(tmp_path)
  layouts.rafdb_basic(tmp_path)
  listing = tmp_path / 'basic/EmoLabel/list_patition_label.txt'
  listing.write_text('train_00001.jpg 1\n')
  with pytest.raises(InputError, match="no image for 'test'"):
    rafdb_basic_task(tmp_path)
  listing.write_bytes(b'\xff\xfe\x00')
  with pytest.raises(InputError, match='is no text'):
    rafdb_basic_task(tmp_path)
  shutil.rmtree(tmp_path / 'basic/Image')
  with pytest.raises(InputError, match='no folder Image/aligned'):
    rafdb_basic_task(tmp_path)
