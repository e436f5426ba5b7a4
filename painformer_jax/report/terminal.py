"""The page of results as plain text, at most 100 columns wide."""

import textwrap
from collections.abc import Mapping, Sequence

from painformer_jax.core.tables import aligned, cut
from painformer_jax.report import wording
from painformer_jax.report.results import Results, TaskResult

WIDTH = 100
_NAME_WIDTH = 32  # Longer names are cut.
_TERM_WIDTH = 11


def text_page(results: Results, *, files: Mapping[str, object]) -> str:
  """The whole page.

  Args:
    results: from `measure`.
    files: kind of file -> where it was written.
  """
  facts = [
    wording.headline(results),
    wording.unfinished(results),
    wording.model(results),
    wording.effort(results),
    wording.own_effort(results),
  ]
  return '\n'.join(
    [
      *(textwrap.fill(fact, WIDTH) for fact in facts if fact),
      '',
      textwrap.fill(results.data, WIDTH),
      *_split_lines(results.tasks),
      '',
      'Accuracy on held-out images, in %:',
      _table(results.tasks),
      '',
      *(textwrap.fill(line, WIDTH) for line in wording.findings(results)),
      '',
      *(_entry(column, text) for column, text in wording.methods(results).items()),
      '',
      *(f'{kind:{_TERM_WIDTH}}{path}' for kind, path in files.items()),
    ]
  )


def _split_lines(tasks: Sequence[TaskResult]) -> list[str]:
  """'name  training + test images  how they differ', a line for each task."""
  names = [cut(task.name, _NAME_WIDTH) for task in tasks]
  counts = [f'{task.n_train:,} + {task.n_test:,}' for task in tasks]
  room = WIDTH - max(map(len, names)) - max(map(len, counts)) - 4
  splits = [textwrap.shorten(task.split, room, placeholder=' ...') for task in tasks]
  return aligned(list(zip(names, counts, splits)), right=(1,))


def _entry(term: str, text: str) -> str:
  """A term and its explanation, lines aligned behind the term."""
  return textwrap.fill(
    text, WIDTH, initial_indent=f'{term:{_TERM_WIDTH}}', subsequent_indent=' ' * _TERM_WIDTH
  )


def _table(tasks: Sequence[TaskResult]) -> str:
  """A row for each task; names are cut to what the other columns leave."""
  header = ['probe', '95 %', 'head', 'pixels', 'untrained', 'chance', 'n_eff']
  rows = [
    [
      percent(t.probe.accuracy),
      f'{percent(t.probe.interval.low)}-{percent(t.probe.interval.high)}',
      percent(t.head_accuracy),
      percent(t.pixels.accuracy),
      percent(t.untrained.accuracy),
      percent(t.chance),
      f'{t.probe.interval.n_eff:,.0f}',
    ]
    for t in tasks
  ]
  if any(task.unbalanced for task in tasks):
    header.insert(2, 'F1')
    for row, task in zip(rows, tasks):
      row.insert(2, percent(task.probe.macro_f1) if task.unbalanced else '-')
  rows = [header, *rows]
  figures = sum(max(map(len, column)) + 2 for column in zip(*rows))
  room = WIDTH - figures - max(len(task.verdict) for task in tasks) - 2
  names = ['task', *(cut(task.name, room) for task in tasks)]
  verdicts = ['', *(task.verdict for task in tasks)]
  table = [[name, *row, verdict] for name, row, verdict in zip(names, rows, verdicts)]
  return '\n'.join(aligned(table, right=range(1, len(header) + 1)))


def percent(share: float) -> str:
  """0.123 -> '12.3'."""
  return f'{share * 100:.1f}'
