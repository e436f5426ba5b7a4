"""An assessment from its configuration to a folder of results."""

import json
import pathlib
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from painformer_jax.assessment import estimate, experiment, finetune
from painformer_jax.assessment import study as datasets
from painformer_jax.assessment.clips import train
from painformer_jax.assessment.clips.assessor import TrainedModality
from painformer_jax.assessment.config import AssessConfig, changed_fields
from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding import embed as embeddings
from painformer_jax.assessment.embedding.embed import EmbeddingStore
from painformer_jax.assessment.embedding.sample_images import channels_of
from painformer_jax.assessment.experiment import Job, Outcome
from painformer_jax.assessment.folds.protocols import BLOCKS, FIXED, PROTOCOLS
from painformer_jax.assessment.results import paired, terminal, write
from painformer_jax.assessment.results import summary as results
from painformer_jax.assessment.results.read import read_experiments
from painformer_jax.assessment.statistics import intervals, metrics
from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.core.files import is_partial, write_json
from painformer_jax.training.run import environment
from painformer_jax.weights.folder import Weights
from painformer_jax.weights.load import read_weights

CLAIM = (
  'This project claims no accuracy on BioVid or AI4Pain: figures of those are what a '
  'run measured on the data of whoever ran it.'
)
_FINDINGS_SHOWN = 20
# Whose planted accuracy is known.
_PLANTED_TASKS = ('BL1-PA1', 'BL1-PA2', 'BL1-PA3', 'BL1-PA4', '5-class')

Log = Callable[[str], None]


def check(config: AssessConfig, workdir: pathlib.Path, *, log: Log, out: Log) -> int:
  """Lists exactly what is missing or odd; trains and embeds nothing.

  Args:
    config: of the assessment.
    workdir: only the data of 'demo' and 'planted' are written to it.
    log: told about progress.
    out: given the findings and what would be run.

  Returns:
    How many findings there are.

  Raises:
    InputError: the folder cannot be opened at all, or the weights.
  """
  weights = read_weights(config.weights)
  if config.finetunes:
    finetune.check(config, weights)
  study = datasets.open_study(config, workdir)
  findings = datasets.check(config, study, whole=True, progress=log)
  for finding in findings:
    out(str(finding))
  out(
    f'{study.name} in {study.root}: {len(study.subjects)} subjects, {len(study.samples):,} '
    f'samples, {len(findings)} finding{"" if len(findings) == 1 else "s"}'
  )
  out(
    f'weights {config.weights}: {weights.source.model or weights.source.name}, images of '
    f'{weights.config.image_size} pixels'
  )
  jobs = list(experiment.jobs(config, study))
  write.check_names([f'{job.row}, {job.task.name}' for job in jobs])
  for job in jobs:
    out(f'{job.row}, {job.task.name}: {len(job.positions):,} samples, {len(job.folds)} folds')
  finetune.check_unseen(config.weights, jobs, study)
  return len(findings)


def assess(
  config: AssessConfig,
  workdir: str | pathlib.Path,
  *,
  log: Log,
  out: Log,
  against: str | pathlib.Path | None = None,
) -> list[results.Summary]:
  """Runs everything that is not finished, and writes the results.

  The folder holds config.json, embeddings/ (unless `config.embeddings` names another),
  folds/ (what is finished), finetuned/ (see `finetune`), images/ (until the end),
  assessors/, and at the end results.json, table.csv, table.tex, subjects.csv,
  predictions.csv, *.png.

  Args:
    config: of the assessment.
    workdir: its folder; a run found there goes on.
    log: told about progress.
    out: given the table.
    against: folder of another finished run, to test each row of the same name against.

  Raises:
    InputError: the folder is of another configuration; data or weights are at fault.
    KeyboardInterrupt: after SIGINT or SIGTERM; the same command goes on.
  """
  if config.figures:
    import_extra('matplotlib', extra='demo')  # Known before hours of work.
  if against is not None:
    read_experiments(against)
  workdir = open_workdir(workdir, config)
  weights = read_weights(config.weights)
  if config.finetunes:
    finetune.check(config, weights)
  study = datasets.open_study(config, workdir)
  _quick_check(config, study, log=log)
  jobs = list(experiment.jobs(config, study))
  write.check_names([f'{job.row}, {job.task.name}' for job in jobs])
  finetune.check_unseen(config.weights, jobs, study)
  estimate.report(
    config, jobs, study, weights=weights, folder=_embeddings(config, workdir), log=log
  )
  store = _embed(config, study, weights, workdir, log=log)
  tokens = {}
  for name in config.used:
    log(store.describe(name))
    tokens[name] = experiment.normalised(
      store.tokens(name), study.subject_array(), how=config.normalise
    )

  images = workdir / 'images'

  def train(job: Job, *, shuffle: int | None = None) -> Outcome:
    if not config.finetunes:
      return experiment.run(
        config, job, study, cache=str(workdir / 'folds'), shuffle=shuffle, progress=log
      )
    folder = write.slug(f'{job.row}, {job.task.name}')
    return finetune.run(
      config,
      job,
      study,
      weights=weights,
      store=store,
      shuffle=shuffle,
      progress=log,
      images=images if config.finetune.keep_images else None,
      folder=workdir
      / 'finetuned'
      / (folder if shuffle is None else f'{folder}-shuffled-{shuffle}'),
    )

  found = []
  for job in experiment.jobs(config, study, tokens=tokens):
    log(f'{job.row}, {job.task.name}: {len(job.positions):,} samples, {len(job.folds)} folds')
    outcome = train(job)
    shuffled = []
    for seed in range(config.shuffled):
      log(f'labels shuffled, run {seed + 1} of {config.shuffled}')
      chance = train(job, shuffle=seed)
      shuffled.append(float(metrics.accuracy(chance.runs[0].confusion())))
    found.append(_experiment(config, job, outcome, study, store, shuffled=shuffled))
    if config.assessor:
      _keep_assessor(
        config,
        job,
        outcome,
        found[-1],
        study=study,
        store=store,
        folder=workdir / 'assessors',
        log=log,
      )
  found.sort(key=lambda e: config.tasks.index(e.task))
  tests = paired.against_row(found, config.reference)
  if against is not None:
    tests += paired.against_run(found, against)
  write.write_results(found, workdir, tests=tests, figures=config.figures)
  shutil.rmtree(images, ignore_errors=True)
  summaries = [results.summarise(e) for e in found]
  out(terminal.table(summaries))
  for test in tests:
    out(str(test))
  out(
    f'results: {workdir / "results.json"}, table.csv, table.tex, predictions.csv'
    + (', *.png' if config.figures else '')
  )
  out(results.NOTICE + ' ' + CLAIM)
  return summaries


def open_workdir(workdir: str | pathlib.Path, config: AssessConfig) -> pathlib.Path:
  """Makes the folder, or checks that it belongs to this configuration.

  Raises:
    InputError: it holds another assessment, or something else, or cannot be written.
  """
  workdir = pathlib.Path(workdir)
  record = workdir / 'config.json'
  try:
    if record.exists():
      try:
        stored = json.loads(record.read_text())
      except ValueError:
        stored = None
      if not isinstance(stored, dict):
        raise InputError(f'{record} is damaged: take another --workdir')
      changed = changed_fields(config, stored)
      if changed:
        raise InputError(
          f'{workdir} holds an assessment of another configuration '
          f'({"; ".join(changed[:4])}): take another --workdir, or the first configuration'
        )
    elif workdir.exists() and not all(
      is_partial(p) or p.name in ('data', 'config.json.tmp') for p in workdir.iterdir()
    ):
      raise InputError(f'{workdir} is not empty and holds no assessment: take another --workdir')
    workdir.mkdir(parents=True, exist_ok=True)
    write_json(record, json.loads(config.to_json()))
  except OSError as error:
    raise InputError(f'{workdir} cannot be used: {error.strerror}') from error
  return workdir


def _quick_check(config: AssessConfig, study: Study, *, log: Log) -> None:
  """Lists what is missing; stops there if the config says so."""
  findings = datasets.check(config, study, whole=False)
  for finding in findings[:_FINDINGS_SHOWN]:
    log(str(finding))
  if len(findings) > _FINDINGS_SHOWN:
    log(f'and {len(findings) - _FINDINGS_SHOWN:,} more: --check lists all')
  if findings and config.findings == 'stop':
    raise InputError(
      f'{study.root}: {len(findings)} findings, such as {findings[0]}: mend them, or leave '
      "out what is missing with --config.findings='go on'"
    )


def _embed(
  config: AssessConfig, study: Study, weights: Weights, workdir: pathlib.Path, *, log: Log
) -> EmbeddingStore:
  start = time.perf_counter()
  store = embeddings.compute_embeddings(
    study,
    config.used,
    weights=weights,
    folder=_embeddings(config, workdir),
    batch_size=config.batch_size,
    max_left_out=config.max_left_out,
    progress=log,
  )
  log(f'embeddings ready after {time.perf_counter() - start:.0f} s')
  return store


def _embeddings(config: AssessConfig, workdir: pathlib.Path) -> pathlib.Path:
  return pathlib.Path(config.embeddings or workdir / 'embeddings')


def _experiment(
  config: AssessConfig,
  job: Job,
  outcome: Outcome,
  study: Study,
  store: EmbeddingStore,
  *,
  shuffled: Sequence[float],
) -> results.Experiment:
  """A finished job with everything that its figures depend on."""
  row = config.rows[job.row]
  unit = 'block' if config.dataset == 'demo' else 'subject'
  # Of the first seed, with which shuffled labels train too.
  accuracy = float(metrics.accuracy(outcome.runs[0].confusion()))
  settings: dict[str, Any] = {
    'row': job.row,
    'config': json.loads(config.to_json()),
    'environment': environment(),
    'folds': len(job.folds),
    'embeddings': {name: store.record(name) for name in row.fusion.modalities},
    'samples_without_modality': {
      name: sum(t.left_out for t in store.troubles(name)) for name in row.fusion.modalities
    },
  }
  notes = [
    *_notes(config, job, outcome),
    *(
      f'{name}: a stand-in: {store.stand_in(name)}'
      for name in row.fusion.modalities
      if store.stand_in(name)
    ),
  ]
  if outcome.chosen:
    settings['chosen'] = {fold: dict(point) for fold, point in outcome.chosen.items()}
  if shuffled:
    p = intervals.shuffle_test(accuracy, np.array(shuffled))
    settings['shuffled'] = {'accuracy': list(shuffled), 'p': p}
    how = 'moved round in time' if config.protocol == BLOCKS else 'shuffled'
    notes.append(
      f'with labels {how} within each {unit}: mean {100 * np.mean(shuffled):.1f} %, '
      f'{100 * min(shuffled):.1f}-{100 * max(shuffled):.1f} % in {len(shuffled)} runs; '
      f"the first seed's {100 * accuracy:.1f} % has p = {p:.3f}"
    )
  return results.Experiment(
    name=f'{job.row}, {job.task.name}',
    dataset=study.name,
    task=job.task.name,
    modality=_label(config, job),
    method=f'{row.fusion.kind}, {config.mixer["name"]}'
    + (', fine-tuned' if config.finetunes else ''),
    protocol=_protocol(config, job, study),
    classes=job.task.classes,
    runs=outcome.runs,
    unit=unit,
    settings=settings,
    notes=tuple(notes),
  )


def _keep_assessor(
  config: AssessConfig,
  job: Job,
  outcome: Outcome,
  finished: results.Experiment,
  *,
  study: Study,
  store: EmbeddingStore,
  folder: pathlib.Path,
  log: Log,
) -> None:
  """Trains and keeps what judges clips, unless it could not do so."""
  sources = {
    name: _source(config, name, study, store) for name in config.rows[job.row].fusion.modalities
  }
  untimed = [name for name, source in sources.items() if not source.timed]
  if untimed:
    log(
      f'{finished.name}: no assessor is kept: the images of {", ".join(untimed)} do not say '
      'their rate, as folders of images never do, so it could not judge a clip over time'
    )
    return
  train.save(
    config,
    job,
    outcome,
    summary=results.summarise(finished),
    store=store,
    sources=sources,
    folder=folder / write.slug(finished.name),
    log=log,
  )


def _label(config: AssessConfig, job: Job) -> str:
  """What tables call the modalities; what stands in for one is never left unsaid."""
  row = config.rows[job.row]
  label = row.label or '+'.join(row.fusion.modalities)
  stand_in = any(config.modalities[name].stand_in for name in row.fusion.modalities)
  return f'{label} (stand-in)' if stand_in else label


def _protocol(config: AssessConfig, job: Job, study: Study) -> str:
  """What tables call it: of a single split, with the subjects on both sides."""
  name = PROTOCOLS[config.protocol]
  if config.protocol not in FIXED:
    return name
  (fold,) = job.folds
  people = study.subject_array()[job.positions]
  return f'{name}, {len(set(people[fold.train]))}/{len(set(people[fold.test]))} subjects'


def _notes(config: AssessConfig, job: Job, outcome: Outcome) -> Iterator[str]:
  """What a reader of the figures must know."""
  if config.dataset == 'demo':
    yield (
      f'one person, windows {config.gap:g} s apart at least from those trained on: says '
      'how well a state is told at another time, not in another person'
    )
    if datasets.has_seen_demo(config.weights):
      yield (
        'the backbone was trained on these recordings, labels included: its figures are too '
        'good, take other weights'
      )
  if config.finetunes:
    yield 'the backbone was fine-tuned with the Mixer, on the training subjects alone'
  if config.normalise == 'subject':
    yield 'embeddings standardised for each subject by their own recordings, without labels'
  if config.normalise == 'study':
    yield 'embeddings standardised by all recordings, without labels'
  if outcome.chosen:
    yield f'hyper-parameters chosen on {config.inner_folds} inner folds of the training subjects'
  if config.dataset == 'planted':
    plan = datasets.planted_plan(config)
    if job.task.name in _PLANTED_TASKS:
      yield (
        f'synthetic: by construction the best possible accuracy is '
        f"{100 * plan.accuracy(job.task.name):.1f} % where each subject's shift is known and "
        f'{100 * plan.accuracy_on_unseen_subjects(job.task.name):.1f} % on unseen subjects'
      )


def _source(
  config: AssessConfig, name: str, study: Study, store: EmbeddingStore
) -> TrainedModality:
  settings = config.modalities[name]
  return TrainedModality(
    seconds=estimate.seconds_of(settings, study),
    rate=estimate.frame_rate(settings, study),
    tokens=store.tokens(name).values.shape[1],
    channels=channels_of(study, settings.source),
  )
