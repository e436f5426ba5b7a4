"""The table of results on the terminal."""

import math
from collections.abc import Sequence

from painformer_jax.assessment.results import literature
from painformer_jax.assessment.results.summary import Summary
from painformer_jax.core.tables import aligned, cut

_HEADER = ('task', 'modality', 'method', 'accuracy', '95 %', 'macro', 'F1', 'chance', 'n')
_WIDTH = 26  # Of a modality and a method; longer ones are cut.


def table(summaries: Sequence[Summary]) -> str:
  """A line for each experiment, then the literature on the same data, in percent."""
  rows = [_HEADER]
  for s in summaries:
    e, score = s.experiment, s.scores['accuracy']
    interval = '' if math.isnan(score.low) else f'{100 * score.low:.1f}-{100 * score.high:.1f}'
    rows.append(
      (
        e.task,
        cut(e.modality, _WIDTH),
        cut(e.method, _WIDTH),
        f'{100 * score.estimate:.1f}',
        interval,
        f'{100 * s.scores["macro accuracy"].estimate:.1f}',
        f'{100 * s.scores["macro F1"].estimate:.1f}',
        f'{100 * s.chance:.1f}',
        f'{len(e.runs[0].label):,}',
      )
    )
  published = [
    figure
    for key in dict.fromkeys((s.experiment.dataset, s.experiment.task) for s in summaries)
    for figure in literature.published(*key)
  ]
  for row in published:
    rows.append(
      (
        row.task,
        cut(row.modality, _WIDTH),
        cut(row.method, _WIDTH),
        f'{row.figure} {literature.MARKS[row.evidence]}'.rstrip(),
        '',
        '',
        '',
        '',
        '',
      )
    )
  lines = aligned(rows, right=range(3, len(_HEADER)))
  lines += [
    f'{mark} {literature.EVIDENCE[evidence]}'
    for evidence, mark in literature.MARKS.items()
    if mark and any(row.evidence == evidence for row in published)
  ]
  if published:
    lines.append(
      'protocol here: '
      + '; '.join(dict.fromkeys(s.experiment.protocol for s in summaries))
      + '. Of the published figures: '
      + '; '.join(dict.fromkeys(row.protocol for row in published))
    )
  for note in dict.fromkeys(note for s in summaries for note in s.experiment.notes):
    whose = [s.experiment.name for s in summaries if note in s.experiment.notes]
    lines.append(note if len(whose) == len(summaries) else f'{"; ".join(whose)}: {note}')
  return '\n'.join(lines)
