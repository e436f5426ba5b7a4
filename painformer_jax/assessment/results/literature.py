"""What others report, to stand beside a run's own figures.

Every row carries how well it is known: 'V' read in the publication's abstract,
figures, README or code; 'S' as another publication reports it; 'M' recalled and
unverified, shown with a mark and no claim.
"""

import dataclasses
from typing import Literal

Evidence = Literal['V', 'S', 'M']
EVIDENCE = {'V': 'verified', 'S': 'reported by another source', 'M': 'unverified'}
NOT_STATED = 'not stated'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
  """One published figure.

  Attributes:
    dataset: as `Study.name` begins.
    task: as in `protocols.TASKS`.
    modality: inputs.
    method: name of the method.
    metric: what the value is.
    figure: in percent, with the digits that are known.
    protocol: how it was tested.
    source: who reports it.
    evidence: how well it is known here.
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

  @property
  def verified(self) -> bool:
    """Whether some publication that was read says so."""
    return self.evidence != 'M'


_PAINFORMER = 'PainFormer, arXiv 2505.01571'
_LOSO = 'leave-one-subject-out'
_SECOND_HAND = 'a later publication'
_RECALLED = f'{_PAINFORMER}, from memory'


def _biovid(
  modality: str, method: str, figure: str, *, protocol: str, source: str, evidence: Evidence
) -> Row:
  return Row(
    dataset='BioVid Part A',
    task='BL1-PA4',
    modality=modality,
    method=method,
    metric='accuracy',
    figure=figure,
    protocol=protocol,
    source=source,
    evidence=evidence,
  )


def _ai4pain(modality: str, method: str, figure: str, *, source: str, evidence: Evidence) -> Row:
  return Row(
    dataset='AI4Pain 2024',
    task='3-class',
    modality=modality,
    method=method,
    metric='accuracy',
    figure=figure,
    protocol='fixed split, test',
    source=source,
    evidence=evidence,
  )


_OURS = {'protocol': _LOSO, 'source': f'{_PAINFORMER}, as {_SECOND_HAND} reports', 'evidence': 'S'}
_OURS_RECALLED = {'protocol': _LOSO, 'source': _RECALLED, 'evidence': 'M'}
_OTHERS = {'source': _SECOND_HAND, 'evidence': 'S'}

ROWS: tuple[Row, ...] = (
  _biovid('RGB', 'PainFormer', '76.3', **_OURS),
  _biovid('thermal', 'PainFormer', '71.55', **_OURS_RECALLED),
  _biovid('depth', 'PainFormer', '71.67', **_OURS_RECALLED),
  _biovid('ECG', 'PainFormer', '75.5', **_OURS),
  _biovid('EMG', 'PainFormer', '72.02', **_OURS_RECALLED),
  _biovid('GSR', 'PainFormer', '89.0', **_OURS),
  _biovid('RGB+thermal+depth+GSR', 'PainFormer', '89.1', **_OURS),
  _biovid('face+EDA', 'JMT', '89.1', protocol=NOT_STATED, **_OTHERS),
  _biovid('EDA+ECG', 'CrossMod-Transformer', '87.52', protocol=_LOSO, **_OTHERS),
  _biovid(NOT_STATED, 'Aslam', '86.90', protocol=_LOSO, **_OTHERS),
  _biovid(NOT_STATED, 'Li', '86.21', protocol=_LOSO, **_OTHERS),
  _ai4pain('fNIRS', 'challenge baseline', '43.3', source='the challenge', evidence='V'),
  _ai4pain('face', 'challenge baseline', '40.1', source='the challenge', evidence='V'),
  _ai4pain('face+fNIRS', 'challenge baseline', '41.7', source='the challenge', evidence='V'),
  _ai4pain(NOT_STATED, 'Twins-PainViT', '46.76', source='Twins-PainViT', evidence='V'),
  _ai4pain(NOT_STATED, 'PainFormer', '55.69', source=_RECALLED, evidence='M'),
  _ai4pain(NOT_STATED, 'ReFace', '56.00', source='ReFace', evidence='V'),
)


def rows(dataset: str, task: str) -> tuple[Row, ...]:
  """Those of a dataset and a task, in the table's order."""
  return tuple(r for r in ROWS if (r.dataset, r.task) == (dataset, task))
