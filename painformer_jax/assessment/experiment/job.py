"""What is trained for one row of the table on one task: samples, folds, inputs, settings."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets.recordings import Finding, Study
from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.assessment.folds import permuted_labels, protocols
from painformer_jax.assessment.folds.batches import Fold, count_steps
from painformer_jax.assessment.folds.tasks import TASKS, Task
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.fusion import FusionConfig
from painformer_jax.assessment.mixers.inputs import MixerInput, assemble
from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Job:
  """One row of the table on one task.

  Attributes:
    row: its name in the config.
    task: the classification task.
    fusion: how the row's modalities are fused.
    positions: int [n], the study's samples that take part.
    samples: str [n], their names.
    subjects: str [n].
    label: int64 [n], classes.
    folds: indices into the arrays above.
    inputs: of the Mixers, [n, tokens, width] each; of a planned job one sample without
      content, for its shape alone.
    points: the points of the hyper-parameter grid; a single empty one without a grid.
    fits: point -> input -> how its Mixer is trained.
    seeds: each fold is trained once with each.
    inner_folds: folds inside a fold's training samples that choose a point of the grid.
    shuffle: seed that the labels were permuted with; None for true labels.
  """

  row: str
  task: Task
  fusion: FusionConfig
  positions: np.ndarray
  samples: np.ndarray
  subjects: np.ndarray
  label: np.ndarray
  folds: list[Fold]
  inputs: tuple[MixerInput, ...]
  points: tuple[Mapping[str, Any], ...]
  fits: tuple[tuple[FitConfig, ...], ...]
  seeds: tuple[int, ...]
  inner_folds: int
  shuffle: int | None = None

  @property
  def name(self) -> str:
    """As in tables and results.json."""
    return f'{self.row}, {self.task.name}'


def plan_jobs(
  config: AssessConfig, study: Study, *, shapes: Mapping[str, SampleShape], width: int
) -> list[Job]:
  """Every row on each of its tasks, planned before anything is embedded.

  Args:
    config: of the assessment.
    study: all its samples.
    shapes: of each modality's samples.
    width: of an embedding.

  Raises:
    InputError: see `make_job`.
  """
  jobs = []
  for row in config.rows:
    tokens = {
      name: Tokens(
        values=np.broadcast_to(np.float32(0), (1, shapes[name].tokens, width)),
        mask=np.ones((1, shapes[name].tokens), bool),
        labels=('',) * shapes[name].tokens,
      )
      for name in config.rows[row].fusion.modalities
    }
    sources = {config.modalities[name].source for name in tokens}
    there = np.array([bool(sources & sample.data.keys()) for sample in study.samples])
    inputs = assemble(config.rows[row].fusion, tokens)
    jobs += [
      make_job(config, study, row=row, task=task, inputs=inputs, there=there)
      for task in config.tasks_of(row)
    ]
  return jobs


def check_copies(config: AssessConfig, jobs: Sequence[Job], findings: Sequence[Finding]) -> None:
  """Checks that no recording is both trained on and tested on.

  Args:
    config: of the assessment.
    jobs: all of it, planned.
    findings: of the study; those with copies count.

  Raises:
    InputError: a recording is in a fold's training part and in its test part.
  """
  for job in jobs:
    sources = {config.modalities[name].source for name in job.fusion.modalities}
    places = {name: n for n, name in enumerate(job.samples.tolist())}
    groups = [
      np.array(
        [
          places[name] for name, source in copies.recordings if name in places and source in sources
        ],
        int,
      )
      for finding in findings
      for copies in finding.copies
    ]
    for fold in job.folds if groups else ():
      for group in groups:
        trained, tested = (group[np.isin(group, part)] for part in (fold.train, fold.test))
        if trained.size and tested.size:
          raise InputError(
            f'{job.name}: {job.samples[tested[0]]}, tested on in fold {fold.name}, is the same '
            f'recording as {job.samples[trained[0]]}, trained on: find out whose it is, or leave '
            'out all such recordings with --config.findings=duplicate'
          )


def make_job(
  config: AssessConfig,
  study: Study,
  *,
  row: str,
  task: str,
  inputs: Sequence[MixerInput],
  there: np.ndarray | None = None,
) -> Job:
  """Selects the samples of a row on a task and divides them into folds.

  Args:
    config: of the assessment.
    study: all its samples.
    row: name of the row.
    task: name of the task.
    inputs: from `inputs.assemble`, of all samples.
    there: bool [samples], which samples the row has recordings of; None for those that
      an input has embeddings of.

  Raises:
    InputError: the task has no sample, the protocol does not fit the study, or a value of
      `config.fit` cannot be used.
  """
  labels = TASKS[task].labels(study.level_array())
  planned = there is not None
  if not planned:
    there = np.any([source.there for source in inputs], axis=0)
  positions = np.flatnonzero(there & (labels >= 0))
  if not positions.size:
    raise InputError(
      f'config.rows.{row}: {study.name} has no sample of '
      f'{", ".join(config.rows[row].fusion.modalities)} for the task {task}'
    )
  subjects = study.subject_array()[positions]
  points = config.points
  return Job(
    row=row,
    task=TASKS[task],
    fusion=config.rows[row].fusion,
    positions=positions,
    samples=np.array([study.samples[p].name for p in positions]),
    subjects=subjects,
    label=labels[positions],
    folds=protocols.make_folds(
      config.protocol,
      subjects=subjects,
      splits=study.split_array()[positions],
      test_subjects=config.hold_out,
    ),
    inputs=tuple(inputs) if planned else tuple(_selected(s, positions) for s in inputs),
    points=tuple(points),
    fits=tuple(
      tuple(
        _fit_config(config, source, point, outputs=len(TASKS[task].classes)) for source in inputs
      )
      for point in points
    ),
    seeds=config.seeds,
    inner_folds=config.inner_folds,
  )


def with_permuted_labels(job: Job, *, seed: int, protocol: str) -> Job:
  """The job with permuted labels and its first seed alone: it must come out at chance.

  Args:
    job: with true labels.
    seed: of the permutation.
    protocol: that the job's folds are of. Blocks of time hold overlapping windows, listed
      by time, whose labels are rotated; other labels are shuffled within subjects.
  """
  blocks = protocol == protocols.BLOCKS
  permute = permuted_labels.shift_labels if blocks else permuted_labels.shuffle_labels
  label = permute(job.label, job.subjects, seed=seed)
  return dataclasses.replace(job, label=label, seeds=job.seeds[:1], shuffle=seed)


def steps(fit: FitConfig, folds: Sequence[Fold]) -> int:
  """Training steps of every fold: those of the config, or its epochs of the largest fold."""
  return fit.steps or count_steps(folds, epochs=fit.epochs, batch=fit.batch)


def _fit_config(
  config: AssessConfig, source: MixerInput, point: Mapping[str, Any], *, outputs: int
) -> FitConfig:
  """How the Mixer that reads an input is trained at a point of the grid."""
  encoder = config.encoder_config() if source.encoder_tokens else None
  model = source.fitted(config.mixer_config(point, outputs=outputs), encoder=encoder)
  return config.fit_config(model, point)


def _selected(source: MixerInput, positions: np.ndarray) -> MixerInput:
  return dataclasses.replace(source, values=source.values[positions], mask=source.mask[positions])
