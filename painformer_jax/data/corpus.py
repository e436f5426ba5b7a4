"""The 14 tasks that PainFormer was pre-trained on, as a table.

The paper's abstract says that there were 14 tasks with 10.9 M samples, trained at once
(verified). Which tasks they were is reconstructed. Other papers by the same authors name
the face datasets (secondary) and a block of 4.4 M samples of biosignals. How that block
divides into tasks, and most counts, are recalled and unverified (assumed).
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from painformer_jax.core.config_fields import hint
from painformer_jax.core.errors import InputError
from painformer_jax.core.tables import aligned
from painformer_jax.data.prepared import PreparedTask

# Samples of all tasks together, as published.
PUBLISHED_SAMPLES = 10_900_000
# Allowed relative differences: counts here are rounded to two or three digits, such as
# RAF-DB's 15,339 images to 15,000, and DigiFace-1M's 109,999 identities to 110,000.
ROUNDING = 0.03
CLASS_ROUNDING = 1e-4

Evidence = Literal['verified', 'secondary', 'assumed']


@dataclasses.dataclass(frozen=True, kw_only=True)
class CorpusTask:
  """One of the 14 tasks.

  Attributes:
    name: of the prepared task.
    samples: number of images, rounded, training and test together.
    classes: number of classes.
    modality: kind of input, as stored with the prepared task.
    dataset: full name of the dataset.
    reader: name for `painformer data prepare READER`.
    page: name of its page in painformer_jax/data/pages.
    licence: terms, in a few words.
    access: whom to ask for the data.
    augment: policy of `data.augment` in the full pre-training (reconstructed).
    evidence: 'verified': read in the release or the paper's abstract; 'secondary':
      reported by another source; 'assumed': recalled and unverified.
  """

  name: str
  samples: int
  classes: int
  modality: str
  dataset: str
  reader: str
  page: str
  licence: str
  access: str
  augment: str
  evidence: Evidence


_RESEARCH = 'research only, by agreement'


def _biosignal(name, samples, classes, modality, dataset, page, access) -> CorpusTask:
  return CorpusTask(
    name=name,
    samples=samples,
    classes=classes,
    modality=modality,
    dataset=dataset,
    reader='manifest',
    page=page,
    licence='as its owners state',
    access=access,
    augment='spectrogram' if modality == 'spectrogram' else 'signal',
    evidence='assumed',
  )


_EEG = ('EEG-BST-SZ', 'eeg_bst_sz', 'the authors of EEG-BST-SZ')
_EMG = ('Silent-EMG', 'silent_emg', 'the authors of Silent-EMG')
_ECG = ('ECG-HBC', 'ecg_hbc', 'the authors of ECG-HBC')

CORPUS: tuple[CorpusTask, ...] = (
  CorpusTask(
    name='vggface2',
    samples=3_310_000,
    classes=9_131,
    modality='face',
    dataset='VGGFace2',
    reader='vggface2',
    page='vggface2',
    licence='research; the official download has ended',
    access='Visual Geometry Group, University of Oxford',
    augment='paper',
    evidence='secondary',
  ),
  CorpusTask(
    name='digiface',
    samples=1_220_000,
    classes=110_000,
    modality='face',
    dataset='DigiFace-1M',
    reader='digiface',
    page='digiface',
    licence='non-commercial research',
    access='Microsoft (github.com/microsoft/DigiFace1M)',
    augment='paper',
    evidence='secondary',
  ),
  CorpusTask(
    name='speakingfaces_rgb',
    samples=760_000,
    classes=142,
    modality='face',
    dataset='SpeakingFaces, RGB',
    reader='speakingfaces-rgb',
    page='speakingfaces',
    licence='by request; terms not confirmed',
    access='ISSAI, Nazarbayev University',
    augment='paper',
    evidence='secondary',
  ),
  CorpusTask(
    name='speakingfaces_thermal',
    samples=760_000,
    classes=142,
    modality='thermal',
    dataset='SpeakingFaces, thermal',
    reader='speakingfaces-thermal',
    page='speakingfaces',
    licence='by request; terms not confirmed',
    access='ISSAI, Nazarbayev University',
    augment='thermal',
    evidence='secondary',
  ),
  CorpusTask(
    name='affectnet',
    samples=400_000,
    classes=8,
    modality='face',
    dataset='AffectNet',
    reader='affectnet',
    page='affectnet',
    licence=_RESEARCH,
    access='M. H. Mahoor, University of Denver',
    augment='paper',
    evidence='secondary',
  ),
  CorpusTask(
    name='rafdb_basic',
    samples=15_000,
    classes=7,
    modality='face',
    dataset='RAF-DB, basic expressions',
    reader='rafdb-basic',
    page='rafdb',
    licence=_RESEARCH,
    access='W. Deng, BUPT (whdeng.cn)',
    augment='paper',
    evidence='secondary',
  ),
  CorpusTask(
    name='rafdb_compound',
    samples=4_000,
    classes=11,
    modality='face',
    dataset='RAF-DB, compound expressions',
    reader='rafdb-compound',
    page='rafdb',
    licence=_RESEARCH,
    access='W. Deng, BUPT (whdeng.cn)',
    augment='paper',
    evidence='secondary',
  ),
  CorpusTask(
    name='compound_fee_db',
    samples=6_000,
    classes=26,
    modality='face',
    dataset='Compound FEE-DB',
    reader='manifest',
    page='compound_fee_db',
    licence=_RESEARCH,
    access='A. M. Martinez, Ohio State University',
    augment='paper',
    evidence='secondary',
  ),
  _biosignal('eeg_bst_sz_waveform', 1_500_000, 2, 'waveform', *_EEG),
  _biosignal('eeg_bst_sz_psd', 1_500_000, 2, 'spectrogram', *_EEG),
  _biosignal('silent_emg_waveform', 190_000, 8, 'waveform', *_EMG),
  _biosignal('silent_emg_psd', 190_000, 8, 'spectrogram', *_EMG),
  _biosignal('ecg_hbc_waveform', 450_000, 5, 'waveform', *_ECG),
  _biosignal('ecg_hbc_psd', 450_000, 5, 'spectrogram', *_ECG),
)


def chosen(names: str = '') -> tuple[CorpusTask, ...]:
  """Tasks of the corpus by their names, separated by commas; '' for all 14.

  Raises:
    InputError: one is not in the corpus, or named twice.
  """
  if not names:
    return CORPUS
  wanted = [name.strip() for name in names.split(',')]
  known = {task.name: task for task in CORPUS}
  for name in wanted:
    if name not in known:
      raise InputError(f"no task '{name}' in the corpus{hint(name, known)}")
    if wanted.count(name) > 1:
      raise InputError(f"task '{name}' is named twice")
  return tuple(task for task in CORPUS if task.name in wanted)


def task_configs(tasks: Sequence[CorpusTask] = CORPUS) -> dict[str, dict]:
  """The corpus as the value of `config.tasks`: every task with its augmentation."""
  return {task.name: {'augment': task.augment} for task in tasks}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskComparison:
  """A task of the corpus compared with the prepared task of its name.

  Attributes:
    task: the task of the corpus.
    samples: prepared images of all splits; 0 where none is prepared.
    classes: of the prepared task; 0 where none is prepared.
    verdict: 'as published' (within rounding), 'missing', or what differs.
  """

  task: CorpusTask
  samples: int
  classes: int
  verdict: str


def compare(prepared: Mapping[str, PreparedTask]) -> list[TaskComparison]:
  """Compares prepared tasks with the corpus, in the order of CORPUS.

  Args:
    prepared: name -> prepared task.
  """
  found = []
  for task in CORPUS:
    there = prepared.get(task.name)
    samples = sum(there.sizes.values()) if there else 0
    classes = len(there.classes) if there else 0
    if there is None:
      verdict = 'missing'
    else:
      differs = []
      if abs(classes - task.classes) > CLASS_ROUNDING * task.classes:
        differs.append(f'{classes:,} classes, not {task.classes:,}')
      if abs(samples / task.samples - 1) > ROUNDING:
        differs.append(f'{samples / task.samples:.1%} of the samples')
      if there.modality != task.modality:
        differs.append(f"modality '{there.modality}', not '{task.modality}'")
      verdict = ', '.join(differs) or 'as published'
    found.append(TaskComparison(task=task, samples=samples, classes=classes, verdict=verdict))
  return found


def table(comparisons: Sequence[TaskComparison]) -> str:
  """The comparisons as lines of text, with totals beside the published ones."""
  rows = [('corpus task', 'samples', 'published', 'classes', 'published', 'evidence', 'verdict')]
  for c in comparisons:
    rows.append(
      (
        c.task.name,
        f'{c.samples:,}',
        f'{c.task.samples:,}',
        f'{c.classes:,}',
        f'{c.task.classes:,}',
        c.task.evidence,
        c.verdict,
      )
    )
  there = sum(c.samples > 0 for c in comparisons)
  rows.append(
    (
      f'{there} of {len(CORPUS)}',
      f'{sum(c.samples for c in comparisons):,}',
      f'{sum(t.samples for t in CORPUS):,}',
      '',
      '',
      '',
      f'paper, all tasks: {PUBLISHED_SAMPLES / 1e6:.1f} M',
    )
  )
  lines = aligned(rows, right=(1, 2, 3, 4))
  lines.append(
    'evidence: secondary = reported by another source, assumed = recalled, unverified; '
    'which 14 tasks were trained is reconstructed, so totals need not agree'
  )
  return '\n'.join(lines)
