"""An assessment, from its configuration to a folder of results."""

import dataclasses
import functools
import pathlib
import shutil
import time
from collections.abc import Callable, Mapping

from painformer_jax.assessment.clips.train import save as save_assessor
from painformer_jax.assessment.config import AssessConfig, changed_fields
from painformer_jax.assessment.datasets.recordings import Finding, Study
from painformer_jax.assessment.embedding.embed import compute_embeddings
from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.embedding.sample_shape import SampleShape, sample_shapes
from painformer_jax.assessment.embedding.store import EmbeddingStore
from painformer_jax.assessment.estimate import report as estimate
from painformer_jax.assessment.experiment import frozen
from painformer_jax.assessment.experiment.description import describe
from painformer_jax.assessment.experiment.fit import Outcome, fit
from painformer_jax.assessment.experiment.job import Job, check_copies, make_job, plan_jobs
from painformer_jax.assessment.experiment.normalise import normalised
from painformer_jax.assessment.finetune import run as finetune
from painformer_jax.assessment.finetune.tuned_weights import check_unseen
from painformer_jax.assessment.finetune.tuning import check_tuning
from painformer_jax.assessment.mixers.inputs import assemble
from painformer_jax.assessment.results import paired, terminal
from painformer_jax.assessment.results.read import read_experiments
from painformer_jax.assessment.results.summary import NOTICE, Summary, summarise
from painformer_jax.assessment.results.write import check_names, slug, write_results
from painformer_jax.assessment.study.checking import (
  check_study,
  findings_that_stop,
  without_copies,
  without_faint,
)
from painformer_jax.assessment.study.opening import open_study
from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.core.progress import Log
from painformer_jax.training.workdir import open_workdir
from painformer_jax.weights.folder import Weights
from painformer_jax.weights.load import read_weights, tell

CLAIM = (
  'This project claims no accuracy on BioVid or AI4Pain: figures of those are what a '
  'run measured on the data of whoever ran it.'
)
_FINDINGS_SHOWN = 20
_USUAL_WIDTH = 160  # Of an embedding, where there are no weights yet.
_SECONDS_A_LINE = 10  # Between lines of progress while the study is read.


def assess(
  config: AssessConfig,
  workdir: str | pathlib.Path,
  *,
  log: Log,
  out: Log,
  against: str | pathlib.Path | None = None,
) -> list[Summary]:
  """Runs everything that is not finished, and writes the results.

  The folder holds config.json, embeddings/ (unless `config.embeddings` names another),
  folds/ (finished folds), finetuned/ (see `finetune`), images/ (until the end),
  assessors/, and at the end results.json, table.csv, table.tex, subjects.csv,
  predictions.csv, *.png.

  Args:
    config: of the assessment.
    workdir: its folder; a run found there is resumed.
    log: gets lines of progress.
    out: gets the table.
    against: folder of another finished run, to test each row of the same name against.

  Raises:
    InputError: the folder is of another configuration, or data or weights are at fault.
    KeyboardInterrupt: after SIGINT or SIGTERM; the same command resumes.
  """
  if not config.weights:
    raise InputError(
      'config.weights is empty: name the weights of the backbone, such as '
      '--config.weights=painformer.pth'
    )
  check_names(config.job_names)
  if config.figures:
    import_extra('matplotlib', extra='demo')  # Fails before hours of work.
  if against is not None:
    read_experiments(against)
  workdir = open_workdir(
    workdir, config, changed_fields=changed_fields, what='assessment', ignored=['data']
  )
  embeddings = pathlib.Path(config.embeddings or workdir / 'embeddings')

  # What there is, and what it will take.
  weights = read_weights(config.weights)
  tell(weights, config.weights, log)
  study = open_study(config, workdir)
  findings = _stop_at_findings(config, study, log=log)
  study = without_faint(study, findings)
  if config.names('duplicate'):
    study = without_copies(study, findings)
    findings = []
  shapes = sample_shapes(study, config.used)
  jobs = _plan(config, study, weights, shapes)
  check_copies(config, jobs, findings)
  estimate.report(config, jobs, study, shapes=shapes, weights=weights, folder=embeddings, log=log)

  # Every recording to embeddings, once for all rows.
  start = time.perf_counter()
  store = compute_embeddings(
    study,
    config.used,
    weights=weights,
    folder=embeddings,
    batch_size=config.batch_size,
    max_left_out=config.max_left_out,
    log=log,
  )
  log(f'embeddings ready after {time.perf_counter() - start:.0f} s')
  tokens = _normalised(config, study, store, log=log)

  # Every row of the table on each of its tasks.
  train = _trainer(config, study, weights, store, workdir, log=log)
  summaries = []
  for row in config.rows:
    inputs = assemble(config.rows[row].fusion, tokens)
    for task in config.tasks_of(row):
      job = make_job(config, study, row=row, task=task, inputs=inputs)
      log(_size(job))
      outcome = fit(job, train, shuffled=config.shuffled, protocol=config.protocol, log=log)
      summary = summarise(describe(config, job, outcome, study=study, store=store))
      summaries.append(summary)
      if config.assessor:
        folder = workdir / 'assessors' / slug(job.name)
        save_assessor(
          config,
          job,
          outcome,
          summary=summary,
          store=store,
          shapes=shapes,
          folder=folder,
          synthetic=study.synthetic,
          log=log,
        )

  # Tables, figures, tests.
  summaries.sort(key=lambda summary: config.tasks.index(summary.experiment.task))
  experiments = [summary.experiment for summary in summaries]
  tests = paired.against_row(experiments, config.reference)
  if against is not None:
    tests += paired.against_run(experiments, against)
  write_results(summaries, workdir, tests=tests, figures=config.figures)
  shutil.rmtree(workdir / 'images', ignore_errors=True)
  out(terminal.table(summaries))
  for test in tests:
    out(str(test))
  figures = ', *.png' if config.figures else ''
  out(f'results: {workdir / "results.json"}, table.csv, table.tex, predictions.csv{figures}')
  out(f'{NOTICE} {CLAIM}')
  return summaries


def check(config: AssessConfig, workdir: pathlib.Path, *, log: Log, out: Log) -> None:
  """Lists exactly what is missing or odd; trains and embeds nothing.

  Args:
    config: of the assessment; without weights, only the data are checked.
    workdir: only the data of 'demo' and 'planted' are written to it.
    log: gets lines of progress.
    out: gets the findings and what would be run.

  Raises:
    InputError: the folder or the weights cannot be opened at all, or there is a finding
      that a run would stop at by default; not for what is odd but usable.
  """
  check_names(config.job_names)
  weights = read_weights(config.weights) if config.weights else None
  if weights:
    tell(weights, config.weights, log)
  study = open_study(config, workdir)
  findings = check_study(config, study, whole=True, log=log)
  for finding in findings:
    out(str(finding))
  out(
    f'{study.name} in {study.root}: {len(study.subjects)} subjects, {len(study.samples):,} '
    f'samples, {len(findings)} finding{"" if len(findings) == 1 else "s"}'
  )
  if weights is None:
    out('weights: none given, so they are not checked')
  else:
    out(
      f'weights {config.weights}: {weights.source.model or weights.source.name}, images of '
      f'{weights.config.image_size} pixels'
    )
  jobs = _plan(config, study, weights, sample_shapes(study, config.used))
  for job in jobs:
    out(_size(job))
  try:
    check_copies(config, jobs, findings)
  except InputError as error:
    out(f'error: {error}')
  if findings_that_stop(dataclasses.replace(config, findings='stop'), findings):
    raise InputError(f'{len(findings)} finding{"s" if len(findings) > 1 else ""}, listed above')


def _stop_at_findings(config: AssessConfig, study: Study, *, log: Log) -> list[Finding]:
  """Lists what is missing or unusable, and stops there unless the config accepts it."""
  if config.dataset != 'demo':
    log(f'reading {len(study.samples):,} samples of {study.name}, to find what cannot be used')
  said = time.monotonic()

  def slowly(line: str) -> None:
    nonlocal said
    if time.monotonic() - said > _SECONDS_A_LINE:
      said = time.monotonic()
      log(line)

  findings = check_study(config, study, whole=True, log=slowly)
  for finding in findings[:_FINDINGS_SHOWN]:
    log(str(finding))
  if len(findings) > _FINDINGS_SHOWN:
    log(f'and {len(findings) - _FINDINGS_SHOWN:,} more: --check lists all')
  stopping = findings_that_stop(config, findings)
  if stopping:
    given = [] if config.findings in ('stop', 'continue') else config.findings.split(',')
    kinds = ','.join(dict.fromkeys([*given, *(finding.kind for finding in stopping)]))
    count = f'{len(stopping)} finding{"s" if len(stopping) > 1 else ""}'
    raise InputError(
      f'{study.root}: {count}, such as {stopping[0]}: mend them, or leave out the samples '
      f'concerned with --config.findings=continue, or ={kinds} for these kinds alone'
    )
  return findings


def _plan(
  config: AssessConfig, study: Study, weights: Weights | None, shapes: Mapping[str, SampleShape]
) -> list[Job]:
  """What will be trained, checked before anything is embedded."""
  if config.finetunes and weights:
    check_tuning(config.finetune, weights)
  width = weights.config.embedding_width if weights else _USUAL_WIDTH
  jobs = plan_jobs(config, study, shapes=shapes, width=width)
  if weights:
    check_unseen(weights.source, jobs, study)
  return jobs


def _normalised(
  config: AssessConfig, study: Study, store: EmbeddingStore, *, log: Log
) -> dict[str, Tokens]:
  """Name -> embeddings, standardised as the config says."""
  tokens = {}
  for name in config.used:
    log(store.describe(name))
    tokens[name] = normalised(store.tokens(name), study.subject_array(), how=config.normalise)
  return tokens


def _trainer(
  config: AssessConfig,
  study: Study,
  weights: Weights,
  store: EmbeddingStore,
  workdir: pathlib.Path,
  *,
  log: Log,
) -> Callable[[Job], Outcome]:
  """Trains all folds of a job, with a frozen backbone or by fine-tuning it."""
  if not config.finetunes:
    limit = config.memory_limit or None
    return functools.partial(frozen.train, cache=workdir / 'folds', memory_limit=limit, log=log)
  return functools.partial(
    finetune.train,
    config=config,
    study=study,
    weights=weights,
    store=store,
    folder=workdir / 'finetuned',
    images=workdir / 'images' if config.finetune.keep_images else None,
    log=log,
  )


def _size(job: Job) -> str:
  return f'{job.name}: {len(job.positions):,} samples, {len(job.folds)} folds'
