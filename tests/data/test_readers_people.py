"""Readers of VGGFace2, DigiFace-1M and SpeakingFaces: who is on a photograph."""

import collections
import shutil

import corpus_layouts as layouts
import pytest

from painformer_jax.core.errors import InputError
from painformer_jax.data.builders.catalog import READERS
from painformer_jax.data.builders.digiface import digiface_task
from painformer_jax.data.builders.vggface2 import vggface2_task

rgb_task, thermal_task = (READERS[f'speakingfaces-{s}'].build for s in ('rgb', 'thermal'))


def keys(task, split):
  return [item.key for item in task.splits[split]]


def everything(task):
  return [item for of in task.splits.values() for item in of]


def labels(task):
  return collections.Counter(item.label for item in everything(task))


# VGGFace2.


def test_vggface2_joins_both_folders_and_holds_out_of_each_person(tmp_path):
  said = []
  task = vggface2_task(layouts.vggface2(tmp_path), test_fraction=0.25, report=said.append)
  assert task.name == 'vggface2' and task.modality == 'face'
  assert task.classes == ('n000001', 'n000008', 'n000015', 'n000022', 'n000029', 'n000036')
  assert labels(task) == dict.fromkeys(range(6), 12)
  assert collections.Counter(i.label for i in task.splits['test']) == dict.fromkeys(range(6), 3)
  assert 'Test/n000036/0001_01.jpg' in keys(task, 'train') + keys(task, 'test')
  assert 'train/n000008/0004_01.JPG' in keys(task, 'train') + keys(task, 'test')
  assert said == [
    'left out: 1 folder not named as an identity: train/notes',
    'identity_meta.csv: 1 identity that it lists without a folder: n999999',
    'vggface2: 6 identities found; the release has 9,131',
  ]


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
    '1 identity that it does not list: n000777',
  ]
  assert any('1 identity with fewer images than it says: n000008' in s for s in said)


def test_vggface2_meta_in_another_encoding(tmp_path):
  layouts.vggface2(tmp_path)
  path = tmp_path / 'identity_meta.csv'
  path.write_bytes(path.read_text(encoding='utf-8').encode('latin-1'))
  said = []
  vggface2_task(tmp_path, report=said.append)
  assert any('n999999' in line for line in said)


@pytest.mark.parametrize(
  'text,message',
  [
    ('Class_ID, Name\n, x\n', "identity_meta.csv, row 2: 'Class_ID' is empty"),
    ('Class_ID, Name\nn000001, Smith, Ann\n', 'row 2: 3 values in 2 columns'),
    ('Class_ID, Sample_Num\nn000001, many\n', "'Sample_Num' is 'many', not a number"),
  ],
)
def test_vggface2_with_a_malformed_meta_is_prepared_all_the_same(tmp_path, text, message):
  layouts.vggface2(tmp_path)
  (tmp_path / 'identity_meta.csv').write_text(text)
  said = []
  assert len(everything(vggface2_task(tmp_path, report=said.append))) == 72
  assert any('not compared with the list' in s and message in s for s in said), said


def test_vggface2_without_meta_and_with_one_folder(tmp_path):
  layouts.vggface2(tmp_path)
  (tmp_path / 'identity_meta.csv').unlink()
  shutil.rmtree(tmp_path / 'Test')
  said = []
  task = vggface2_task(tmp_path, report=said.append)
  assert len(task.classes) == 4
  assert not any('meta' in line for line in said)


@pytest.mark.parametrize(
  'damage,message',
  [
    (lambda f: [shutil.rmtree(f / n) for n in ('train', 'Test')], 'neither train/ nor test/'),
    (lambda f: [shutil.rmtree(p) for p in f.glob('*/n*')], 'has 0 identities'),
    (lambda f: shutil.rmtree(f), 'there is no folder'),
  ],
)
def test_vggface2_laid_out_otherwise(tmp_path, damage, message):
  damage(layouts.vggface2(tmp_path / 'vgg'))
  with pytest.raises(InputError, match=message):
    vggface2_task(tmp_path / 'vgg', report=lambda line: None)


# DigiFace-1M.


def test_digiface_nested_and_flat_are_the_same_task(tmp_path):
  nested, flat = (
    digiface_task(layouts.digiface(tmp_path / str(n), nested=n), report=lambda line: None)
    for n in (True, False)
  )
  assert (
    nested.classes
    == flat.classes
    == ('0', '1', '2', '3', *(str(100_000 + i) for i in range(4, 10)))
  )
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
  with pytest.raises(
    InputError, match="identity '0' is in two folders, again/0 and subjects_0-1999_72_imgs/0"
  ):
    digiface_task(tmp_path, report=lambda line: None)


# SpeakingFaces.


def utterance(key):
  return key.rpartition('/')[2].rsplit('_', 2)[0]


@pytest.mark.parametrize(
  'build,suffix,count',
  [(rgb_task, '_3.png', 3 * 2 * 5 * 3), (thermal_task, '_1.png', (3 * 2 - 1) * 5 * 3)],
)
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
  rgb_task(tmp_path, report=rgb.append)
  thermal_task(tmp_path, report=thermal.append)
  assert rgb[0].startswith("left out: 1 image not named as this camera's")
  assert thermal[0] == ('left out: 1 trial without thr_image_cmd: valid_data/sub_101/trial_2')
  assert rgb[-1] == 'speakingfaces_rgb: 3 subjects found; the release has 142'


def test_speakingfaces_cameras_hold_out_the_same_utterances(tmp_path):
  layouts.speakingfaces(tmp_path)
  rgb, thermal = (
    {utterance(i.key) for i in task.splits['test'] if i.label != 1}
    for task in (build(tmp_path, report=lambda line: None) for build in (rgb_task, thermal_task))
  )
  # All but subject 101, of whom the thermal camera has one trial.
  assert rgb == thermal and len(rgb) == 2


def test_speakingfaces_by_trial(tmp_path):
  task = thermal_task(layouts.speakingfaces(tmp_path), hold_out='trial', report=lambda line: None)
  assert all('/trial_2/' in k for k in keys(task, 'test'))
  assert all('/trial_1/' in k for k in keys(task, 'train'))
  # Subject 101 has one thermal trial, which is trained on.
  assert {i.label for i in task.splits['test']} == {0, 2}
  shutil.move(
    tmp_path / 'valid_data/sub_101/trial_1/thr_image_cmd',
    tmp_path / 'valid_data/sub_101/trial_2/thr_image_cmd',
  )
  task = thermal_task(tmp_path, hold_out='trial', report=lambda line: None)
  assert {i.label for i in task.splits['train']} == {0, 1, 2}


def test_speakingfaces_frame_step(tmp_path):
  layouts.speakingfaces(tmp_path, frames=11)
  task = rgb_task(tmp_path, frame_step=4, report=lambda line: None)
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
  task = rgb_task(flat, report=lambda line: None)
  assert task.classes == ('sub_1', 'sub_101', 'sub_121')


def test_speakingfaces_as_its_archives_unpack(tmp_path):
  layouts.speakingfaces(tmp_path / 'SF')
  home = tmp_path / 'hub/image_audio'
  home.mkdir(parents=True)
  for folder in (tmp_path / 'SF').glob('*_?ata/sub_*'):
    shutil.copytree(folder, home / f'{folder.name}_ia')
    # Stills, without commands, are another archive of the same person.
    (tmp_path / f'hub/image_only/{folder.name}_io/trial_1/thr_image').mkdir(parents=True)
  ours, same = (thermal_task(tmp_path / root, report=lambda line: None) for root in ('hub', 'SF'))
  assert ours.classes == same.classes
  name = lambda task, split: [k.rpartition('/')[2] for k in keys(task, split)]
  assert [name(ours, s) for s in ours.splits] == [name(same, s) for s in same.splits]


@pytest.mark.parametrize(
  'damage,options,message',
  [
    (lambda f: None, {'hold_out': 'frame'}, 'hold_out is command or trial'),
    (lambda f: None, {'frame_step': 0}, 'frame step'),
    (
      lambda f: shutil.copytree(f / 'train_data/sub_1', f / 'valid_data/sub_01'),
      {},
      'subject 1 is in two folders',
    ),
    (lambda f: [shutil.rmtree(p) for p in f.glob('*/sub_1?1')], {}, 'frames of 1 subject;'),
    (
      lambda f: [shutil.rmtree(p) for p in f.glob('*/*/trial_2')],
      {'hold_out': 'trial'},
      "nothing is left for 'test'",
    ),
  ],
)
def test_speakingfaces_laid_out_otherwise(tmp_path, damage, options, message):
  damage(layouts.speakingfaces(tmp_path))
  with pytest.raises(InputError, match=message):
    rgb_task(tmp_path, report=lambda line: None, **options)
