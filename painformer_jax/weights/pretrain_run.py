"""Reads the backbone of a pre-training run, with one of its heads, from the run's folder."""

import dataclasses
import json
import os
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from painformer_jax.checkpoints.read import restore_arrays
from painformer_jax.core.errors import InputError, did_you_mean
from painformer_jax.models import functional, heads, registry
from painformer_jax.weights.folder import Weights, WeightsSource

_BACKBONE, _HEADS = 'backbone/', 'heads/'


def is_run(folder: str | os.PathLike) -> bool:
  """Whether a folder is that of a pre-training run."""
  folder = pathlib.Path(folder)
  return os.path.isfile(folder / 'config.json') and os.path.isdir(folder / 'checkpoints')


def load_run(folder: str | os.PathLike, *, head: str | None = None) -> Weights:
  """The backbone of the run's newest sound checkpoint.

  Args:
    folder: of the run.
    head: name of the task whose head is the model's; None for no head.

  Raises:
    InputError: there is no checkpoint yet, config.json or every checkpoint is damaged, or the
      run has no such task.
  """
  folder = pathlib.Path(folder)
  try:
    shape = json.loads((folder / 'config.json').read_text())['model']
    name = shape.pop('name')
  except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
    raise InputError(f'{folder / "config.json"} is damaged ({error})') from error
  try:
    config = registry.make_config(name, **shape)
  except InputError as error:
    raise InputError(f'{folder / "config.json"} is damaged ({error})') from error
  step, arrays = restore_arrays(folder / 'checkpoints')
  variables = {
    path.removeprefix(_BACKBONE): array
    for path, array in arrays['params'].items()
    if path.startswith(_BACKBONE)
  } | arrays['stats']
  expected = functional.abstract_variables(config)
  if {p: a.shape for p, a in variables.items()} != {p: a.shape for p, a in expected.items()}:
    raise InputError(
      f'the checkpoint of step {step} in {folder} does not have the arrays '
      'that its config.json describes'
    )
  if head is not None:
    variables |= _head(folder, arrays['params'], head)
    config = dataclasses.replace(config, num_classes=len(variables['head/bias']))
  return Weights(
    variables=variables,
    config=config,
    source=WeightsSource(
      name=f'{folder.name} step {step}', model=registry.name_of(config), head=head or ''
    ),
  )


def tasks(params: Iterable[str]) -> list[str]:
  """Names of the tasks that have a head, from the paths of a run's parameters."""
  return sorted(
    {path.removeprefix(_HEADS).rpartition('/')[0] for path in params if path.startswith(_HEADS)}
  )


def _head(folder: pathlib.Path, params: Mapping[str, np.ndarray], task: str) -> dict:
  """A task's head, without the columns that only fill it up."""
  known = tasks(params)
  if task not in known:
    raise InputError(
      f'{folder} has no head {task!r}{did_you_mean(task, known)} (known: {", ".join(known)})'
    )
  kernel, bias = (params[f'{_HEADS}{task}/{name}'] for name in ('kernel', 'bias'))
  classes = heads.used_columns(kernel)
  return {'head/kernel': kernel[:, :classes], 'head/bias': bias[:classes]}
