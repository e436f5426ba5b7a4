"""Miniature copies of the corpus's dataset folders, quirks included.

Each function writes a few tiny images or signals below a folder as the real
dataset lays them out, and returns the folder to name as the source. `TASKS`
says for each of the corpus's 14 tasks which layout and reader make it.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from tiny_tasks import encode, tiny_image

from painformer_jax.data.builders.catalog import READERS
from painformer_jax.data.task_source import TaskSource

RATE = 64
# A file that begins as a photograph and ends in the middle.
_CUT = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Miniature:
  """How one task of the corpus is made from its miniature.

  Attributes:
    reader: name in `READERS`.
    write: writes the layout, returns the source.
    classes: how many the miniature has.
    options: of the reader.
  """

  reader: str
  write: Callable[[Path], Path]
  classes: int
  options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def corpus_task(
  name: str,
  folder: Path,
  *,
  image_size: int = 32,
  report: Callable[[str], None] = lambda line: None,
) -> TaskSource:
  """Writes the miniature of one of `TASKS` below `folder`, and lists it."""
  task = TASKS[name]
  source = task.write(folder / name)
  return READERS[task.reader].build(
    source, name=name, image_size=image_size, report=report, **task.options
  )


def image_file(
  path: Path, *, label: int, classes: int, size: tuple[int, int] = (24, 20), damaged: bool = False
) -> None:
  """Writes a small image, [height, width] `size`, brighter for higher labels."""
  path.parent.mkdir(parents=True, exist_ok=True)
  image = tiny_image(path.as_posix()[-40:], 0, label=label, classes=classes, image_size=max(size))
  content = encode(image[: size[0], : size[1]], path.suffix.lower())
  path.write_bytes(content[: int(len(content) * _CUT)] if damaged else content)


def vggface2(root: Path, *, people: int = 6, images: int = 12) -> Path:
  """The last third of the people in Test/; one upper-case suffix; one cut file.

  identity_meta.csv has spaces after its commas, quoted names (with commas in
  them), a comma at the end of some lines, and an identity that is not there.
  """
  lines = ['Class_ID, Name, Sample_Num, Flag, Gender']
  for i in range(people):
    identity = f'n{i * 7 + 1:06}'
    train = i < people - people // 3
    for k in range(images):
      suffix = '.JPG' if (i, k) == (1, 3) else '.jpg'
      image_file(
        root / ('train' if train else 'Test') / identity / f'{k + 1:04}_01{suffix}',
        label=i,
        classes=people,
        damaged=(i, k) == (0, 5),
      )
    name = (f'"Ann_{i}"', f'"O\'Neil, ""Sam"" {i}"', f'Jos\u00e9_{i}')[i % 3]
    lines.append(f'{identity}, {name}, {images}, {int(train)}, {"mf"[i % 2]}{"," if i % 2 else ""}')
  lines.append('n999999, "Nobody", 100, 1, f')
  (root / 'identity_meta.csv').write_text('\n'.join(lines) + '\n', encoding='utf-8')
  (root / 'train' / '.cache').mkdir()
  (root / 'train' / 'notes').mkdir()
  return root


def digiface(root: Path, *, nested: bool = True) -> Path:
  """Four identities of eight images and six of five, in folders by archive."""
  for i in range(10):
    many = i < 4
    identity = str(i if many else 100_000 + i)
    part = 'subjects_0-1999_72_imgs' if many else 'subjects_100000-133332_5_imgs'
    folder = root / part / identity if nested else root / identity
    for k in range(8 if many else 5):
      image_file(folder / f'{k}.png', label=i, classes=10)
  (root / 'LICENSE.txt').write_text('Non-commercial.')
  return root


def speakingfaces(root: Path, *, subjects: int = 3, frames: int = 3) -> Path:
  """Three people in three folders, two trials, both cameras; mixed case.

  Subject 2 has no thermal frames of trial 2; among subject 1's colour frames
  lies one of the camera before alignment (_2).
  """
  parts = ('train_data', 'valid_data', 'Test_Data')
  for s in range(subjects):
    number = (1, 101, 121)[s % 3] + s // 3
    for trial in (1, 2):
      folder = root / parts[s % 3] / f'sub_{number}' / f'trial_{trial}'
      for command in range(5):
        for frame in range(1, frames + 1):
          stem = f'{number}_{trial}_2_{command % 9 + 1}_{command + 100}_{frame}'
          image_file(folder / 'rgb_image_cmd_aligned' / f'{stem}_3.png', label=s, classes=subjects)
          if (s, trial) != (1, 2):
            image_file(folder / 'thr_image_cmd' / f'{stem}_1.png', label=s, classes=subjects)
  image_file(
    root / 'train_data/sub_1/trial_1/rgb_image_cmd_aligned/1_1_2_1_100_1_2.png', label=0, classes=2
  )
  (root / 'metadata').mkdir()
  return root


AFFECTNET_HEADER = (
  'subDirectory_filePath,face_x,face_y,face_width,face_height,'
  'facial_landmarks,expression,valence,arousal'
)


def affectnet_lists(root: Path, *, per_class: int = 4) -> Path:
  """Layout (a): lists with boxes; expressions 8 to 10; a file that is not there.

  The validation list has no header; one image has no box, one a box outside; a
  suffix differs in case between list and disk; one image is in both lists.
  """
  home = root / 'Manually_Annotated' / 'Manually_Annotated_Images'
  lists = root / 'Manually_Annotated_file_lists'
  lists.mkdir(parents=True)
  rows = {'training': [AFFECTNET_HEADER], 'validation': []}
  for name, count in (('training', per_class), ('validation', 2)):
    for label in range(11):
      for k in range(count):
        path = f'{label + 1}/{name[0]}{k:02}abc.jpg'
        image_file(home / path, label=label, classes=11, size=(30, 30))
        box = (
          'NULL,NULL,NULL,NULL'
          if (label, k) == (1, 0)
          else '500,500,20,20'
          if (label, k) == (2, 0)
          else '5,6,16,18'
        )
        listed = path.replace('.jpg', '.JPG') if (label, k) == (3, 1) else path
        rows[name].append(f'{listed},{box},1.0;2.0;3.0,{label},-2,-2')
  rows['training'].append('77/gone.jpg,0,0,9,9,,0,-2,-2')
  rows['training'].append(rows['validation'][0])
  for name, lines in rows.items():
    (lists / f'{name}.csv').write_text('\n'.join(lines) + '\n')
  return root


def affectnet_annotations(root: Path, *, per_class: int = 3) -> Path:
  """Layout (b): the label as text ('3') or number; one annotation is missing."""
  for part, count in (('train_set', per_class), ('val_set', 1)):
    number = 0
    (root / part / 'annotations').mkdir(parents=True)
    for label in range(8):
      for _ in range(count):
        image_file(root / part / 'images' / f'{number}.jpg', label=label, classes=8)
        value = str(label) if number % 2 else label
        np.save(root / part / 'annotations' / f'{number}_exp.npy', value)
        np.save(root / part / 'annotations' / f'{number}_val.npy', '0.1')
        number += 1
  (root / 'train_set/annotations/4_exp.npy').unlink()
  return root


def rafdb(root: Path, *, part: str, classes: int, per_class: int = 4) -> Path:
  """One part below its own folder; a CRLF list; one listed image is missing."""
  lines = []
  for split, count in (('train', per_class), ('test', 2)):
    number = 0
    for label in range(1, classes + 1):
      for _ in range(count):
        number += 1
        lines.append(f'{split}_{number:05}.jpg {label}')
        image_file(
          root / part / 'Image' / 'aligned' / f'{split}_{number:05}_aligned.jpg',
          label=label - 1,
          classes=classes,
        )
  (root / part / 'Image/aligned/train_00002_aligned.jpg').unlink()
  (root / part / 'EmoLabel').mkdir()
  (root / part / 'EmoLabel' / 'list_patition_label.txt').write_text('\r\n'.join(lines) + '\r\n')
  return root


def rafdb_basic(root: Path) -> Path:
  return rafdb(root, part='basic', classes=7)


def rafdb_compound(root: Path) -> Path:
  return rafdb(root, part='Compound', classes=11)


def compound_fee_db(root: Path, *, people: int = 6, classes: int = 26) -> Path:
  """A manifest of images: one image a person and expression, split by person."""
  lines = ['path, label, identity,']
  for person in range(people):
    for label in range(classes):
      path = f'person {person:03}/{label + 1:02}.jpg'
      image_file(root / path, label=label, classes=classes)
      lines.append(f'"{path}", expression_{label + 1:02}, p{person},')
  (root / 'manifest.csv').write_text('\n'.join(lines) + '\n')
  return root


def eeg_bst_sz(root: Path, *, people: int = 6) -> Path:
  """A CSV file a person with a column a channel; windows; split by person."""
  root.mkdir(parents=True, exist_ok=True)
  lines = ['signal,column,rate,start,stop,label,identity']
  for person in range(people):
    label = person % 2
    time = np.arange(RATE * 8) / RATE
    rng = np.random.default_rng(person)
    columns = {
      c: np.sin(2 * np.pi * (4 + 8 * label + k) * time) + 0.2 * rng.standard_normal(len(time))
      for k, c in enumerate(('Fz', 'FCz'))
    }
    (root / f'{person + 1}.csv').write_text(
      '\n'.join(
        [
          'sample, Fz, FCz',
          *(f'{i}, {a:.5f}, {b:.5f}' for i, (a, b) in enumerate(zip(*columns.values()))),
        ]
      )
      + '\n'
    )
    for channel in columns:
      for start in (0, 2, 4):
        lines.append(
          f'{person + 1}.csv,{channel},{RATE},{start},{start + 4},'
          f'{("control", "patient")[label]},subject {person + 1}'
        )
  (root / 'manifest.csv').write_text('\n'.join(lines) + '\n')
  return root


def silent_emg(root: Path, *, classes: int = 8) -> Path:
  """.npy files of [samples, 2 channels], a row a channel, with a split column."""
  (root / 'emg').mkdir(parents=True)
  lines = ['signal\tcolumn\trate\tlabel\tsplit']
  for label in range(classes):
    for k in range(4):
      rng = np.random.default_rng([label, k])
      file = f'emg/{label}_{k}_emg.npy'
      np.save(
        root / file,
        rng.standard_normal((RATE * 4, 2))
        * (1 + np.sin(np.arange(RATE * 4)[:, None] * (label + 1) / 20)),
      )
      for channel in (0, 1):
        lines.append(f'{file}\t{channel}\t{RATE}\tword {label}\t{"Test" if k == 3 else "train"}')
  (root / 'manifest.tsv').write_text('\n'.join(lines) + '\n')
  return root


def ecg_hbc(root: Path, *, beats: int = 4, samples: int = 187) -> Path:
  """Beats as rows of a headerless CSV file and a Parquet manifest."""
  import pyarrow
  import pyarrow.parquet

  root.mkdir(parents=True, exist_ok=True)
  columns = {'signal': [], 'row': [], 'stop': [], 'label': [], 'split': []}
  for file, split in (('mitbih_train.csv', 'train'), ('mitbih_test.csv', 'test')):
    lines = []
    for label in range(5):
      for k in range(beats):
        width = 3 + k + (split == 'test') * beats
        beat = np.exp(-(((np.arange(samples) - 20 * (label + 1)) / width) ** 2))
        lines.append(','.join(f'{v:.4e}' for v in (*beat, label)))
        columns['signal'].append(file)
        columns['row'].append(len(lines) - 1)
        # Without the last column, which is the label.
        columns['stop'].append(samples / 125)
        columns['label'].append('NSVFQ'[label])
        columns['split'].append(split)
    (root / file).write_text('\n'.join(lines) + '\n')
  pyarrow.parquet.write_table(pyarrow.table(columns), root / 'manifest.parquet')
  return root


_WAVEFORM = {'representation': 'waveform'}
_PSD = {'representation': 'psd', 'segment': 64}
_ECG = {'rate': 125.0, 'classes': 'N,S,V,F,Q'}
_AFFECTNET = {'max_missing': 0.05}

TASKS: dict[str, Miniature] = {
  'vggface2': Miniature(reader='vggface2', write=vggface2, classes=6),
  'digiface': Miniature(reader='digiface', write=digiface, classes=10),
  'speakingfaces_rgb': Miniature(reader='speakingfaces-rgb', write=speakingfaces, classes=3),
  'speakingfaces_thermal': Miniature(
    reader='speakingfaces-thermal', write=speakingfaces, classes=3
  ),
  'affectnet': Miniature(reader='affectnet', write=affectnet_lists, classes=8, options=_AFFECTNET),
  'rafdb_basic': Miniature(reader='rafdb-basic', write=rafdb_basic, classes=7),
  'rafdb_compound': Miniature(reader='rafdb-compound', write=rafdb_compound, classes=11),
  'compound_fee_db': Miniature(
    reader='manifest', write=compound_fee_db, classes=26, options={'modality': 'face'}
  ),
  'eeg_bst_sz_waveform': Miniature(
    reader='manifest', write=eeg_bst_sz, classes=2, options=_WAVEFORM
  ),
  'eeg_bst_sz_psd': Miniature(reader='manifest', write=eeg_bst_sz, classes=2, options=_PSD),
  'silent_emg_waveform': Miniature(
    reader='manifest', write=silent_emg, classes=8, options=_WAVEFORM
  ),
  'silent_emg_psd': Miniature(reader='manifest', write=silent_emg, classes=8, options=_PSD),
  'ecg_hbc_waveform': Miniature(
    reader='manifest', write=ecg_hbc, classes=5, options={**_WAVEFORM, **_ECG}
  ),
  'ecg_hbc_psd': Miniature(reader='manifest', write=ecg_hbc, classes=5, options={**_PSD, **_ECG}),
}
