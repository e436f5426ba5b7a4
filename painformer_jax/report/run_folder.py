"""Reads a run's folder, and checks it before any work starts."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping

import numpy as np

from painformer_jax.checkpoints import read as checkpoints
from painformer_jax.core.errors import InputError
from painformer_jax.data.prepared import PreparedTask
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.training import metrics
from painformer_jax.training.clock import Clock
from painformer_jax.training.config import TrainConfig, from_record
from painformer_jax.training.data import TrainingData, open_training_data
from painformer_jax.training.state import BACKBONE, HEADS, group

REPORT = 'report.json'


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainedRun:
  """A run at its newest whole checkpoint.

  Attributes:
    folder: its workdir.
    config: how it is trained, `data_dir` being where its prepared tasks are now.
    model: shape of the backbone.
    tasks: the prepared tasks by name, in the order of the run's record.
    step: of the checkpoint.
    clock: images and seconds of training up to there.
    backbone: path -> array, parameters and running statistics.
    heads: '<task>/kernel' and '<task>/bias' -> array.
    history: rows of metrics.jsonl.
    recorded: what report.json holds, {} where there is none yet.
  """

  folder: pathlib.Path
  config: TrainConfig
  model: PainFormerConfig
  tasks: Mapping[str, PreparedTask]
  step: int
  clock: Clock
  backbone: Mapping[str, np.ndarray]
  heads: Mapping[str, np.ndarray]
  history: list[dict]
  recorded: dict

  @property
  def finished(self) -> bool:
    return self.step >= self.config.steps

  def weights_sha256(self) -> str:
    """Hex SHA-256 of the backbone, which identifies the checkpoint of a result."""
    digest = hashlib.sha256()
    for path in sorted(self.backbone):
      array = np.ascontiguousarray(self.backbone[path])
      digest.update(f'{path}:{array.dtype}:{array.shape}:'.encode())
      digest.update(array.data.cast('B'))
    return digest.hexdigest()


def open_run(folder: str | pathlib.Path, *, data_dir: str | None = None) -> TrainedRun:
  """Reads a run, and checks that its data is what it was trained on.

  Args:
    folder: workdir of `painformer pretrain`.
    data_dir: where the prepared tasks are now; None for where the run had them.

  Raises:
    InputError: no run, no checkpoint yet, damaged files, or prepared tasks
      that are gone or have changed.
  """
  folder = pathlib.Path(folder)
  config = _read_config(folder)
  model = config.model_config()
  step, arrays = checkpoints.restore_arrays(folder / 'checkpoints')
  backbone = {**group(arrays['params'], BACKBONE), **arrays['stats']}
  expected = functional.abstract_variables(model)
  if {p: a.shape for p, a in backbone.items()} != {p: a.shape for p, a in expected.items()}:
    raise InputError(
      f'the checkpoint of step {step} in {folder} does not have the arrays that '
      'its config.json describes: one of the two comes from elsewhere'
    )
  record = checkpoints.read_record(folder / 'checkpoints', step)
  if data_dir is not None:
    config = dataclasses.replace(config, data_dir=data_dir)
  data = _open_data(folder, config, fingerprint=record['position']['fingerprint'])
  return TrainedRun(
    folder=folder,
    config=data.config,
    model=model,
    tasks=data.tasks,
    step=step,
    clock=Clock(**record['clock']),
    backbone=backbone,
    heads=group(arrays['params'], HEADS),
    history=metrics.read_metrics(folder),
    recorded=read_report(folder),
  )


def read_report(folder: pathlib.Path) -> dict:
  """What a run's report.json holds, {} where there is none.

  Raises:
    InputError: it is damaged.
  """
  path = folder / REPORT
  try:
    report = json.loads(path.read_text()) if path.exists() else {}
    if not isinstance(report, dict):
      raise ValueError('not a JSON object')
    return report
  except (OSError, ValueError) as error:
    raise InputError(f'{path} is damaged ({error}): remove it') from error


def _read_config(folder: pathlib.Path) -> TrainConfig:
  path = folder / 'config.json'
  if not path.is_file():
    raise InputError(
      f'{folder} is not the folder of a run (it has no config.json): give the '
      '--workdir of `painformer pretrain`'
    )
  try:
    return from_record(json.loads(path.read_text()))
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{path} is damaged ({error})') from error


def _open_data(folder: pathlib.Path, config: TrainConfig, *, fingerprint: str) -> TrainingData:
  """Opens the run's data; InputError where it is gone or is not what was trained on."""
  try:
    data = open_training_data(config)
  except InputError as error:
    raise InputError(
      f'the prepared data of {folder} cannot be used: {error} (where it has moved, give --data-dir)'
    ) from error
  if data.fingerprint() != fingerprint:
    raise InputError(
      f'the prepared data in {config.data_dir} is not that which {folder} was trained '
      'on: restore it, or give the right --data-dir'
    )
  return data
