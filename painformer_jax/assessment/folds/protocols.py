"""Who is trained on and who is tested on: tasks, folds, and the proof of both."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from painformer_jax.assessment.folds.batches import Fold, check_folds
from painformer_jax.core.errors import InputError

# Of public readers (S): the validation people of the 61/26 hold-out of BioVid.
BIOVID_HOLD_OUT = tuple(
  """
    100914_m_39 101114_w_37 082315_w_60 083114_w_55 083109_m_60 072514_m_27 080309_m_29
    112016_m_25 112310_m_20 092813_w_24 112809_w_23 112909_w_20 071313_m_41 101309_m_48
    101609_m_36 091809_w_43 102214_w_36 102316_w_50 112009_w_43 101814_m_58 101908_m_61
    102309_m_61 112209_m_51 112610_w_60 112914_w_51 120514_w_56""".split()
)
# One source (S): the people outside the subset of 67 who react visibly.
BIOVID_NOT_REACTIVE = tuple(
  """
    082315_w_60 082414_m_64 082909_m_47 083009_w_42 083013_w_47 083109_m_60 083114_w_55
    091914_m_46 092009_m_54 092014_m_56 092509_w_51 092714_m_64 100514_w_51 100914_m_39
    101114_w_37 101209_w_61 101809_m_59 101916_m_40 111313_m_64 120614_w_61""".split()
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """What is to be told apart.

  Attributes:
    name: of the task.
    classes: names of the classes.
    class_of: level of a sample -> class; levels that are not in it take no part.
  """

  name: str
  classes: tuple[str, ...]
  class_of: Mapping[int, int]

  def labels(self, levels: np.ndarray) -> np.ndarray:
    """Classes, int64 [n], -1 for samples without one, of int [n] levels."""
    return np.array([self.class_of.get(int(level), -1) for level in levels], np.int64)


_BIOVID = ('BL1', 'PA1', 'PA2', 'PA3', 'PA4')
TASKS: Mapping[str, Task] = {
  task.name: task
  for task in (
    *(
      Task(name=f'BL1-{_BIOVID[k]}', classes=('no pain', _BIOVID[k]), class_of={0: 0, k: 1})
      for k in (1, 2, 3, 4)
    ),
    Task(name='5-class', classes=_BIOVID, class_of={k: k for k in range(5)}),
    Task(name='3-class', classes=('no pain', 'low', 'high'), class_of={k: k for k in range(3)}),
    # AI4Pain 2026: where it hurts.
    Task(name='3-site', classes=('no pain', 'arm', 'hand'), class_of={k: k for k in range(3)}),
  )
}


# Dataset of a config -> its tasks: those whose levels mean what the classes are called.
_BIOVID_TASKS = (*(f'BL1-{level}' for level in _BIOVID[1:]), '5-class')
DATASET_TASKS: Mapping[str, tuple[str, ...]] = {
  'biovid': _BIOVID_TASKS,
  'planted': _BIOVID_TASKS,
  'ai4pain-2024': ('3-class',),
  'ai4pain-2025': ('3-class',),
  'ai4pain-2026': ('3-site',),
  # As in `demo_study`, which imports this module.
  'demo': ('stimulus-rest', 'tapping-rest'),
}


def check_tasks(dataset: str, tasks: Sequence[str]) -> None:
  """Asserts that a dataset has the tasks: levels of another would go by wrong names.

  Args:
    dataset: of `DATASET_TASKS`.
    tasks: names.

  Raises:
    InputError: it lacks one.
  """
  known = DATASET_TASKS[dataset]
  wrong = [task for task in tasks if task not in known]
  if wrong:
    raise InputError(
      f'config.tasks: {dataset} has no task {", ".join(wrong)}, only {", ".join(known)}'
    )


def check_subjects(folds: Sequence[Fold], subjects: np.ndarray) -> None:
  """Proves that no subject is on both sides of any fold.

  Args:
    folds: of positions in `subjects`.
    subjects: str [n], whose each sample is.

  Raises:
    InputError: a subject is on both sides, or `fold_batches.check_folds` fails.
  """
  subjects = np.asarray(subjects)
  check_folds(folds, samples=len(subjects))
  for fold in folds:
    shared = np.intersect1d(subjects[fold.train], subjects[fold.test])
    if shared.size:
      raise InputError(
        f'fold {fold.name}: subject {shared[0]} is trained on and tested on; '
        'a subject must be on one side only'
      )


# Those with a single fold.
FIXED = ('hold-out', 'validation', 'test')
# Name in a config -> what tables call it.
PROTOCOLS = {
  'loso': 'leave-one-subject-out',
  'loso-reactive': 'leave-one-subject-out, the 67 who react',
  'hold-out': 'hold-out',
  'validation': 'fixed split, validation',
  'test': 'fixed split, test',
}


def make_folds(
  protocol: str,
  *,
  subjects: np.ndarray,
  splits: np.ndarray | None = None,
  test_subjects: Sequence[str] = (),
) -> list[Fold]:
  """The folds of a protocol by its name; time blocks have their own function.

  Args:
    protocol: of `PROTOCOLS`. 'test' trains on the training and validation splits.
    subjects: str [n].
    splits: str [n], for the fixed splits.
    test_subjects: who 'hold-out' tests on; none for BioVid's 26.

  Raises:
    InputError: unknown protocol, or one that does not fit the subjects or splits.
  """
  if protocol not in PROTOCOLS:
    raise InputError(f'no protocol {protocol!r}, only {", ".join(PROTOCOLS)}')
  if protocol == 'loso':
    return leave_one_subject_out(subjects)
  if protocol == 'loso-reactive':
    return leave_one_subject_out(subjects, exclude=BIOVID_NOT_REACTIVE)
  if protocol == 'hold-out':
    return hold_out(subjects, test_subjects=test_subjects or BIOVID_HOLD_OUT)
  if splits is None or not np.any(np.asarray(splits) != ''):
    raise InputError(f"the protocol '{protocol}' needs a study with fixed splits")
  train = ('train',) if protocol == 'validation' else ('train', 'validation')
  return fixed_split(splits, subjects, train=train, test=protocol)


def leave_one_subject_out(subjects: np.ndarray, *, exclude: Sequence[str] = ()) -> list[Fold]:
  """One fold a subject, in the order in which they first occur.

  Args:
    subjects: str [n].
    exclude: subjects that take no part, such as `BIOVID_NOT_REACTIVE`.

  Raises:
    InputError: fewer than two subjects; one to exclude is not there.
  """
  subjects = np.asarray(subjects)
  _check_present(exclude, subjects, what='to leave out')
  kept = ~np.isin(subjects, list(exclude))
  people = list(dict.fromkeys(subjects[kept].tolist()))
  if len(people) < 2:
    raise InputError(f'leave-one-subject-out needs two subjects or more, not {len(people)}')
  return _checked(
    [
      _fold(person, test=kept & (subjects == person), train=kept & (subjects != person))
      for person in people
    ],
    subjects,
  )


def hold_out(subjects: np.ndarray, *, test_subjects: Sequence[str] = BIOVID_HOLD_OUT) -> list[Fold]:
  """One fold: the test subjects, and all others for training.

  Raises:
    InputError: a test subject is not there, or no other is.
  """
  subjects = np.asarray(subjects)
  _check_present(test_subjects, subjects, what='to test on')
  test = np.isin(subjects, list(test_subjects))
  if test.all():
    raise InputError('the hold-out leaves no subject to train on')
  return _checked([_fold('hold-out', test=test, train=~test)], subjects)


def fixed_split(
  splits: np.ndarray,
  subjects: np.ndarray,
  *,
  train: Sequence[str] = ('train',),
  test: str = 'validation',
) -> list[Fold]:
  """One fold by the splits that a dataset comes with.

  Args:
    splits: str [n], the split of each sample.
    subjects: str [n].
    train: splits to train on.
    test: split to test on.

  Raises:
    InputError: a split without samples, or a subject in both parts.
  """
  splits, subjects = np.asarray(splits), np.asarray(subjects)
  _check_present((*train, test), splits, what='of the fixed split')
  return _checked([_fold(test, test=splits == test, train=np.isin(splits, list(train)))], subjects)


def inner_folds(fold: Fold, subjects: np.ndarray, *, count: int = 5, seed: int = 0) -> list[Fold]:
  """Folds inside a fold's training samples, to choose hyper-parameters by.

  Its training subjects are dealt into `count` parts at random; each part is tested
  on once. Its test samples are in none.

  Args:
    fold: whose training samples are divided.
    subjects: str [n], of all samples.
    count: of inner folds; no more than there are training subjects.
    seed: of the deal; the fold's own subjects alone decide it besides.

  Raises:
    InputError: fewer than two training subjects, or `count` below 2.
  """
  subjects = np.asarray(subjects)
  check_subjects([fold], subjects)
  people = np.unique(subjects[fold.train])
  if len(people) < 2 or count < 2:
    raise InputError(
      f'fold {fold.name}: {count} inner folds of {len(people)} training '
      'subjects; at least two of each are needed'
    )
  parts = np.array_split(np.random.default_rng(seed).permutation(people), min(count, len(people)))
  training = np.zeros(len(subjects), bool)
  training[fold.train] = True
  return _checked(
    [
      _fold(
        f'{fold.name}, inner {number}',
        test=training & np.isin(subjects, part),
        train=training & ~np.isin(subjects, part),
      )
      for number, part in enumerate(parts, 1)
    ],
    subjects,
  )


def time_blocks(
  recordings: np.ndarray, start: np.ndarray, stop: np.ndarray, *, count: int
) -> np.ndarray:
  """Cuts each recording into consecutive blocks of about as many samples each.

  Samples of equal middle stay together.

  Args:
    recordings: str [n], what each sample was cut from; simultaneous channels are
      one recording.
    start, stop: float [n], in seconds.
    count: of blocks a recording.

  Returns:
    int64 [n], in [0, count).
  """
  middle = (np.asarray(start, float) + np.asarray(stop, float)) / 2
  block = np.zeros(len(middle), np.int64)
  for recording in np.unique(recordings):
    own = np.flatnonzero(np.asarray(recordings) == recording)
    _, moment, repeats = np.unique(middle[own], return_inverse=True, return_counts=True)
    before = np.cumsum(repeats) - repeats
    block[own] = (before * count // len(own))[moment]
  return block


def time_block_folds(
  recordings: np.ndarray,
  start: np.ndarray,
  stop: np.ndarray,
  *,
  count: int,
  gap: float,
  among: np.ndarray | None = None,
) -> list[Fold]:
  """Folds for few or single people: each block of time is tested on once.

  Nothing closer than `gap` to the tested block in the same recording is trained on.
  The result says how well a person is recognised at another time, not how well
  another person is.

  Args:
    recordings: str [n].
    start, stop: float [n], in seconds, of each sample.
    count: of blocks a recording, 2 or more.
    gap: in seconds, 0 or more.
    among: positions to divide, such as a fold's training samples; None: all.

  Raises:
    InputError: nothing is left to train or test on in a fold.
  """
  recordings = np.asarray(recordings)
  start, stop = np.asarray(start, float), np.asarray(stop, float)
  if count < 2 or not gap >= 0 or not np.all(start < stop):
    raise InputError(
      'time blocks need two folds or more, a gap of 0 s or more, and '
      f'samples that last; not {count} folds with a gap of {gap} s'
    )
  among = np.arange(len(start)) if among is None else np.asarray(among)
  block = np.full(len(start), -1)
  block[among] = time_blocks(recordings[among], start[among], stop[among], count=count)
  folds = []
  for number in range(count):
    test = block == number
    train = (block >= 0) & ~test
    for recording in np.unique(recordings[test]):
      inside = test & (recordings == recording)
      near = (
        (recordings == recording)
        & (stop > start[inside].min() - gap)
        & (start < stop[inside].max() + gap)
      )
      train &= ~near
    if not (train.any() and test.any()):
      raise InputError(
        f'time block {number + 1} of {count}: nothing to '
        f'{"test" if train.any() else "train"} on with a gap of {gap:g} s; '
        'use fewer folds or a smaller gap'
      )
    folds.append(_fold(f'block {number + 1}', test=test, train=train))
  return folds


def shuffle_labels(labels: np.ndarray, subjects: np.ndarray, *, seed: int) -> np.ndarray:
  """The labels, dealt anew within each subject: what is learned of them is chance.

  One shuffled run says little. All folds of a leave-one-out share most of their
  training samples, so they err to the same side: single runs scatter about chance
  nearly twice as far as their samples, or an interval over subjects, would have it.
  Take several seeds, their mean, and `intervals.shuffle_test`.
  """
  labels, generator = np.array(labels), np.random.default_rng(seed)
  for person in np.unique(subjects):
    own = np.flatnonzero(np.asarray(subjects) == person)
    labels[own] = generator.permutation(labels[own])
  return labels


def shift_labels(labels: np.ndarray, subjects: np.ndarray, *, seed: int) -> np.ndarray:
  """The labels of each subject moved round in time: the last ones come to the front.

  For windows that overlap, which must be in the order of time. True labels of near-equal
  windows are equal; dealt out one by one they would not be, and what is learned of them
  would scatter about chance far less than what is learned of labels that mean nothing.

  Each subject keeps how often each label occurs. Where equal labels come in runs of a few
  windows, a move parts some near-equal windows, and p is a little too small: of recordings
  of noise 6 % have p <= 0.05 with the windows of `demo_study` after pictures, 8 % with
  those after tapping (nearest means, 19 moves).
  """
  labels, generator = np.array(labels), np.random.default_rng(seed)
  for person in np.unique(subjects):
    own = np.flatnonzero(np.asarray(subjects) == person)
    labels[own] = np.roll(labels[own], generator.integers(len(own)))
  return labels


def _fold(name: str, *, train: np.ndarray, test: np.ndarray) -> Fold:
  """Of bool masks."""
  return Fold(name=name, train=np.flatnonzero(train), test=np.flatnonzero(test))


def _checked(folds: list[Fold], subjects: np.ndarray) -> list[Fold]:
  check_subjects(folds, subjects)
  return folds


def _check_present(names: Sequence[str], among: np.ndarray, *, what: str) -> None:
  missing = [name for name in names if name not in set(among.tolist())]
  if missing:
    raise InputError(
      f'{len(missing)} of the {len(names)} {what} are not in the study: '
      f'{", ".join(missing[:3])}{" ..." if len(missing) > 3 else ""}'
    )
