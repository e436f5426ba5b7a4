"""Normalisation: what it does, and that no label or test sample has a say in it."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.assessment.mixers import normalise
from painformer_jax.assessment.mixers.normalise import Standardiser, zscore_by_subject
from painformer_jax.core.errors import InputError


class TestStandardiser:
  def test_training_samples_become_standard(self):
    train = np.random.default_rng(0).normal([5, -3, 1e6], [1, 20, 3], (400, 3))
    scaled = Standardiser.fit(train)(train)
    np.testing.assert_allclose(scaled.mean(0), 0, atol=1e-8)
    np.testing.assert_allclose(scaled.std(0), 1, atol=1e-8)

  def test_others_are_put_on_the_same_scale(self):
    fitted = Standardiser.fit(np.array([[0.0], [2.0]]))
    assert fitted(np.array([[1.0], [5.0]])).tolist() == [[0.0], [4.0]]

  def test_tokens_share_their_feature(self):
    values = np.random.default_rng(0).normal(size=(6, 7, 4))
    np.testing.assert_allclose(Standardiser.fit(values).mean, values.mean((0, 1)))

  def test_constant_and_missing_values(self):
    values = np.array([[1.0, np.nan], [1.0, 4.0], [1.0, 6.0]])
    fitted = Standardiser.fit(values)
    assert fitted.mean.tolist() == [1, 5] and fitted.std.tolist() == [1, 1]

  @pytest.mark.parametrize(
    'given, kept', [(np.float32, np.float32), (np.float64, np.float64), (np.int32, np.float64)]
  )
  def test_types(self, given, kept):
    values = np.arange(6).reshape(3, 2).astype(given)
    assert Standardiser.fit(values)(values).dtype == kept
    assert zscore_by_subject(values, np.array(['a', 'a', 'b'])).dtype == kept


class TestBySubject:
  @settings(deadline=None, max_examples=40)
  @given(st.integers(0, 10_000), st.floats(-50, 50), st.floats(0.1, 10))
  def test_a_subjects_offset_and_gain_do_not_matter(self, seed, offset, gain):
    rng = np.random.default_rng(seed)
    subjects = rng.permutation(np.repeat(['a', 'b', 'c'], 9))
    values = rng.normal(size=(27, 4))
    moved = np.where((subjects == 'b')[:, None], gain * values + offset, values)
    np.testing.assert_allclose(
      zscore_by_subject(moved, subjects), zscore_by_subject(values, subjects), atol=1e-7
    )

  def test_others_have_no_say(self):
    rng = np.random.default_rng(0)
    subjects = np.repeat(['a', 'b'], 8)
    values = rng.normal(size=(16, 3))
    other = values.copy()
    other[8:] = rng.normal(9, 4, (8, 3))
    np.testing.assert_array_equal(
      zscore_by_subject(values, subjects)[:8], zscore_by_subject(other, subjects)[:8]
    )

  def test_wrong_number_of_subjects(self):
    with pytest.raises(InputError, match='3 samples but 2 subjects'):
      zscore_by_subject(np.zeros((3, 2)), np.array(['a', 'b']))

  def test_nothing_here_takes_labels(self):
    functions = [
      f
      for _, f in inspect.getmembers(normalise, callable)
      if getattr(f, '__module__', '') == normalise.__name__
    ]
    functions += [Standardiser.fit, Standardiser.__call__]
    names = {name for f in functions for name in inspect.signature(f).parameters}
    assert names <= {'self', 'mean', 'std', 'values', 'subjects'}
