"""How far a run is: begun at step 0, or resumed from its newest checkpoint."""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from painformer_jax.checkpoints.store import CheckpointStore
from painformer_jax.core.errors import InputError
from painformer_jax.training.clock import Clock
from painformer_jax.training.metrics import Window, log
from painformer_jax.training.setup import Setup
from painformer_jax.training.state import TrainState


@dataclasses.dataclass(kw_only=True)
class Progress:
  """What a checkpoint holds.

  Attributes:
    state: parameters, optimizer state and key.
    step: how many steps are done.
    clock: time and images so far.
    window: metrics since the last row of metrics.jsonl.
    evaluation_due: whether an evaluation at this step was interrupted.
  """

  state: TrainState
  step: int
  clock: Clock
  window: Window
  evaluation_due: bool

  def record(self, *, devices: int, fingerprint: str) -> dict[str, Any]:
    """What of it goes beside the arrays, as JSON; `start_or_resume` reads it.

    Raises:
      NonFiniteLoss: a loss of a step so far is not finite.
    """
    window = self.window.record()  # Nothing is saved before it is known to be finite.
    return {
      'clock': self.clock.record(),
      'window': window,
      'skipped': self.window.skipped,
      'evaluation_due': self.evaluation_due,
      'devices': devices,
      'position': {'step': self.step, 'fingerprint': fingerprint},
    }


def start_or_resume(
  store: CheckpointStore,
  setup: Setup,
  *,
  workdir: pathlib.Path,
  fingerprint: str,
  backbone: Mapping[str, jax.Array] | None,
) -> Progress:
  """A new run's progress, or that of the newest checkpoint.

  Args:
    store: of the run's checkpoints.
    setup: of the run.
    workdir: of the run, for messages.
    fingerprint: of the data, see `TrainingData.fingerprint`.
    backbone: arrays that a new run starts from; None for fresh ones.

  Raises:
    InputError: the prepared data are not those of the checkpoint.
  """
  config, devices = setup.config, setup.mesh.size
  restored = store.restore_newest(setup.abstract)
  if restored is None:
    return Progress(
      state=setup.make_state(backbone),
      step=0,
      clock=Clock(),
      window=Window(most_skipped=config.max_skipped),
      evaluation_due=False,
    )
  step, record = restored.step, restored.record
  if record['position'] != {'step': step, 'fingerprint': fingerprint}:
    raise InputError(
      f'the prepared data in {config.data_dir} changed since {workdir} was '
      'started: restore it, or take another --workdir'
    )
  log(f'resumes from step {step} of {workdir}')
  if record.get('devices', devices) != devices:
    log(
      f'on {devices} device(s) now, {record["devices"]} before: the order of samples '
      'stays, the last bits of sums may not'
    )
  return Progress(
    state=restored.state,
    step=step,
    clock=Clock(**record['clock']),
    window=Window(
      record['window'], most_skipped=config.max_skipped, skipped=record.get('skipped', 0)
    ),
    evaluation_due=record['evaluation_due'],
  )
