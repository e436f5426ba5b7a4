"""SpeakingFaces: 142 people reading commands, in colour and thermal video.

    SOURCE/{train,valid,test}_data/sub_<N>/trial_{1,2}/
      rgb_image_cmd_aligned/<sub>_<trial>_<session>_<position>_<command>_<frame>_3.png
      thr_image_cmd/<sub>_<trial>_<session>_<position>_<command>_<frame>_1.png

or, as its archives on Hugging Face unpack, SOURCE/image_audio/sub_<N>_ia/trial_{1,2}/
with the same folders; sub_<N> may also lie in SOURCE itself.

The three folders hold different people. PainFormer's task has 142 classes, so
all are classes of one task here; which frames its authors held out is not
public; the split here is reconstructed. Neighbouring frames are nearly equal, so whole
utterances (one command read once) or the whole second trial are held out, never single
frames.
"""

import dataclasses
import re
from pathlib import Path
from typing import Literal, get_args

from painformer_jax.core.errors import InputError, counted
from painformer_jax.data.builders.image_files import (
  ImageReader,
  Report,
  StoredAs,
  check_fraction,
  find_child,
  list_files,
  list_folders,
  named,
  require_folder,
  split_by,
  unreadable,
)
from painformer_jax.data.task_source import Item, TaskSource

PEOPLE = 142
LICENCE = 'SpeakingFaces (ISSAI, Nazarbayev University): terms as its page states'
HoldOut = Literal['command', 'trial']
HOLD_OUTS: tuple[str, ...] = get_args(HoldOut)
_SUBJECT = re.compile(r'sub_?0*(\d+)(?:_ia)?', re.IGNORECASE)
_TRIAL = re.compile(r'trial_?0*(\d+)', re.IGNORECASE)
_FRAME = re.compile(r'(.+)_(\d+)_(\d+)\.\w+')


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Camera:
  """One of the two cameras.

  Attributes:
    folder: of a trial, with the frames.
    suffix: number at the end of the frames' names.
    modality: kind of input, stored with the task.
    words: describes the frames.
  """

  folder: str
  suffix: str
  modality: str
  words: str


_CAMERAS = {
  'rgb': _Camera(
    folder='rgb_image_cmd_aligned',
    suffix='3',
    modality='face',
    words='colour frames, aligned with the thermal ones',
  ),
  'thermal': _Camera(
    folder='thr_image_cmd', suffix='1', modality='thermal', words='thermal frames'
  ),
}


def speakingfaces_task(
  source: str | Path,
  name: str,
  *,
  stream: Literal['rgb', 'thermal'],
  image_size: int = 224,
  short_side: int = 0,
  encoding: str = 'jpeg',
  hold_out: HoldOut = 'command',
  test_fraction: float = 0.1,
  split_seed: int = 0,
  frame_step: int = 1,
  report: Report = print,
) -> TaskSource:
  """Lists one camera's frames as one class per subject.

  Args:
    source: the folder of {train,valid,test}_data, or of sub_<N> folders.
    name: the task's name.
    stream: which camera.
    image_size, short_side, encoding: see `image_files.StoredAs`.
    hold_out: 'command' holds out a share of each subject's utterances, 'trial'
      everything of trial 2 (subjects with one trial are only trained on).
    test_fraction: share of utterances, for 'command'.
    split_seed: of that choice.
    frame_step: every so many-th frame of an utterance is taken.
    report: takes a line for each thing that is not as in the release.

  Raises:
    InputError: the folder has another layout, cannot be read, or an option is out of
      range.
  """
  stored = StoredAs(image_size=image_size, short_side=short_side, encoding=encoding)
  check_fraction(test_fraction)
  if hold_out not in HOLD_OUTS:
    raise InputError(f'hold_out is {" or ".join(HOLD_OUTS)}, not {hold_out!r}')
  if frame_step < 1:
    raise InputError(f'the frame step must be 1 or more, not {frame_step}')
  source = require_folder(source)
  camera = _CAMERAS[stream]
  try:
    frames = _list_frames(source, camera, report)
  except OSError as error:
    raise unreadable(source, error) from error
  subjects = sorted({frame.subject for frame in frames})
  if len(subjects) < 2:
    raise InputError(
      f'{source} has frames of {counted(len(subjects), "subject")}; expected '
      f'folders such as train_data/sub_1/trial_1/{camera.folder}'
    )
  if len(subjects) != PEOPLE:
    report(f'{name}: {counted(len(subjects), "subject")} found; the release has {PEOPLE}')
  labels = {subject: label for label, subject in enumerate(subjects)}
  frames.sort(key=lambda f: (f.subject, f.trial, f.utterance, f.number, f.key))
  items = [Item(key=f.key, label=labels[f.subject], detail=f) for f in _every(frames, frame_step)]
  splits, how = _split(source, items, hold_out, test_fraction=test_fraction, seed=split_seed)
  return TaskSource(
    name=name,
    classes=tuple(f'sub_{subject}' for subject in subjects),
    modality=camera.modality,
    description=(
      f'Which of {len(subjects)} people, from {camera.words}, while reading '
      'commands (SpeakingFaces). Closed set: the same people in both splits; '
      f'{how} (reconstructed). Every '
      f'{"frame" if frame_step == 1 else f"{frame_step}. frame"} of an '
      f'utterance. Images are {stored}.'
    ),
    licence=LICENCE,
    # Reading needs the key alone; a million details would take memory.
    splits={
      split: [dataclasses.replace(item, detail=None) for item in of] for split, of in splits.items()
    },
    read=ImageReader(root=str(source), stored=stored),
    checked=True,
    settings=str(stored),
  )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Frame:
  key: str
  subject: int
  trial: int
  utterance: str
  number: int


def _list_frames(source: Path, camera: _Camera, report: Report) -> list[_Frame]:
  frames, without, strange = [], [], []
  for subject_folder, subject in _subjects(source):
    for trial_name in list_folders(source / subject_folder):
      match = _TRIAL.fullmatch(trial_name)
      if not match:
        continue
      trial = f'{subject_folder}/{trial_name}'
      folder = find_child(source / trial, camera.folder)
      if folder is None:
        without.append(trial)
        continue
      for file in list_files(folder):
        key = f'{trial}/{folder.name}/{file}'
        parts = _FRAME.fullmatch(file)
        if parts is None or parts[3] != camera.suffix:
          strange.append(key)
          continue
        frames.append(
          _Frame(
            key=key, subject=subject, trial=int(match[1]), utterance=parts[1], number=int(parts[2])
          )
        )
  if without:
    report(f'left out: {counted(len(without), "trial")} without {camera.folder}: {named(without)}')
  if strange:
    report(
      f"left out: {counted(len(strange), 'image')} not named as this camera's "
      f'(..._<frame>_{camera.suffix}.png): {named(strange)}'
    )
  return frames


def _subjects(source: Path) -> list[tuple[str, int]]:
  """Folders of subjects below the source, and their numbers."""
  parts = [
    p.name
    for names in (
      ('train_data', 'train'),
      ('valid_data', 'valid'),
      ('test_data', 'test'),
      ('image_audio',),
    )
    if (p := find_child(source, *names))
  ]
  found = {}
  for part in parts or ['']:
    for folder in list_folders(source / part):
      match = _SUBJECT.fullmatch(folder)
      if not match:
        continue
      path = f'{part}/{folder}' if part else folder
      number = int(match[1])
      if number in found:
        raise InputError(
          f'{source}: subject {number} is in two folders, {found[number]} and '
          f'{path}; the release has each in one: remove or rename one'
        )
      found[number] = path
  return [(found[number], number) for number in sorted(found)]


def _every(frames: list[_Frame], step: int) -> list[_Frame]:
  """Each utterance's first frame and every `step`-th after it."""
  taken, seen = [], {}
  for frame in frames:
    place = (frame.subject, frame.trial, frame.utterance)
    count = seen.get(place, 0)
    if count % step == 0:
      taken.append(frame)
    seen[place] = count + 1
  return taken


def _split(
  source: Path, items: list[Item], hold_out: HoldOut, *, test_fraction: float, seed: int
) -> tuple[dict[str, list[Item]], str]:
  if hold_out == 'command':
    splits = split_by(
      items,
      lambda item: f'{item.detail.trial}/{item.detail.utterance}',
      fraction=test_fraction,
      seed=seed,
    )
    how = (
      f'{test_fraction:g} of the utterances of each held out whole, by seed '
      f'{seed}; another reading of the same command may be on the other side'
    )
  else:
    others = {i.label for i in items if i.detail.trial != 2}
    splits = {'train': [], 'test': []}
    for item in items:
      held = item.detail.trial == 2 and item.label in others
      splits['test' if held else 'train'].append(item)
    how = 'trial 2 held out whole, of those who have another'
  for split, of in splits.items():
    if not of:
      raise InputError(
        f"{source}: nothing is left for '{split}' with hold_out {hold_out}: "
        'each subject needs two utterances, or two trials'
      )
  return splits, how
