"""Confidence intervals and paired tests of scores, with subjects as the unit.

The clips of one subject are not independent, so whole subjects are resampled. Runs are
compared on the same subjects, in pairs.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats

from painformer_jax.assessment.statistics import metrics
from painformer_jax.core.errors import InputError

Score = Callable[[np.ndarray], np.ndarray]
RESAMPLES = 10_000
# Up to this many differing pairs all sign flips are tried, 2^14 of them.
_EXACT = 14


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
  """A score and its confidence interval.

  Attributes:
    estimate: the score.
    low, high: ends of the interval.
    level: confidence level, such as 0.95.
    subjects: number of subjects that were resampled.
  """

  estimate: float
  low: float
  high: float
  level: float
  subjects: int

  def record(self) -> dict[str, Any]:
    """As results.json holds it."""
    return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
  """A comparison of two runs on the same subjects.

  Attributes:
    difference: of the score, second minus first, with its interval.
    p_bootstrap: two-sided p of no difference, from the same resamples.
    p_sign_flip: two-sided p of the mean difference of the subjects' accuracies, by a sign
      flip test (exact up to 14 differing subjects).
    p_wilcoxon: two-sided p of the same differences by Wilcoxon's signed-rank test; 1 where
      none differs.
    better, equal, worse: number of subjects whose accuracy is higher, equal, lower in the
      second run.
  """

  difference: Interval
  p_bootstrap: float
  p_sign_flip: float
  p_wilcoxon: float
  better: int
  equal: int
  worse: int

  def record(self) -> dict[str, Any]:
    """As results.json holds it."""
    return dataclasses.asdict(self)


def bootstrap(
  counts: np.ndarray,
  score: Score = metrics.macro_accuracy,
  *,
  resamples: int = RESAMPLES,
  level: float = 0.95,
  seed: int = 0,
) -> Interval:
  """A score with its percentile bootstrap interval over subjects.

  Args:
    counts: [subjects, classes, classes] or [seeds, subjects, classes, classes], confusion
      matrices by subject. With several seeds, the score is the mean over them.
    score: from counts [..., classes, classes] to [...].
    resamples: number of bootstrap resamples.
    level: confidence level.
    seed: of the random resamples.

  Raises:
    InputError: there are fewer than two subjects, or the level is outside (0, 1).
  """
  counts = _by_seed(counts)
  values = _resampled(counts, score, _draws(counts.shape[1], resamples, seed))
  return _interval(float(score(counts.sum(1)).mean()), values, level, counts.shape[1])


def compare(
  first: np.ndarray,
  second: np.ndarray,
  score: Score = metrics.macro_accuracy,
  *,
  resamples: int = RESAMPLES,
  level: float = 0.95,
  seed: int = 0,
) -> Comparison:
  """Whether the second run is better than the first on the same subjects.

  Args:
    first, second: as for `bootstrap`, the same subjects in the same order.
    score: whose difference is estimated.
    resamples, level, seed: as for `bootstrap`.

  Raises:
    InputError: the numbers of subjects differ, or are below two.
  """
  first, second = _by_seed(first), _by_seed(second)
  if first.shape[1:] != second.shape[1:]:
    raise InputError(
      'runs can be compared on the same subjects and classes only: '
      f'{list(first.shape[1:])} against {list(second.shape[1:])}'
    )
  draws = _draws(first.shape[1], resamples, seed)
  values = _resampled(second, score, draws) - _resampled(first, score, draws)
  estimate = float(score(second.sum(1)).mean() - score(first.sum(1)).mean())
  # One is added so that p is small, not zero, where no resample is on the other side.
  tail = min((values <= 0).sum(), (values >= 0).sum())
  own = np.nan_to_num(metrics.accuracy(second).mean(0) - metrics.accuracy(first).mean(0))
  # Equal accuracies may differ in the last bit.
  own = np.where(np.abs(own) < 1e-12, 0, own)
  return Comparison(
    difference=_interval(estimate, values, level, first.shape[1]),
    p_bootstrap=float(min(1, 2 * (tail + 1) / (resamples + 1))),
    p_sign_flip=sign_flip(own, flips=resamples, seed=seed),
    p_wilcoxon=float(scipy.stats.wilcoxon(own).pvalue) if np.any(own) else 1.0,
    better=int((own > 0).sum()),
    equal=int((own == 0).sum()),
    worse=int((own < 0).sum()),
  )


def sign_flip(differences: np.ndarray, *, flips: int = RESAMPLES, seed: int = 0) -> float:
  """Two-sided p of the mean of paired differences, by randomly flipping their signs.

  Args:
    differences: float [n]; zeros do not matter.
    flips: number of random flips, where there are too many to try all.
    seed: of the random flips.
  """
  values = np.asarray(differences, np.float64)
  values = values[values != 0]
  if not values.size:
    return 1.0
  limit = abs(values.sum()) * (1 - 1e-12)
  if values.size <= _EXACT:
    signs = 1 - 2 * ((np.arange(2**values.size)[:, None] >> np.arange(values.size)) & 1)
    return float((np.abs(signs @ values) >= limit).mean())
  signs = 1 - 2 * np.random.default_rng(seed).integers(0, 2, (flips, values.size))
  return float(((np.abs(signs @ values) >= limit).sum() + 1) / (flips + 1))


def shuffle_test(score: float, shuffled: np.ndarray) -> float:
  """One-sided p of a score, by comparison with runs on permuted labels.

  Args:
    score: of the run with the true labels.
    shuffled: float [runs], scores with labels from `permuted_labels`, one seed each; at
      least 19 runs are needed for a p of 0.05.
  """
  shuffled = np.asarray(shuffled, np.float64)
  return float((1 + (shuffled >= score).sum()) / (1 + shuffled.size))


def _by_seed(counts: np.ndarray) -> np.ndarray:
  """[seeds, subjects, classes, classes], float64."""
  counts = np.asarray(counts, np.float64)
  counts = counts[None] if counts.ndim == 3 else counts
  if counts.ndim != 4 or counts.shape[1] < 2:
    raise InputError(
      'an interval over subjects needs confusion matrices of two subjects '
      f'or more, not {list(counts.shape)}'
    )
  return counts


def _draws(subjects: int, resamples: int, seed: int) -> np.ndarray:
  """How often each resample contains each subject, float64 [resamples, subjects]."""
  return (
    np.random.default_rng(seed)
    .multinomial(subjects, np.full(subjects, 1 / subjects), size=resamples)
    .astype(np.float64)
  )


def _resampled(counts: np.ndarray, score: Score, draws: np.ndarray) -> np.ndarray:
  """The score of each resample, [resamples], mean over seeds."""
  seeds, subjects, classes, _ = counts.shape
  flat = counts.reshape(seeds, subjects, classes * classes)
  return score((draws @ flat).reshape(seeds, -1, classes, classes)).mean(0)


def _interval(estimate: float, values: np.ndarray, level: float, subjects: int) -> Interval:
  if not 0 < level < 1:
    raise InputError(f'the level of an interval lies between 0 and 1, not {level}')
  low, high = np.nanquantile(values, [(1 - level) / 2, (1 + level) / 2])
  return Interval(
    estimate=estimate, low=float(low), high=float(high), level=level, subjects=subjects
  )
