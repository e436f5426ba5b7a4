"""Levels over time, and their text for files: CSV and JSON."""

import csv
import dataclasses
import io
import json

import numpy as np

from painformer_jax.assessment.clips.assessor import Assessor
from painformer_jax.core.targets import FileKind, begins, json_fields, json_kind
from painformer_jax.modalities import depth

_COLUMNS = ('start', 'stop', 'level')
# Of files with the texts of `as_text`.
KINDS = {
  'csv': FileKind(
    suffixes=('.csv',),
    # The notice, and the columns after it.
    is_own=begins(rb'#[^\n]+\n(#[^\n]*\n)*start,stop,level,p [^\n]*,abstained\n'),
  ),
  'json': json_kind('assessment'),
}

RELATIVE = (
  'levels are relative to this recording: its own windows give the mean and the spread '
  'that embeddings are standardised by, so one without any pain may show every level'
)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Curve:
  """The level of each window of a recording.

  Attributes:
    classes: names of the levels.
    start, stop: float64 [windows], in seconds.
    probability: float64 [windows, classes], NaN where the assessor abstains.
    reason: why the assessor abstains from a window; '' where it does not.
  """

  classes: tuple[str, ...]
  start: np.ndarray
  stop: np.ndarray
  probability: np.ndarray
  reason: tuple[str, ...]

  @property
  def level(self) -> list[str]:
    """The most probable class of each window, '' where the assessor abstains."""
    return [
      '' if why else self.classes[int(np.argmax(row))]
      for row, why in zip(self.probability, self.reason)
    ]


def as_text(curve: Curve, assessor: Assessor) -> dict[str, str]:
  """The curve as 'csv' and as 'json'.

  Both begin with the notice, and say whether levels are relative and which modalities
  are stand-ins.
  """
  text = io.StringIO()
  text.write(f'# {assessor.notice}\n')
  relative = RELATIVE if assessor.is_relative else None
  if relative:
    text.write(f'# {relative}\n')
  stand_ins = {
    name: depth.STAND_IN for name, settings in assessor.settings.items() if settings.stand_in
  }
  text.writelines(f'# {name}: a stand-in: {what}\n' for name, what in stand_ins.items())
  writer = csv.writer(text, lineterminator='\n')
  writer.writerow((*_COLUMNS, *(f'p {c}' for c in curve.classes), 'abstained'))
  rows = list(zip(curve.start, curve.stop, curve.level, curve.probability, curve.reason))
  for start, stop, level, probability, why in rows:
    writer.writerow(
      (f'{start:.3f}', f'{stop:.3f}', level, *('' if why else f'{p:.4f}' for p in probability), why)
    )
  record = {
    **json_fields('assessment'),
    'notice': assessor.notice,
    'task': assessor.task,
    'classes': list(curve.classes),
    'relative': relative,
    'stand_ins': stand_ins,
    'measured': dict(assessor.measured),
    'windows': [
      {
        'start': round(float(start), 3),
        'stop': round(float(stop), 3),
        'level': level or None,
        'probability': None if why else [round(float(p), 4) for p in probability],
        'abstained': why or None,
      }
      for start, stop, level, probability, why in rows
    ],
  }
  return {'csv': text.getvalue(), 'json': json.dumps(record, indent=2) + '\n'}
