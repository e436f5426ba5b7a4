"""The page of results as plain text, at most 100 columns wide."""

import textwrap
from collections.abc import Mapping, Sequence

from painformer_jax.report import wording
from painformer_jax.report.results import Results, TaskResult

WIDTH = 100
_NAME_WIDTH = 23  # Longer names are cut.
_TERM_WIDTH = 11


def text_page(results: Results, *, files: Mapping[str, object]) -> str:
  """The whole page.

  Args:
    results: from `measure`.
    files: kind of file -> where it was written.
  """
  facts = [wording.headline(results), wording.unfinished(results),
           wording.model(results), wording.effort(results), wording.own_effort(results)]
  return '\n'.join([
      *(textwrap.fill(fact, WIDTH) for fact in facts if fact),
      '', textwrap.fill(results.data, WIDTH),
      *_split_lines(results.tasks),
      '', 'Accuracy on held-out images, in %:', _table(results.tasks),
      '', *(textwrap.fill(line, WIDTH) for line in wording.findings(results)),
      '', *(_entry(column, text) for column, text in wording.methods(results).items()),
      '', *(f'{kind:{_TERM_WIDTH}}{path}' for kind, path in files.items())])


def _split_lines(tasks: Sequence[TaskResult]) -> list[str]:
  """'name  training + test images  how they differ', a line for each task."""
  names = [_cut(task.name) for task in tasks]
  counts = [f'{task.n_train:,} + {task.n_test:,}' for task in tasks]
  starts = [f'{name:<{max(map(len, names))}}  {count:>{max(map(len, counts))}}  '
            for name, count in zip(names, counts)]
  return [start + textwrap.shorten(task.split, WIDTH - len(start), placeholder=' ...')
          for start, task in zip(starts, tasks)]


def _entry(term: str, text: str) -> str:
  """A term and its explanation, lines aligned behind the term."""
  return textwrap.fill(text, WIDTH, initial_indent=f'{term:{_TERM_WIDTH}}',
                       subsequent_indent=' ' * _TERM_WIDTH)


def _table(tasks: Sequence[TaskResult]) -> str:
  header = ['task', 'probe', '95 %', 'head', 'pixels', 'untrained', 'chance', 'images',
            'worth']
  rows = [[_cut(t.name), percent(t.probe.accuracy),
           f'{percent(t.probe.interval.low)}-{percent(t.probe.interval.high)}',
           percent(t.head_accuracy), percent(t.pixels.accuracy),
           percent(t.untrained.accuracy), percent(t.chance), f'{t.n_test:,}',
           f'{t.probe.interval.count:,.0f}']
          for t in tasks]
  if any(task.unbalanced for task in tasks):
    header.insert(3, 'F1')
    for row, task in zip(rows, tasks):
      row.insert(3, percent(task.probe.macro_f1) if task.unbalanced else '-')
  for row, task in zip(rows, tasks):
    row.append(task.verdict)
  lines = [header + [''], *rows]
  widths = [max(map(len, column)) for column in zip(*lines)]
  return '\n'.join(
      '  '.join([f'{line[0]:<{widths[0]}}',
                 *(f'{cell:>{w}}' for cell, w in zip(line[1:-1], widths[1:-1])),
                 line[-1]]).rstrip()
      for line in lines)


def percent(share: float) -> str:
  """0.123 -> '12.3'."""
  return f'{share * 100:.1f}'


def _cut(name: str) -> str:
  return name if len(name) < _NAME_WIDTH else name[:_NAME_WIDTH - 2] + '~'
