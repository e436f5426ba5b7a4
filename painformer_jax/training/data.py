"""The prepared data of a run: its tasks, and the mixture that its batches are made of."""

import dataclasses
from collections.abc import Mapping

import jax

from painformer_jax.core.errors import InputError
from painformer_jax.data import mixture, prepared
from painformer_jax.data.loader import Batches
from painformer_jax.training.config import TrainConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingData:
  """What a run reads.

  Attributes:
    config: of the run, with the batch size of every task filled in.
    tasks: the prepared tasks by name, in the order of the config.
    mixture: each task's part of a batch.
  """

  config: TrainConfig
  tasks: Mapping[str, prepared.PreparedTask]
  mixture: tuple[mixture.MixtureTask, ...]

  def fingerprint(self) -> str:
    """Hex SHA-256 of all that decides which images a step reads, see `mixture.fingerprint`."""
    return mixture.fingerprint(self.mixture, **self._source())

  def batches(self, *, start_step: int) -> Batches:
    """This process's part of the training batches, from a step on."""
    return mixture.train_batches(
      self.mixture,
      **self._source(),
      start_step=start_step,
      threads=self.config.threads,
      workers=self.config.workers,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
    )

  def _source(self) -> dict:
    return {
      'data_dir': self.config.data_dir,
      'image_size': self.config.model_config().image_size,
      'seed': self.config.seed,
    }


def open_training_data(config: TrainConfig) -> TrainingData:
  """Opens the tasks of a config and divides the batch among them.

  Raises:
    InputError: a task or its test split is not there, the batch cannot be divided, or a
      task ends its `epochs` before the run does.
  """
  tasks = {name: prepared.open_task(config.data_dir, name) for name in config.tasks}
  for task in tasks.values():
    task.records('test')
  config = config.with_batch_sizes({name: task.sizes['train'] for name, task in tasks.items()})
  parts = tuple(
    mixture.MixtureTask(
      name=name, batch_size=task.batch_size, augment=task.augment, epochs=task.epochs
    )
    for name, task in config.tasks.items()
  )
  end = mixture.steps_available(parts, data_dir=config.data_dir)
  if end is not None and end < config.steps:
    raise InputError(
      f'config.steps is {config.steps}, but the first task to end its epochs does so '
      f'after {end} steps'
    )
  return TrainingData(config=config, tasks=tasks, mixture=parts)
