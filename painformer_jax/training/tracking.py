"""Weights & Biases: a mirror of a run's rows, where its configuration asks for one.

The run's folder remembers by which id W&B knows it (wandb.json), so that a restart
continues the same W&B run. Every row is sent with its step as a figure of its own,
'step', the axis of all charts: W&B's own count of steps takes nothing that is older than
the newest. Rows that an earlier start of the run has sent, and that are made again after
a kill, are not sent again: they would say the same, but for speed and times, since a
resumed run repeats itself bit by bit.

How W&B is reached is its own affair: `wandb login`; or WANDB_MODE=offline, to write into
the run's folder without a network, and `wandb sync` there later, which joins what all
starts of a run have written.
"""

import json
import pathlib
import uuid
from collections.abc import Mapping

from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.core.files import write_json
from painformer_jax.core.progress import log
from painformer_jax.training.metrics import EVALUATED, TRAINED, kind

RECORD = 'wandb.json'


class Tracker:
  """A W&B run, continued if there is one. A `with` block ends it.

  Args:
    project: of W&B, 'name' or 'entity/name'.
    workdir: of the run; gets wandb.json and W&B's own files in wandb/.
    config: of the run, as JSON holds it.
    sent: kind of row -> step of its last one, as an earlier start left metrics.jsonl.

  Raises:
    InputError: wandb is not installed, or does not start, such as without a login.
  """

  def __init__(
    self, project: str, workdir: pathlib.Path, *, config: Mapping, sent: Mapping[str, int]
  ):
    wandb = import_extra('wandb', extra='wandb')
    entity, _, name = project.rpartition('/')
    record = _read(workdir / RECORD, project)
    if record is None:
      record = {'project': project, 'id': uuid.uuid4().hex[:8], TRAINED: 0, EVALUATED: 0}
    else:
      record |= {which: max(record[which], step) for which, step in sent.items()}
    try:
      self._run = wandb.init(
        project=name,
        entity=entity or None,
        id=record['id'],
        resume='allow',
        name=workdir.absolute().name,
        dir=str(workdir),
        config=dict(config),
        settings=wandb.Settings(console='off', silent=True),
      )
    except wandb.errors.Error as error:
      raise InputError(
        f'config.wandb is {project!r}, but W&B does not start ({error}): `wandb login`, or '
        "set WANDB_MODE=offline, or --config.wandb=''"
      ) from error
    self._run.define_metric('step')
    self._run.define_metric('*', step_metric='step')
    write_json(workdir / RECORD, record)  # Rows made again are cut from metrics.jsonl.
    self._sent = record
    log(
      f'W&B run {record["id"]} of {project}: '
      + (f'written to {workdir / "wandb"} (offline)' if self._run.offline else self._run.url)
    )

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Sends a row, unless it was sent before."""
    if self._run is None or step <= self._sent[kind(values)]:
      return
    try:
      self._run.log({'step': step, **values})
    except Exception as error:  # The run is worth more than its mirror.
      log(f'W&B takes no more figures ({error}); training continues without it')
      self._run = None

  def __enter__(self):
    return self

  def __exit__(self, exc_type, *exc_info):
    """Waits until W&B has everything; an exception marks the W&B run as failed."""
    if self._run is not None:
      self._run.finish(exit_code=int(exc_type is not None))


def _read(path: pathlib.Path, project: str) -> dict | None:
  """How W&B knows the run; None where the project does not know it yet.

  Raises:
    InputError: the record is damaged.
  """
  if not path.exists():
    return None
  try:
    record = json.loads(path.read_text())
    if record['project'] != project:
      return None
    return {
      'project': project,
      'id': str(record['id']),
      **{which: int(record[which]) for which in (TRAINED, EVALUATED)},
    }
  except (ValueError, KeyError, TypeError) as error:
    raise InputError(f'{path} is damaged ({error}): remove it, for a new W&B run') from error
