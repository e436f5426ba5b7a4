"""Reads the backbone of a pre-training run from the run's folder."""

import json
import os
import pathlib

from painformer_jax.checkpoints.read import restore_arrays
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional, registry
from painformer_jax.weights.folder import Weights, WeightsSource

_BACKBONE = 'backbone/'


def is_run(folder: str | os.PathLike) -> bool:
  """Whether a folder is that of a pre-training run."""
  folder = pathlib.Path(folder)
  return os.path.isfile(folder / 'config.json') and os.path.isdir(folder / 'checkpoints')


def load_run(folder: str | os.PathLike) -> Weights:
  """The backbone of the run's newest sound checkpoint, without the tasks' heads.

  Raises:
    InputError: there is no checkpoint yet, or config.json or every checkpoint is damaged.
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
  return Weights(
    variables=variables,
    config=config,
    source=WeightsSource(name=f'{folder.name} step {step}', model=name),
  )
