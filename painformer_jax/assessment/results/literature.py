"""Published figures, to stand beside a run's own.

Every figure says how well it is known: 'verified' was read in the publication's abstract,
figures, README or code; 'secondary' is what another publication reports; 'assumed' is
recalled from memory and not checked. Tables mark the last two.
"""

import dataclasses
from typing import Literal

Evidence = Literal['verified', 'secondary', 'assumed']
EVIDENCE = {
  'verified': 'read in the publication itself',
  'secondary': 'as another publication reports it',
  'assumed': 'recalled from memory, not checked',
}
# What tables put behind a figure.
MARKS = {'verified': '', 'secondary': '*', 'assumed': '**'}
NOT_STATED = 'not stated'


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublishedFigure:
  """One published figure.

  Attributes:
    dataset: as in `Study.name`.
    task: as in `tasks.TASKS`.
    modality: what the method takes as input.
    method: name of the method.
    metric: which score the figure is, a name in `metrics.SCORES`.
    figure: in percent, with the digits that are known.
    protocol: how the method was tested.
    source: the publication that reports it.
    evidence: how well the figure is known here, a key of `EVIDENCE`.
  """

  dataset: str
  task: str
  modality: str
  method: str
  metric: str
  figure: str
  protocol: str
  source: str
  evidence: Evidence

  @property
  def value(self) -> float:
    """The figure as a number, in percent."""
    return float(self.figure)


_PAINFORMER = 'PainFormer, arXiv 2505.01571'
_LOSO = 'leave-one-subject-out'
_SECOND_HAND = 'a later publication'
_RECALLED = f'{_PAINFORMER}, from memory'


def _figure(modality: str, method: str, figure: str, **fields) -> PublishedFigure:
  return PublishedFigure(
    modality=modality, method=method, metric='accuracy', figure=figure, **fields
  )


_BIOVID = {'dataset': 'BioVid Part A', 'task': 'BL1-PA4'}
_OURS = {
  **_BIOVID,
  'protocol': _LOSO,
  'source': f'{_PAINFORMER}, as {_SECOND_HAND} reports',
  'evidence': 'secondary',
}
_OURS_RECALLED = {**_BIOVID, 'protocol': _LOSO, 'source': _RECALLED, 'evidence': 'assumed'}
_OTHERS = {**_BIOVID, 'source': _SECOND_HAND, 'evidence': 'secondary'}
_AI4PAIN = {'dataset': 'AI4Pain 2024', 'task': '3-class', 'protocol': 'fixed split, test'}
_CHALLENGE = {**_AI4PAIN, 'source': 'the challenge', 'evidence': 'verified'}

FIGURES: tuple[PublishedFigure, ...] = (
  _figure('RGB', 'PainFormer', '76.3', **_OURS),
  _figure('thermal', 'PainFormer', '71.55', **_OURS_RECALLED),
  _figure('depth', 'PainFormer', '71.67', **_OURS_RECALLED),
  _figure('ECG', 'PainFormer', '75.5', **_OURS),
  _figure('EMG', 'PainFormer', '72.02', **_OURS_RECALLED),
  _figure('GSR', 'PainFormer', '89.0', **_OURS),
  _figure('RGB+thermal+depth+GSR', 'PainFormer', '89.1', **_OURS),
  _figure('face+EDA', 'JMT', '89.1', protocol=NOT_STATED, **_OTHERS),
  _figure('EDA+ECG', 'CrossMod-Transformer', '87.52', protocol=_LOSO, **_OTHERS),
  _figure(NOT_STATED, 'Aslam', '86.90', protocol=_LOSO, **_OTHERS),
  _figure(NOT_STATED, 'Li', '86.21', protocol=_LOSO, **_OTHERS),
  _figure('fNIRS', 'challenge baseline', '43.3', **_CHALLENGE),
  _figure('face', 'challenge baseline', '40.1', **_CHALLENGE),
  _figure('face+fNIRS', 'challenge baseline', '41.7', **_CHALLENGE),
  _figure(
    NOT_STATED, 'Twins-PainViT', '46.76', source='Twins-PainViT', evidence='verified', **_AI4PAIN
  ),
  _figure(NOT_STATED, 'PainFormer', '55.69', source=_RECALLED, evidence='assumed', **_AI4PAIN),
  _figure(NOT_STATED, 'ReFace', '56.00', source='ReFace', evidence='verified', **_AI4PAIN),
)


def published(dataset: str, task: str) -> tuple[PublishedFigure, ...]:
  """The figures of a dataset and a task, in the table's order."""
  return tuple(f for f in FIGURES if (f.dataset, f.task) == (dataset, task))
