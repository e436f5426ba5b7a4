"""Trains and tests a job with its true labels, and with permuted ones."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from painformer_jax.assessment.experiment.job import Job, with_permuted_labels
from painformer_jax.assessment.statistics import metrics
from painformer_jax.assessment.statistics.metrics import Predictions
from painformer_jax.core.progress import Log


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Outcome:
  """The result of a job.

  Attributes:
    runs: predictions of all folds' test samples, one `Predictions` for each seed.
    chosen: fold -> the point of the grid that was chosen for it; empty without a grid.
    shuffled: accuracy of each run with permuted labels.
  """

  runs: tuple[Predictions, ...]
  chosen: Mapping[str, Mapping[str, Any]]
  shuffled: tuple[float, ...] = ()


def fit(
  job: Job, train: Callable[[Job], Outcome], *, shuffled: int, protocol: str, log: Log
) -> Outcome:
  """Trains and tests a job.

  Args:
    job: the row and the task.
    train: trains all folds and seeds of a job and predicts their test samples.
    shuffled: number of further runs with permuted labels.
    protocol: that the job's folds are of.
    log: gets lines of progress.
  """
  outcome, accuracies = train(job), []
  for seed in range(shuffled):
    log(f'labels shuffled, run {seed + 1} of {shuffled}')
    chance = train(with_permuted_labels(job, seed=seed, protocol=protocol))
    accuracies.append(float(metrics.accuracy(chance.runs[0].confusion())))
  return dataclasses.replace(outcome, shuffled=tuple(accuracies))
