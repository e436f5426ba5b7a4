"""Results of finished groups on disk, from which an interrupted experiment resumes."""

import dataclasses
import hashlib
import json
import os
import pathlib
import zipfile
from collections.abc import Iterable, Mapping

import numpy as np

from painformer_jax.assessment.folds.batches import FoldRun
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically

# Raised when the same inputs would train to other results.
_VERSION = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunResult:
  """Of one run.

  Attributes:
    logits: [test samples, classes] float32, in the order of `Fold.test`.
    losses: [steps] float32, training loss of every step.
  """

  logits: np.ndarray
  losses: np.ndarray


def experiment_key(
  inputs: np.ndarray, labels: np.ndarray, mask: np.ndarray | None, config: FitConfig, *, steps: int
) -> str:
  """Sixteen hexadecimal digits that change with all that a run's result depends on.

  The run itself (fold and seed) apart: see `run_key`.
  """
  values = dataclasses.asdict(config)
  # Its name when the first caches were written.
  values['final_ratio'] = values.pop('end_learning_rate_ratio')
  del values['seeds'], values['epochs']
  values |= {'steps': steps, 'version': _VERSION, 'shape': inputs.shape, 'masked': mask is not None}
  digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode())
  for array in (inputs, labels) + (() if mask is None else (mask,)):
    digest.update(np.ascontiguousarray(array))
  return digest.hexdigest()[:16]


def run_key(run: FoldRun) -> str:
  """Thirty-two hexadecimal digits of a fold's name and samples, and the seed."""
  digest = hashlib.sha256(json.dumps([run.fold.name, run.seed]).encode())
  for indices in (np.sort(run.fold.train), np.asarray(run.fold.test)):
    digest.update(np.int64(len(indices)).tobytes() + indices.astype(np.int64).tobytes())
  return digest.hexdigest()[:32]


class RunCache:
  """A folder with one .npz a finished group, named after the experiment.

  Args:
    folder: made where it is missing; None for no cache.
    experiment: from `experiment_key`; files of other experiments are let be.

  Raises:
    InputError: the folder cannot be made.
  """

  def __init__(self, folder: str | os.PathLike | None, experiment: str):
    self._folder = None if folder is None else pathlib.Path(folder)
    self._prefix = f'folds-{experiment}'
    if self._folder is not None:
      try:
        self._folder.mkdir(parents=True, exist_ok=True)
      except OSError as error:
        raise InputError(f'{folder} cannot be used as a folder: {error.strerror}') from error

  def load(self, runs: Iterable[FoldRun]) -> dict[FoldRun, RunResult]:
    """Those of the runs that are finished.

    Raises:
      InputError: a file is damaged.
    """
    if self._folder is None:
      return {}
    stored = {}
    for path in sorted(self._folder.glob(f'{self._prefix}-*.npz')):
      try:
        with np.load(path, allow_pickle=False) as file:
          arrays = {name: file[name] for name in ('runs', 'logits', 'tests', 'losses')}
      except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
          f'{path} is damaged: remove it, then run the same command again'
        ) from error
      for key, logits, tests, losses in zip(
        arrays['runs'].tolist(), arrays['logits'], arrays['tests'], arrays['losses'], strict=True
      ):
        stored[key] = RunResult(logits=logits[:tests], losses=losses)
    return {run: stored[run_key(run)] for run in runs if run_key(run) in stored}

  def save(self, results: Mapping[FoldRun, RunResult]) -> None:
    """Writes a finished group.

    Raises:
      InputError: it cannot be written, such as on a full disk.
    """
    if self._folder is None:
      return
    keys = [run_key(run) for run in results]
    tests = [len(result.logits) for result in results.values()]
    longest = max(tests)
    logits = np.stack(
      [np.pad(r.logits, ((0, longest - len(r.logits)), (0, 0))) for r in results.values()]
    )
    losses = np.stack([r.losses for r in results.values()])
    write_atomically(
      self._folder / f'{self._prefix}-{keys[0]}.npz',
      lambda file: np.savez(
        file, runs=np.array(keys), logits=logits, tests=np.array(tests), losses=losses
      ),
    )
