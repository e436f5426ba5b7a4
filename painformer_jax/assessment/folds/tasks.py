"""The classification tasks, and which datasets have them."""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """A classification task: which levels of a study are which class.

  Attributes:
    name: of the task.
    classes: names of the classes.
    class_of: level of a sample -> class; samples of other levels are left out.
  """

  name: str
  classes: tuple[str, ...]
  class_of: Mapping[int, int]

  def labels(self, levels: np.ndarray) -> np.ndarray:
    """The class of each sample, int64 [n], -1 for none, from its level, int [n]."""
    return np.array([self.class_of.get(int(level), -1) for level in levels], np.int64)


_BIOVID = ('BL1', 'PA1', 'PA2', 'PA3', 'PA4')
TASKS: Mapping[str, Task] = {
  task.name: task
  for task in (
    *(
      Task(name=f'BL1-{_BIOVID[k]}', classes=('no pain', _BIOVID[k]), class_of={0: 0, k: 1})
      for k in (1, 2, 3, 4)
    ),
    Task(name='5-class', classes=_BIOVID, class_of={k: k for k in range(5)}),
    Task(name='3-class', classes=('no pain', 'low', 'high'), class_of={k: k for k in range(3)}),
    # AI4Pain 2026: where the stimulus is applied.
    Task(name='3-site', classes=('no pain', 'arm', 'hand'), class_of={k: k for k in range(3)}),
    # The demo corpus, whose levels are `demo_study.LEVELS`.
    Task(name='stimulus-rest', classes=('rest', 'stimulus'), class_of={0: 0, 1: 1}),
    Task(name='tapping-rest', classes=('rest', 'tapping'), class_of={2: 0, 3: 1}),
  )
}


# Dataset of a config -> the tasks that its levels have a meaning for.
_BIOVID_TASKS = (*(f'BL1-{level}' for level in _BIOVID[1:]), '5-class')
DATASET_TASKS: Mapping[str, tuple[str, ...]] = {
  'biovid': _BIOVID_TASKS,
  'planted': _BIOVID_TASKS,
  'ai4pain-2024': ('3-class',),
  'ai4pain-2025': ('3-class',),
  'ai4pain-2026': ('3-site',),
  'demo': ('stimulus-rest', 'tapping-rest'),
}


def check_tasks(dataset: str, tasks: Sequence[str]) -> None:
  """Checks that a dataset has the tasks: another's levels would get wrong class names.

  Args:
    dataset: of `DATASET_TASKS`.
    tasks: names.

  Raises:
    InputError: the dataset lacks one.
  """
  known = DATASET_TASKS[dataset]
  wrong = [task for task in tasks if task not in known]
  if wrong:
    raise InputError(
      f'config.tasks: {dataset} has no task {", ".join(wrong)}, only {", ".join(known)}'
    )
