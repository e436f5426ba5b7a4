"""The results as tables for files: CSV and LaTeX, published figures below the run's own."""

import csv
import io
import math
from collections.abc import Sequence

from painformer_jax.assessment.results.literature import EVIDENCE, MARKS, PublishedFigure
from painformer_jax.assessment.results.summary import Summary
from painformer_jax.assessment.statistics.intervals import Interval

_SCORES = ('accuracy', 'macro accuracy', 'macro precision', 'macro F1')
_COLUMNS = ('dataset', 'task', 'modality', 'method', 'protocol')
_SPECIAL = {
  '\\': r'\textbackslash{}',
  '~': r'\textasciitilde{}',
  '^': r'\textasciicircum{}',
  '<': r'\textless{}',
  '>': r'\textgreater{}',
  **{c: f'\\{c}' for c in '&%$#_{}'},
}


def to_csv(summaries: Sequence[Summary], published: Sequence[PublishedFigure]) -> str:
  """All scores in percent; cells are empty where a publication gives nothing.

  Columns: the setting, each score with the ends of its interval, further figures, then
  `evidence` ('measured' for this run, else a key of `literature.EVIDENCE`) and `source`.
  """
  rows = [
    (
      *_COLUMNS,
      *(f'{score}{end}' for score in _SCORES for end in ('', ' low', ' high')),
      *('calibration error', 'chance', 'seeds', 'subjects', 'samples', 'evidence', 'source'),
    )
  ]
  for s in summaries:
    e = s.experiment
    intervals = [s.scores[score] for score in _SCORES]
    rows.append(
      (
        *(getattr(e, c) for c in _COLUMNS),
        *(_percent(v) for i in intervals for v in (i.estimate, i.low, i.high)),
        *(_percent(s.calibration.error), _percent(s.chance)),
        *(len(e.runs), len(e.runs[0].subjects), len(e.runs[0].label)),
        *('measured', 'this run'),
      )
    )
  for row in published:
    scores = [cell for s in _SCORES for cell in (row.figure if s == row.metric else '', '', '')]
    cells = (getattr(row, c) for c in _COLUMNS)
    rows.append((*cells, *scores, '', '', '', '', '', row.evidence, row.source))
  return csv_text(rows)


def csv_text(rows: Sequence[Sequence[object]]) -> str:
  """Rows as comma-separated text, quoted where needed; lines end in a newline."""
  text = io.StringIO()
  csv.writer(text, lineterminator='\n').writerows(rows)
  return text.getvalue()


def to_latex(summaries: Sequence[Summary], published: Sequence[PublishedFigure]) -> str:
  """A booktabs table for \\input; the document needs \\usepackage{booktabs}."""
  lines = [
    '% Needs \\usepackage{booktabs}.',
    '\\begin{tabular}{lllllrrr}',
    '\\toprule',
    'Dataset & Task & Modality & Method & Protocol & Accuracy & Macro acc. & Macro F1 \\\\',
    '\\midrule',
  ]
  for s in summaries:
    e = s.experiment
    lines.append(
      ' & '.join(
        (
          *(escape(getattr(e, c)) for c in _COLUMNS),
          *(
            _with_interval(s.scores[score]) for score in ('accuracy', 'macro accuracy', 'macro F1')
          ),
        )
      )
      + r' \\'
    )
  if published:
    lines.append('\\midrule')
  for row in published:
    values = [
      f'{row.figure}{_mark(row)}' if score == row.metric else '--'
      for score in ('accuracy', 'macro accuracy', 'macro F1')
    ]
    lines.append(' & '.join((*(escape(getattr(row, c)) for c in _COLUMNS), *values)) + r' \\')
  lines.append('\\bottomrule')
  notes = []
  if any(not math.isnan(s.scores['accuracy'].low) for s in summaries):
    notes.append('Percent, with 95\\,\\% intervals over subjects.')
  notes += [
    f'\\textsuperscript{{{mark}}} {escape(EVIDENCE[evidence])}.'
    for evidence, mark in MARKS.items()
    if mark and any(row.evidence == evidence for row in published)
  ]
  notes += [
    escape(note) for note in dict.fromkeys(note for s in summaries for note in s.experiment.notes)
  ]
  lines += [f'\\multicolumn{{8}}{{l}}{{\\footnotesize {note}}} \\\\' for note in notes]
  return '\n'.join([*lines, '\\end{tabular}', ''])


def escape(text: str) -> str:
  """Text with LaTeX's special characters escaped."""
  return ''.join(_SPECIAL.get(c, c) for c in text)


def _mark(row: PublishedFigure) -> str:
  mark = MARKS[row.evidence]
  return f'\\textsuperscript{{{mark}}}' if mark else ''


def _with_interval(interval: Interval) -> str:
  text = f'{100 * interval.estimate:.1f}'
  if math.isnan(interval.low):
    return text
  return f'{text} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]'


def _percent(value: float) -> str:
  return '' if math.isnan(value) else f'{100 * value:.2f}'
