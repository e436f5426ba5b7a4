"""Reads the experiments of a finished run back from its folder."""

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from painformer_jax.assessment.results.summary import Experiment
from painformer_jax.assessment.statistics.metrics import Predictions
from painformer_jax.core.delimited import TableRow, read_rows
from painformer_jax.core.errors import InputError

_COLUMNS = ('experiment', 'run', 'sample', 'subject', 'label', 'probabilities')


def read_experiments(folder: str | os.PathLike) -> list[Experiment]:
  """Reads what `write.write_results` wrote.

  Args:
    folder: of a finished run.

  Raises:
    InputError: the folder holds no results, or they are damaged.
  """
  folder = Path(folder)
  for name in ('results.json', 'predictions.csv'):
    if not (folder / name).is_file():
      raise InputError(f'{folder} holds no finished assessment (no {name})')
  try:
    records = json.loads((folder / 'results.json').read_text())['experiments']
    rows = list(read_rows(folder / 'predictions.csv', required=_COLUMNS, delimiter=','))
    return [
      _experiment(record, [row for row in rows if row['experiment'] == record['name']])
      for record in records
    ]
  except (OSError, ValueError, KeyError, TypeError, InputError) as error:
    raise InputError(f'the results in {folder} are damaged ({error})') from error


def _experiment(record, rows: Iterable[TableRow]) -> Experiment:
  classes, by_run = tuple(record['classes']), {}
  for row in rows:
    by_run.setdefault(row['run'], []).append(row)
  runs = tuple(
    Predictions(
      sample=np.array([row['sample'] for row in own]),
      subject=np.array([row['subject'] for row in own]),
      label=np.array([classes.index(row['label']) for row in own]),
      probability=np.array([row['probabilities'].split() for row in own], np.float64),
    )
    for own in by_run.values()
  )
  return Experiment(
    runs=runs,
    classes=classes,
    settings=record['settings'],
    notes=tuple(record['notes']),
    **{
      name: record[name]
      for name in ('name', 'dataset', 'task', 'modality', 'method', 'protocol', 'unit')
    },
  )
