"""Folds of every protocol: as published, and never with a subject on both sides."""

import typing

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import ROOT

from painformer_jax.assessment.config import Dataset, from_config_dict
from painformer_jax.assessment.folds import permuted_labels, protocols, tasks
from painformer_jax.assessment.folds.batches import Fold
from painformer_jax.cli.config_file import load_config
from painformer_jax.core.errors import InputError

# All the names that the two published lists hold, and so many others.
LISTED = tuple(dict.fromkeys((*protocols.BIOVID_HOLD_OUT, *protocols.BIOVID_NOT_REACTIVE)))
ALL_87 = (*LISTED, *(f'13{k:04d}_w_30' for k in range(87 - len(LISTED))))


def people_of(subjects, positions):
  return set(np.asarray(subjects)[positions].tolist())


def biovid_subjects(per_subject=3):
  # Interleaved, so that a subject's samples are not neighbours.
  return np.tile(np.array(ALL_87), per_subject)


subject_arrays = st.lists(st.sampled_from('abcdefg'), min_size=2, max_size=40).map(np.array)


class TestLists:
  def test_sizes(self):
    assert len(set(protocols.BIOVID_HOLD_OUT)) == 26
    assert len(set(protocols.BIOVID_NOT_REACTIVE)) == 20
    assert len(ALL_87) == len(set(ALL_87)) == 87


class TestTasks:
  def test_classes_of_every_level(self):
    levels = np.array([0, 1, 2, 3, 4, -1])
    found = {name: task.labels(levels).tolist() for name, task in tasks.TASKS.items()}
    assert found == {
      'BL1-PA1': [0, 1, -1, -1, -1, -1],
      'BL1-PA2': [0, -1, 1, -1, -1, -1],
      'BL1-PA3': [0, -1, -1, 1, -1, -1],
      'BL1-PA4': [0, -1, -1, -1, 1, -1],
      '5-class': [0, 1, 2, 3, 4, -1],
      '3-class': [0, 1, 2, -1, -1, -1],
      '3-site': [0, 1, 2, -1, -1, -1],
      'stimulus-rest': [0, 1, -1, -1, -1, -1],
      'tapping-rest': [-1, -1, 0, 1, -1, -1],
    }
    for name, task in tasks.TASKS.items():
      assert task.name == name and set(task.class_of.values()) == set(range(len(task.classes)))

  def test_every_dataset_has_tasks_and_every_task_a_dataset(self):
    assert set(tasks.DATASET_TASKS) == set(typing.get_args(Dataset))
    named = {task for names in tasks.DATASET_TASKS.values() for task in names}
    assert named == set(tasks.TASKS)

  @pytest.mark.parametrize(
    'dataset, task',
    [
      ('biovid', '3-class'),
      ('biovid', '3-site'),
      ('planted', '3-class'),
      ('ai4pain-2024', 'BL1-PA1'),
      ('ai4pain-2025', '5-class'),
      ('ai4pain-2026', '3-class'),
      ('demo', '5-class'),
      ('biovid', 'tapping-rest'),
    ],
  )
  def test_tasks_of_other_datasets_are_refused(self, dataset, task):
    known = tasks.DATASET_TASKS[dataset]
    tasks.check_tasks(dataset, known)
    with pytest.raises(InputError) as error:
      tasks.check_tasks(dataset, (known[0], task))
    assert str(error.value) == (
      f'config.tasks: {dataset} has no task {task}, only {", ".join(known)}'
    )

  def test_tasks_are_checked_with_the_config(self):
    config = load_config(
      str(ROOT / 'configs' / 'assess_planted.py'),
      overrides=('--config.weights=w', "--config.tasks=('3-class',)"),
    )
    with pytest.raises(InputError, match='planted has no task 3-class, only BL1-PA1, BL1-PA2'):
      from_config_dict(config)


class TestLeaveOneOut:
  def test_all_87(self):
    subjects = biovid_subjects()
    folds = protocols.leave_one_subject_out(subjects)
    assert [f.name for f in folds] == list(ALL_87)
    for fold in folds:
      assert people_of(subjects, fold.test) == {fold.name}
      assert len(fold.test) == 3 and len(fold.train) == 86 * 3

  def test_reactive_67(self):
    subjects = biovid_subjects()
    folds = protocols.leave_one_subject_out(subjects, exclude=protocols.BIOVID_NOT_REACTIVE)
    assert len(folds) == 67
    seen = set().union(*(people_of(subjects, np.concatenate([f.train, f.test])) for f in folds))
    assert seen == set(ALL_87) - set(protocols.BIOVID_NOT_REACTIVE)

  def test_someone_to_leave_out_who_is_not_there(self):
    with pytest.raises(InputError, match='19 of the 20 to leave out are not in the study'):
      protocols.leave_one_subject_out(
        np.array([*protocols.BIOVID_NOT_REACTIVE[:1], 'x', 'y']),
        exclude=protocols.BIOVID_NOT_REACTIVE,
      )

  def test_one_person(self):
    with pytest.raises(InputError, match='two subjects or more, not 1'):
      protocols.leave_one_subject_out(np.array(['a', 'a']))

  @settings(deadline=None)
  @given(subject_arrays)
  def test_every_sample_is_tested_once_by_strangers(self, subjects):
    if len(set(subjects.tolist())) < 2:
      return
    folds = protocols.leave_one_subject_out(subjects)
    tested = np.concatenate([f.test for f in folds])
    assert sorted(tested.tolist()) == list(range(len(subjects)))
    for fold in folds:
      assert not people_of(subjects, fold.train) & people_of(subjects, fold.test)
      assert len(fold.train) + len(fold.test) == len(subjects)


class TestHoldOut:
  def test_61_and_26(self):
    subjects = biovid_subjects()
    (fold,) = protocols.hold_out(subjects)
    assert people_of(subjects, fold.test) == set(protocols.BIOVID_HOLD_OUT)
    assert len(people_of(subjects, fold.train)) == 61
    assert len(fold.train) + len(fold.test) == len(subjects)

  def test_missing_people_are_named(self):
    kept = np.array(ALL_87[1:])
    with pytest.raises(InputError, match=f'1 of the 26 to test on .*: {ALL_87[0]}$'):
      protocols.hold_out(kept)

  def test_nobody_left(self):
    with pytest.raises(InputError, match='no subject to train on'):
      protocols.hold_out(np.array(['a']), test_subjects=('a',))


class TestFixedSplit:
  splits = np.array(['train', 'train', 'validation', 'test', 'train'])
  subjects = np.array(['1', '2', '3', '4', '1'])

  def test_validation_and_test(self):
    (fold,) = protocols.fixed_split(self.splits, self.subjects)
    assert (fold.name, fold.train.tolist(), fold.test.tolist()) == ('validation', [0, 1, 4], [2])
    (fold,) = protocols.fixed_split(
      self.splits, self.subjects, test='test', train=('train', 'validation')
    )
    assert (fold.train.tolist(), fold.test.tolist()) == ([0, 1, 2, 4], [3])

  def test_subject_on_both_sides(self):
    with pytest.raises(InputError, match='fold validation: subject 1 is trained on and tested'):
      protocols.fixed_split(self.splits, np.array(['1', '2', '1', '4', '1']))

  def test_split_that_is_not_there(self):
    with pytest.raises(InputError, match='of the fixed split are not in the study: dev'):
      protocols.fixed_split(self.splits, self.subjects, test='dev')


class TestByName:
  def test_biovid(self):
    subjects = biovid_subjects()
    assert [
      len(protocols.make_folds(name, subjects=subjects))
      for name in ('loso', 'loso-reactive', 'hold-out')
    ] == [87, 67, 1]

  def test_fixed_splits(self):
    splits, subjects = TestFixedSplit.splits, TestFixedSplit.subjects
    (fold,) = protocols.make_folds('validation', subjects=subjects, splits=splits)
    assert (fold.train.tolist(), fold.test.tolist()) == ([0, 1, 4], [2])
    (fold,) = protocols.make_folds('test', subjects=subjects, splits=splits)
    assert (fold.train.tolist(), fold.test.tolist()) == ([0, 1, 2, 4], [3])

  @pytest.mark.parametrize(
    'name, message',
    [
      ('10-fold', "no protocol '10-fold', only loso, loso-reactive"),
      ('test', "'test' needs a study with fixed splits"),
    ],
  )
  def test_that_do_not_fit(self, name, message):
    with pytest.raises(InputError, match=message):
      protocols.make_folds(name, subjects=np.array(['a', 'b']), splits=np.array(['', '']))


class TestCheckSubjects:
  @settings(deadline=None)
  @given(subject_arrays, st.data())
  def test_any_fold_that_shares_a_subject_is_refused(self, subjects, data):
    side = np.array(
      data.draw(
        st.lists(st.sampled_from([0, 1, 2]), min_size=len(subjects), max_size=len(subjects))
      )
    )
    train, test = np.flatnonzero(side == 0), np.flatnonzero(side == 1)
    if not (train.size and test.size):
      return
    fold = Fold(name='drawn', train=train, test=test)
    shared = people_of(subjects, train) & people_of(subjects, test)
    if shared:
      with pytest.raises(InputError, match='fold drawn: subject [a-g] is trained on and tested'):
        protocols.check_subjects([fold], subjects)
    else:
      protocols.check_subjects([fold], subjects)

  def test_positions_beyond_the_samples(self):
    fold = Fold(name='a', train=np.array([0]), test=np.array([5]))
    with pytest.raises(InputError, match='not in 0 to 1'):
      protocols.check_subjects([fold], np.array(['x', 'y']))


class TestInnerFolds:
  @settings(deadline=None)
  @given(subject_arrays, st.integers(2, 6), st.integers(0, 3))
  def test_stay_inside_the_training_samples(self, subjects, count, seed):
    if len(set(subjects.tolist())) < 3:
      return
    for fold in protocols.leave_one_subject_out(subjects):
      inner = protocols.inner_folds(fold, subjects, count=count, seed=seed)
      assert len(inner) == min(count, len(people_of(subjects, fold.train)))
      tested = np.concatenate([f.test for f in inner])
      assert sorted(tested.tolist()) == fold.train.tolist()
      for part in inner:
        assert not set(part.train.tolist()) & set(fold.test.tolist())
        assert not people_of(subjects, part.train) & people_of(subjects, part.test)

  def test_samples_that_the_fold_leaves_out_stay_out(self):
    subjects = np.array(list('aabbccdd'))
    fold = Fold(name='d', train=np.array([0, 2, 4, 5]), test=np.array([6]))
    inner = protocols.inner_folds(fold, subjects, count=3)
    assert sorted(np.concatenate([f.test for f in inner]).tolist()) == [0, 2, 4, 5]
    assert all(set(f.train.tolist()) < {0, 2, 4, 5} for f in inner)

  def test_same_for_the_same_seed_and_other_for_another(self):
    subjects = biovid_subjects(1)
    fold = protocols.leave_one_subject_out(subjects)[0]

    def deal(seed):
      return [f.test.tolist() for f in protocols.inner_folds(fold, subjects, seed=seed)]

    assert deal(0) == deal(0) != deal(1)

  def test_too_few(self):
    fold = Fold(name='a', train=np.array([0, 1]), test=np.array([2]))
    with pytest.raises(InputError, match='5 inner folds of 1 training subjects'):
      protocols.inner_folds(fold, np.array(['x', 'x', 'y']))


class TestShuffle:
  def test_each_subject_keeps_their_own_labels(self):
    rng = np.random.default_rng(0)
    subjects = np.repeat(['a', 'b', 'c'], 50)
    labels = np.concatenate([rng.integers(0, 2, 50), rng.integers(0, 5, 50), np.ones(50, int)])
    before = labels.copy()
    shuffled = permuted_labels.shuffle_labels(labels, subjects, seed=1)
    np.testing.assert_array_equal(labels, before)
    assert (shuffled != labels).sum() > 30
    for person in 'abc':
      own = subjects == person
      np.testing.assert_array_equal(np.sort(shuffled[own]), np.sort(labels[own]))

  def test_labels_of_each_block_move_round_in_time(self):
    blocks = np.repeat(['a', 'b'], [40, 60])
    labels = np.concatenate([np.repeat([0, 1, 0], [10, 20, 10]), np.repeat([1, 0], 30)])
    before, moved = labels.copy(), set()
    for seed in range(50):
      shifted = permuted_labels.shift_labels(labels, blocks, seed=seed)
      for block in 'ab':
        own = blocks == block
        turns = [n for n in range(own.sum()) if (np.roll(labels[own], n) == shifted[own]).all()]
        assert turns
        moved.add((block, turns[0]))
    np.testing.assert_array_equal(labels, before)
    assert len(moved) > 40
