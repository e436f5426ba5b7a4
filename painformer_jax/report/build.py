"""Makes a report of a run, from embedding to the pages."""

import pathlib
import time
from collections.abc import Mapping

from painformer_jax.core.errors import import_extra
from painformer_jax.core.files import write_atomically, write_json
from painformer_jax.core.progress import Log
from painformer_jax.core.targets import NAME, FileKind, begins, check_file_target
from painformer_jax.report import figures
from painformer_jax.report.embeddings import FOLDER, embed_tasks
from painformer_jax.report.page import html_page
from painformer_jax.report.results import Results, measure
from painformer_jax.report.run_folder import REPORT, TrainedRun, open_run, read_report
from painformer_jax.report.terminal import text_page

PAGE = 'report.html'
# As templates/page.html begins.
KIND = FileKind(
  suffixes=('.html', '.htm'),
  is_own=begins(
    rb'<!DOCTYPE html>\s*<html lang="en">\s*<head>\s*<meta charset="utf-8">\s*'
    rb'<meta name="generator" content="' + NAME.encode() + rb'">'
  ),
)


def make_report(
  folder: str | pathlib.Path,
  *,
  output: str | pathlib.Path | None = None,
  data_dir: str | None = None,
  log: Log,
) -> str:
  """Embeds a run's tasks, probes the embeddings, and writes figures and pages.

  Writes embeddings/<task>.npz, curves.png and embeddings.png to the run's
  folder, adds to its report.json, and writes the HTML page.

  Args:
    folder: workdir of `painformer pretrain`, finished or not.
    output: where the HTML page goes; None for report.html in the folder.
    data_dir: where the prepared tasks are now; None for where the run had them.
    log: takes lines about progress.

  Returns:
    The page of results as plain text.

  Raises:
    InputError: see `open_run`, `embed_tasks` and `measure`; a package of the
      extra `demo` is missing; a file cannot be written.
  """
  started = time.monotonic()
  for module in ('sklearn', 'matplotlib', 'jinja2'):  # Before any work, not after.
    import_extra(module, extra='demo')
  run = open_run(folder, data_dir=data_dir)
  page = pathlib.Path(output) if output else run.folder / PAGE
  if output:  # The run's own page is this program's.
    check_file_target(page, KIND)

  embedded = embed_tasks(run, log=log)
  results = measure(run, embedded, log=log)
  log('renders figures')
  curves = figures.curves(run, {n: a['test'].label for n, a in embedded.tasks.items()})
  scatter = figures.scatter(run, embedded.tasks)
  for name, png in ((figures.CURVES, curves), (figures.SCATTER, scatter)):
    _write(run.folder / name, png)
  _write(page, html_page(results, curves=curves, scatter=scatter).encode())
  _merge(run, results, page=page, seconds=time.monotonic() - started)
  return text_page(
    results,
    files={
      'page': page,
      'figures': f'{run.folder / figures.CURVES}, {figures.SCATTER}',
      'embeddings': run.folder / FOLDER,
      'numbers': run.folder / REPORT,
    },
  )


def _write(path: pathlib.Path, content: bytes) -> None:
  write_atomically(path, lambda file: file.write(content))


def _merge(run: TrainedRun, results: Results, *, page: pathlib.Path, seconds: float) -> None:
  """Adds the results to what the training has put into report.json."""
  report = read_report(run.folder)
  tasks: Mapping[str, dict] = report.get('tasks', {})
  write_json(
    run.folder / REPORT,
    {
      **report,
      'model': dict(run.config.model),
      'backbone_parameters': results.parameters,
      'steps': results.step,
      'images': results.images,
      'train_seconds': results.train_seconds,
      'tasks': {t.name: {**tasks.get(t.name, {}), **t.record()} for t in results.tasks},
      'report': {
        'checkpoint_step': results.step,
        'planned_steps': results.steps,
        'finished': results.finished,
        'data': results.data,
        'images_per_second': results.images_per_second,
        'curves': figures.CURVES,
        'embeddings_figure': figures.SCATTER,
        'embeddings': {t.name: f'{FOLDER}/{t.name}.npz' for t in results.tasks},
        'page': str(page),
        'embedded_images': results.embedded_images,
        'embed_seconds': results.embed_seconds,
        'seconds': seconds,
      },
    },
  )
