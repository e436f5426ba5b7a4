"""Labels that carry no information, for runs that must come out at chance."""

import numpy as np


def shuffle_labels(labels: np.ndarray, subjects: np.ndarray, *, seed: int) -> np.ndarray:
  """The labels, permuted at random within each subject.

  One shuffled run says little. All folds of a leave-one-out share most of their
  training samples, so their errors are correlated: the accuracy of single runs scatters
  about chance nearly twice as far as the number of samples, or an interval over
  subjects, suggests. Use several seeds and `intervals.shuffle_test`.
  """
  labels, generator = np.array(labels), np.random.default_rng(seed)
  for person in np.unique(subjects):
    own = np.flatnonzero(np.asarray(subjects) == person)
    labels[own] = generator.permutation(labels[own])
  return labels


def shift_labels(labels: np.ndarray, subjects: np.ndarray, *, seed: int) -> np.ndarray:
  """The labels of each subject, rotated in time: the last ones come to the front.

  For overlapping windows, which must be in order of time. Windows that overlap have equal
  true labels. Permuting labels one by one would break that, and the accuracy on permuted
  labels would scatter about chance far less than that of a model without any skill.

  How often each label occurs in a subject stays the same. Where equal labels come in runs
  of a few windows, a rotation separates some overlapping windows, and p is a little too
  small: of recordings of pure noise, 6 % have p <= 0.05 with the windows of `demo_study`
  after pictures and 8 % with those after tapping (nearest-mean classifier, 19 rotations).
  """
  labels, generator = np.array(labels), np.random.default_rng(seed)
  for person in np.unique(subjects):
    own = np.flatnonzero(np.asarray(subjects) == person)
    labels[own] = np.roll(labels[own], generator.integers(len(own)))
  return labels
