"""Scores and calibration beside scikit-learn's; intervals beside their promises."""

import itertools

import numpy as np
import pytest
import scipy.special
import scipy.stats
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.assessment.folds.batches import Fold
from painformer_jax.assessment.folds.protocols import leave_one_subject_out
from painformer_jax.assessment.statistics import intervals, metrics
from painformer_jax.assessment.statistics.metrics import Predictions
from painformer_jax.core.errors import InputError


def predictions(label, probability, subject=None):
  n = len(label)
  return Predictions(
    sample=np.array([f's{i}' for i in range(n)]),
    label=label,
    probability=probability,
    subject=np.array(['a'] * n if subject is None else subject),
  )


def random_predictions(seed, *, n=60, classes=3, subjects=5):
  rng = np.random.default_rng(seed)
  return predictions(
    rng.integers(0, classes, n),
    rng.dirichlet(np.ones(classes), n),
    rng.integers(0, subjects, n).astype(str),
  )


def tables(rng, accuracies, *, per_subject=40):
  """Two balanced classes, confusion by subject, [subjects, 2, 2]."""
  right = rng.binomial(per_subject // 2, np.asarray(accuracies)[:, None], (len(accuracies), 2))
  wrong = per_subject // 2 - right
  return np.stack(
    [np.stack([right[:, 0], wrong[:, 0]], -1), np.stack([wrong[:, 1], right[:, 1]], -1)], -2
  )


class TestScores:
  @settings(deadline=None, max_examples=60)
  @given(st.integers(0, 10**6), st.integers(2, 6), st.integers(1, 40))
  @pytest.mark.filterwarnings('ignore::UserWarning')
  def test_as_scikit_learn(self, seed, classes, n):
    rng = np.random.default_rng(seed)
    true, said = rng.integers(0, classes, (2, n))
    counts = metrics.confusion(true, said, classes=classes)
    np.testing.assert_array_equal(
      counts, sklearn.metrics.confusion_matrix(true, said, labels=range(classes))
    )
    np.testing.assert_allclose(
      [
        metrics.accuracy(counts),
        metrics.macro_accuracy(counts),
        metrics.macro_precision(counts),
        metrics.macro_f1(counts),
      ],
      [
        sklearn.metrics.accuracy_score(true, said),
        sklearn.metrics.balanced_accuracy_score(true, said),
        sklearn.metrics.precision_score(true, said, average='macro', zero_division=0),
        sklearn.metrics.f1_score(true, said, average='macro', zero_division=0),
      ],
    )

  def test_a_rare_class_counts_as_much(self):
    counts = np.array([[90, 0], [10, 0]])
    assert metrics.accuracy(counts) == 0.9
    assert metrics.macro_accuracy(counts) == 0.5

  def test_many_matrices_at_once(self):
    counts = np.random.default_rng(0).integers(0, 9, (4, 5, 3, 3))
    for score in metrics.SCORES.values():
      each = [[float(score(m)) for m in row] for row in counts]
      np.testing.assert_allclose(score(counts), each)

  def test_nothing_to_count(self):
    for score in metrics.SCORES.values():
      assert np.isnan(score(np.zeros((2, 2), int)))


class TestPredictions:
  def test_by_subject_adds_up(self):
    p = random_predictions(0)
    own = p.confusion_by_subject()
    assert own.shape == (5, 3, 3) and p.subjects[0] == p.subject[0]
    np.testing.assert_array_equal(own.sum(0), p.confusion())
    third = p.subject == p.subjects[2]
    assert np.trace(own[2]) == (p.predicted == p.label)[third].sum()

  @pytest.mark.parametrize(
    'label, probability, message',
    [
      ([0, 2], [[1, 0], [0, 1]], 'labels must be 0 to 1'),
      ([0, -1], [[1, 0], [0, 1]], 'labels must be 0 to 1; leave samples without'),
      ([0, 1], [[1, 0]], 'as many samples'),
      ([], np.zeros((0, 2)), 'one at least'),
      ([0, 1], [[1, 1], [0, 1]], 'add up to 1'),
      ([0], [[np.nan, 1]], '0 or more'),
      ([0, 1], [[1.5, -0.5], [0, 1]], '0 or more'),
    ],
  )
  def test_nonsense(self, label, probability, message):
    with pytest.raises(InputError, match=message):
      predictions(np.array(label, int), np.array(probability))

  def test_twice(self):
    with pytest.raises(InputError, match='x is predicted twice'):
      Predictions(sample=['x', 'x'], subject=['a', 'a'], label=[0, 1], probability=[[1, 0], [0, 1]])


class TestGather:
  def test_back_in_the_order_of_the_samples(self):
    rng = np.random.default_rng(0)
    subject = np.array(list('abcabcabd'))
    label = rng.integers(0, 3, 9)
    truth = rng.normal(size=(2, 9, 3)).astype(np.float32)
    folds = leave_one_subject_out(subject, exclude=('d',))
    found = metrics.gather(
      folds,
      [truth[:, f.test] for f in folds],
      sample=np.arange(9).astype(str),
      subject=subject,
      label=label,
    )
    assert len(found) == 2
    for seed, p in enumerate(found):
      assert p.sample.tolist() == list('01234567')
      assert p.subject.tolist() == subject[:8].tolist()
      np.testing.assert_array_equal(p.label, label[:8])
      np.testing.assert_allclose(
        p.probability, scipy.special.softmax(truth[seed, :8].astype(float), -1)
      )

  def test_large_logits(self):
    fold = Fold(name='a', train=np.array([0]), test=np.array([1]))
    (found,) = metrics.gather(
      [fold], [np.array([[[1e4, -1e4]]])], sample=['x', 'y'], subject=['x', 'y'], label=[0, 1]
    )
    assert found.probability.tolist() == [[1, 0]]

  def test_tested_twice(self):
    folds = [Fold(name=n, train=np.array([0]), test=np.array([1])) for n in 'ab']
    with pytest.raises(InputError, match='y is predicted twice'):
      metrics.gather(
        folds, [np.zeros((1, 1, 2))] * 2, sample=['x', 'y'], subject=['x', 'y'], label=[0, 1]
      )


class TestCalibration:
  @settings(deadline=None, max_examples=30)
  @given(st.integers(0, 10**6))
  def test_as_written_out_and_as_scikit_learn(self, seed):
    p = random_predictions(seed, n=80)
    found = metrics.calibration(p.label, p.probability)
    confidence, right = p.probability.max(1), p.predicted == p.label
    expected = 0.0
    for k in range(10):
      inside = (confidence > k / 10) & (confidence <= (k + 1) / 10)
      assert found.count[k] == inside.sum()
      if inside.any():
        expected += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    assert found.error == pytest.approx(expected)
    truth = np.eye(3)[p.label]
    assert found.brier == pytest.approx(np.mean(np.sum((truth - p.probability) ** 2, 1)))
    assert found.log_loss == pytest.approx(
      sklearn.metrics.log_loss(p.label, p.probability, labels=[0, 1, 2])
    )

  def test_binary_brier_is_twice_that_of_scikit_learn(self):
    p = random_predictions(3, classes=2)
    assert metrics.calibration(p.label, p.probability).brier == pytest.approx(
      2 * sklearn.metrics.brier_score_loss(p.label, p.probability[:, 1])
    )

  def test_perfect_and_overconfident(self):
    label = np.array([0, 1] * 50)
    sure = np.eye(2)[np.zeros(100, int)]
    found = metrics.calibration(label, sure)
    assert found.error == pytest.approx(0.5) and found.brier == pytest.approx(1.0)
    assert np.isfinite(found.log_loss)
    found = metrics.calibration(label, np.eye(2)[label])
    assert found.error == 0 and found.brier == 0 and found.log_loss == 0
    assert found.record()['confidence'][:9] == [None] * 9

  def test_confidence_on_an_edge_is_of_the_lower_bin(self):
    found = metrics.calibration(np.array([0, 1]), np.array([[0.5, 0.5], [0.0, 1.0]]))
    assert np.flatnonzero(found.count).tolist() == [4, 9]

  def test_honest_probabilities(self):
    rng = np.random.default_rng(0)
    p = rng.uniform(0, 1, 50_000)
    label = (rng.uniform(size=p.size) < p).astype(int)
    found = metrics.calibration(label, np.stack([1 - p, p], 1))
    assert found.error < 0.01


class TestBootstrap:
  def test_as_one_resample_after_the_other(self):
    counts = random_predictions(1, n=200, subjects=8).confusion_by_subject()
    for score in metrics.SCORES.values():
      found = intervals.bootstrap(counts, score, resamples=4000)
      rng = np.random.default_rng(7)
      values = [float(score(counts[rng.integers(0, 8, 8)].sum(0))) for _ in range(4000)]
      low, high = np.quantile(values, [0.025, 0.975])
      assert found.estimate == pytest.approx(float(score(counts.sum(0))))
      assert (found.low, found.high) == pytest.approx((low, high), abs=0.015)
      assert found.subjects == 8

  def test_equal_subjects_leave_no_doubt(self):
    counts = np.tile([[15, 5], [5, 15]], (12, 1, 1))
    found = intervals.bootstrap(counts)
    assert found.low == found.estimate == found.high == 0.75

  def test_covers_the_truth_as_often_as_it_says(self):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
      accuracies = np.clip(rng.normal(0.7, 0.1, 40), 0, 1)
      found = intervals.bootstrap(tables(rng, accuracies), metrics.accuracy, resamples=400)
      held += found.low <= 0.7 <= found.high
    assert 0.90 <= held / 300 <= 0.98

  def test_clips_are_not_the_draw(self):
    # Subjects that differ widely: an interval over clips would be far too short.
    rng = np.random.default_rng(0)
    counts = tables(rng, [0.5] * 10 + [1.0] * 10)
    found = intervals.bootstrap(counts, metrics.accuracy)
    over_clips = 2 * 1.96 * np.sqrt(0.75 * 0.25 / 800)
    assert found.high - found.low > 3 * over_clips

  def test_mean_over_seeds(self):
    a, b = (random_predictions(s, subjects=5).confusion_by_subject() for s in (1, 2))
    found = intervals.bootstrap(np.stack([a, b]), metrics.macro_f1)
    assert found.estimate == pytest.approx(
      (metrics.macro_f1(a.sum(0)) + metrics.macro_f1(b.sum(0))) / 2
    )

  def test_levels_and_seeds(self):
    counts = random_predictions(1).confusion_by_subject()
    wide, narrow = (intervals.bootstrap(counts, level=level) for level in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high
    assert intervals.bootstrap(counts) == intervals.bootstrap(counts)
    assert intervals.bootstrap(counts) != intervals.bootstrap(counts, seed=1)
    with pytest.raises(InputError, match='between 0 and 1, not 95'):
      intervals.bootstrap(counts, level=95)

  def test_one_subject(self):
    with pytest.raises(InputError, match='two subjects or more'):
      intervals.bootstrap(np.ones((1, 2, 2)))


class TestComparison:
  def test_a_clear_difference_and_its_sign(self):
    rng = np.random.default_rng(0)
    base = rng.uniform(0.5, 0.7, 30)
    worse, better = tables(rng, base), tables(rng, base + 0.15)
    found = intervals.compare(worse, better)
    assert 0.1 < found.difference.low < found.difference.high < 0.2
    assert max(found.p_bootstrap, found.p_sign_flip, found.p_wilcoxon) < 0.001
    assert found.better > found.worse and found.better + found.equal + found.worse == 30
    back = intervals.compare(better, worse)
    assert back.difference.estimate == pytest.approx(-found.difference.estimate)
    assert (back.better, back.worse) == (found.worse, found.better)

  def test_pairs_see_what_separate_intervals_do_not(self):
    rng = np.random.default_rng(0)
    base = rng.uniform(0.3, 0.9, 40)
    a = tables(rng, base, per_subject=400)
    b = tables(rng, np.minimum(base + 0.05, 1), per_subject=400)
    one, two = intervals.bootstrap(a), intervals.bootstrap(b)
    assert one.high > two.low
    assert intervals.compare(a, b).p_bootstrap < 0.001

  def test_the_same_run_twice(self):
    a = tables(np.random.default_rng(0), [0.6] * 9)
    found = intervals.compare(a, a)
    assert found.difference.estimate == found.difference.low == found.difference.high == 0
    assert found.p_bootstrap == found.p_sign_flip == found.p_wilcoxon == 1
    assert found.equal == 9

  def test_no_difference_is_seldom_found(self):
    rng = np.random.default_rng(0)
    small = np.array(
      [
        [c.p_bootstrap < 0.05, c.p_sign_flip < 0.05, c.p_wilcoxon < 0.05]
        for _ in range(300)
        for c in [
          intervals.compare(tables(rng, [0.7] * 30), tables(rng, [0.7] * 30), resamples=400)
        ]
      ]
    )
    assert (small.mean(0) < 0.09).all() and (small.mean(0) > 0.01).all()

  def test_other_subjects(self):
    with pytest.raises(InputError, match='the same subjects and classes only'):
      intervals.compare(np.ones((3, 2, 2)), np.ones((4, 2, 2)))

  @pytest.mark.parametrize('n', [3, 8])
  def test_sign_flips_written_out(self, n):
    values = np.random.default_rng(n).normal(0.5, 1, n)
    sums = [abs(np.dot(signs, values)) for signs in itertools.product([1, -1], repeat=n)]
    expected = np.mean(np.array(sums) >= abs(values.sum()) - 1e-9)
    assert intervals.sign_flip(np.append(values, 0.0)) == pytest.approx(expected)

  def test_random_flips_as_scipy(self):
    values = np.random.default_rng(1).normal(0.3, 1, 30)
    expected = scipy.stats.permutation_test(
      (values,),
      lambda x, axis: x.mean(axis),
      permutation_type='samples',
      vectorized=True,
      n_resamples=20_000,
      rng=0,
    ).pvalue
    assert intervals.sign_flip(values, flips=20_000) == pytest.approx(expected, abs=0.012)
