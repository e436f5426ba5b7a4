"""Classes and sizes of a config's tasks, from wherever they are known."""

import pathlib
from collections.abc import Sequence

from painformer_jax.core.errors import InputError
from painformer_jax.data import corpus, prepared
from painformer_jax.training.config import TrainConfig


def task_sizes(
  config: TrainConfig, *, explicit: Sequence[str] = ()
) -> tuple[dict[str, int], dict[str, int]]:
  """Numbers of classes and of training images of every task.

  Args:
    config: names the tasks and the folder of prepared ones.
    explicit: 'TASK=CLASSES' entries; they come before prepared tasks, and those
      before the table of the corpus.

  Returns:
    (classes, images) by task. Images of a task known from `explicit` alone are 1.

  Raises:
    InputError: a task that is nowhere, an entry for no task, a damaged folder, or
      shares by size and a task whose size is not known.
  """
  given = {}
  for entry in explicit:
    name, _, count = entry.partition('=')
    if name not in config.tasks or not count.isdecimal() or int(count) < 1:
      raise InputError(
        f'--classes {entry}: write it as TASK=N with one of the tasks {", ".join(config.tasks)}'
      )
    given[name] = int(count)
  there = (
    set(prepared.list_tasks(config.data_dir)) if pathlib.Path(config.data_dir).is_dir() else set()
  )
  published = {task.name: task for task in corpus.CORPUS}
  classes, images = {}, {}
  for name in config.tasks:
    if name in there:
      task = prepared.open_task(config.data_dir, name)
      classes[name], images[name] = len(task.classes), task.sizes['train']
    elif name in published:
      classes[name], images[name] = published[name].classes, published[name].samples
    elif name in given:
      images[name] = 1
      if config.batch_size and config.shares in ('proportional', 'temperature'):
        raise InputError(
          f"task {name}: config.shares is '{config.shares}', but its size is not known: "
          'prepare it, or set its batch_size'
        )
    else:
      raise InputError(
        f'task {name} is neither prepared in {config.data_dir} nor of the corpus: give '
        f'--classes {name}=N'
      )
  return classes | given, images
