"""Protocols: which subjects are trained on and which are tested on.

Every function here checks its folds before it returns them: no subject is on both sides.
"""

from collections.abc import Sequence

import numpy as np

from painformer_jax.assessment.folds.batches import Fold, check_folds
from painformer_jax.core.errors import InputError

# The 26 validation subjects of the 61/26 hold-out of BioVid, as public readers of the
# dataset list them (a secondary source).
BIOVID_HOLD_OUT = tuple(
  """
    100914_m_39 101114_w_37 082315_w_60 083114_w_55 083109_m_60 072514_m_27 080309_m_29
    112016_m_25 112310_m_20 092813_w_24 112809_w_23 112909_w_20 071313_m_41 101309_m_48
    101609_m_36 091809_w_43 102214_w_36 102316_w_50 112009_w_43 101814_m_58 101908_m_61
    102309_m_61 112209_m_51 112610_w_60 112914_w_51 120514_w_56""".split()
)
# The 20 subjects outside the subset of 67 who react visibly, from one secondary source.
BIOVID_NOT_REACTIVE = tuple(
  """
    082315_w_60 082414_m_64 082909_m_47 083009_w_42 083013_w_47 083109_m_60 083114_w_55
    091914_m_46 092009_m_54 092014_m_56 092509_w_51 092714_m_64 100514_w_51 100914_m_39
    101114_w_37 101209_w_61 101809_m_59 101916_m_40 111313_m_64 120614_w_61""".split()
)


def check_subjects(folds: Sequence[Fold], subjects: np.ndarray) -> None:
  """Checks that no subject is on both sides of any fold.

  Args:
    folds: of positions in `subjects`.
    subjects: str [n], the subject of each sample.

  Raises:
    InputError: a subject is on both sides, or `batches.check_folds` refuses the folds.
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


# Folds are blocks of time of one person (dataset 'demo'): the study's subjects are blocks.
BLOCKS = 'blocks'
# Protocols with a single fold.
FIXED = ('hold-out', 'validation', 'test')
# Name in a config -> name in tables.
PROTOCOLS = {
  'loso': 'leave-one-subject-out',
  'loso-reactive': 'leave-one-subject-out, the 67 who react',
  'hold-out': 'hold-out',
  'validation': 'fixed split, validation',
  'test': 'fixed split, test',
  BLOCKS: 'leave-one-block-of-time-out',
}


def make_folds(
  protocol: str,
  *,
  subjects: np.ndarray,
  splits: np.ndarray | None = None,
  test_subjects: Sequence[str] = (),
) -> list[Fold]:
  """The folds of a protocol by its name.

  Args:
    protocol: of `PROTOCOLS`. 'test' trains on the training and validation splits.
    subjects: str [n].
    splits: str [n], for the fixed splits.
    test_subjects: the subjects that 'hold-out' tests on; none for BioVid's 26.

  Raises:
    InputError: the protocol is unknown, or does not fit the subjects or splits.
  """
  if protocol not in PROTOCOLS:
    raise InputError(f'no protocol {protocol!r}, only {", ".join(PROTOCOLS)}')
  if protocol in ('loso', BLOCKS):
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
  """One fold per subject, in the order in which subjects first occur.

  Args:
    subjects: str [n].
    exclude: subjects to leave out, such as `BIOVID_NOT_REACTIVE`.

  Raises:
    InputError: there are fewer than two subjects, or one to exclude is not there.
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
    InputError: a test subject is not in the study, or no other subject is.
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
  """One fold, from the splits that a dataset comes with.

  Args:
    splits: str [n], the split of each sample.
    subjects: str [n].
    train: splits to train on.
    test: split to test on.

  Raises:
    InputError: a split has no samples, or a subject is in both parts.
  """
  splits, subjects = np.asarray(splits), np.asarray(subjects)
  _check_present((*train, test), splits, what='of the fixed split')
  return _checked([_fold(test, test=splits == test, train=np.isin(splits, list(train)))], subjects)


def inner_folds(fold: Fold, subjects: np.ndarray, *, count: int = 5, seed: int = 0) -> list[Fold]:
  """Folds inside a fold's training samples, for choosing hyper-parameters.

  The training subjects are divided at random into `count` parts; each part is tested
  on once. The outer fold's test samples are in none of the inner folds.

  Args:
    fold: the outer fold, whose training samples are divided.
    subjects: str [n], of all samples.
    count: number of inner folds; reduced to the number of training subjects.
    seed: of the random division, which depends on nothing but it and the subjects.

  Raises:
    InputError: there are fewer than two training subjects, or `count` is below 2.
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
