"""The table of an assessment as plain text."""

import math
from collections.abc import Sequence

from painformer_jax.assessment.results import literature
from painformer_jax.assessment.results.summary import Summary

_HEADER = ('task', 'modality', 'method', 'accuracy', '95 %', 'macro', 'F1', 'chance', 'n')
_MARKS = {'V': '', 'S': ' *', 'M': ' **'}
_WIDTHS = {'modality': 26, 'method': 26}


def table(summaries: Sequence[Summary]) -> str:
  """A line for each experiment, then the literature on the same data, in percent."""
  rows = [_HEADER]
  for s in summaries:
    e, score = s.experiment, s.scores['accuracy']
    interval = '' if math.isnan(score.low) else f'{100 * score.low:.1f}-{100 * score.high:.1f}'
    rows.append(
      (
        e.task,
        _cut(e.modality, 'modality'),
        _cut(e.method, 'method'),
        f'{100 * score.estimate:.1f}',
        interval,
        f'{100 * s.scores["macro accuracy"].estimate:.1f}',
        f'{100 * s.scores["macro F1"].estimate:.1f}',
        f'{100 * s.chance:.1f}',
        f'{len(e.runs[0].label):,}',
      )
    )
  published = [
    row
    for key in dict.fromkeys((s.experiment.dataset, s.experiment.task) for s in summaries)
    for row in literature.rows(*key)
  ]
  for row in published:
    rows.append(
      (
        row.task,
        _cut(row.modality, 'modality'),
        _cut(row.method, 'method'),
        f'{row.figure}{_MARKS[row.evidence]}',
        '',
        '',
        '',
        '',
        '',
      )
    )
  widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
  lines = [
    '  '.join(
      cell.ljust(width) if i < 3 else cell.rjust(width)
      for i, (cell, width) in enumerate(zip(row, widths))
    ).rstrip()
    for row in rows
  ]
  lines += [
    f'{mark.strip()} {literature.EVIDENCE[evidence]}'
    for evidence, mark in _MARKS.items()
    if mark and any(row.evidence == evidence for row in published)
  ]
  if published:
    lines.append(
      'protocol here: '
      + '; '.join(dict.fromkeys(s.experiment.protocol for s in summaries))
      + '. Of the published rows: '
      + '; '.join(dict.fromkeys(row.protocol for row in published))
    )
  for note in dict.fromkeys(note for s in summaries for note in s.experiment.notes):
    whose = [s.experiment.name for s in summaries if note in s.experiment.notes]
    lines.append(note if len(whose) == len(summaries) else f'{"; ".join(whose)}: {note}')
  return '\n'.join(lines)


def _cut(text: str, column: str) -> str:
  width = _WIDTHS[column]
  return text if len(text) <= width else text[: width - 3] + '...'
