"""Opens prepared tasks, and reads their records by index.

DATA_DIR/<task>/<version>/   a TFDS dataset in ArrayRecord files, written by
                             builders/base.py, also readable with
                             `tfds.builder_from_directory`.
"""

import dataclasses
import hashlib
import json
import re
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

import tensorflow_datasets as tfds
from google.protobuf.message import DecodeError
from tensorflow_datasets.proto import tf_example_pb2

from painformer_jax.core.errors import InputError
from painformer_jax.core.tables import aligned

FEATURES = ('image', 'label', 'key', 'source', 'identity')
# Many systems allow 1,024 open files, and far more to processes that ask for them.
_MANY_FILES = 65_536
# Folder in a task's folder, for what `builders.base.store` has not finished.
UNFINISHED = '.incomplete'
HOW_TO_PREPARE = '`painformer data prepare --help` says how to prepare one'


class Records:
  """The records of a split: `records[i]` is a dict of what is stored.

  Keys: `image` (bytes, an encoded PNG or JPEG), `label` (int), `key`, `source`
  and `identity` (str). Safe to read from many threads.
  """

  def __init__(self, task: str, split: str, raw):
    self.task = task
    self.split = split
    self._raw = raw

  def __len__(self) -> int:
    return len(self._raw)

  def __getitem__(self, index: int) -> dict:
    try:
      # Needs a half to a third of the time that TFDS's feature decoders hold the
      # interpreter lock.
      features = tf_example_pb2.Example.FromString(self._raw[int(index)]).features.feature
      return {
        'image': features['image'].bytes_list.value[0],
        'label': features['label'].int64_list.value[0],
        'key': features['key'].bytes_list.value[0].decode(),
        'source': features['source'].bytes_list.value[0].decode(),
        'identity': features['identity'].bytes_list.value[0].decode(),
      }
    except (RuntimeError, DecodeError, IndexError, UnicodeDecodeError) as error:
      if 'Too many open files' in str(error):
        raise InputError(
          f"task '{self.task}' and the others have more files than this process may "
          f'open, {resource.getrlimit(resource.RLIMIT_NOFILE)[0]:,}: raise the limit '
          'with `ulimit -n 8192` (or ask your administrator)'
        ) from error
      raise InputError(
        f"task '{self.task}', split '{self.split}': record {index} of "
        f"{len(self)} is damaged ({error}); delete the task's folder and "
        'prepare it again'
      ) from error


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedTask:
  """A stored task.

  Attributes:
    name: name of the task, of its folder and of its head.
    path: the folder of this version.
    classes: class names, in the order of the labels.
    modality: kind of input, such as 'face' or 'waveform'.
    description: what the classes are, and how the split was made.
    licence: terms of the recordings.
    sizes: split name -> number of images.
    shards: split name -> how many records each of its files holds.
    sha256: split name -> SHA-256 of the digests of its shards; a shard's is that of the
      digests of its records (key, label, image), in order.
    settings: what decided the images besides the source's files.
    listing: shard -> SHA-256 of the list of images that it was made from.
  """

  name: str
  path: Path
  classes: tuple[str, ...]
  modality: str
  description: str
  licence: str
  sizes: Mapping[str, int]
  shards: Mapping[str, tuple[int, ...]]
  sha256: Mapping[str, str]
  settings: str
  listing: Mapping[str, str]

  def records(self, split: str) -> Records:
    """The split's records.

    Raises:
      InputError: there is no such split.
    """
    if split not in self.sizes:
      raise InputError(
        f"task '{self.name}' in {self.path} has no split '{split}', only {', '.join(self.sizes)}"
      )
    _allow_many_files()
    raw = _builder(self.path).as_data_source(
      split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
    )
    return Records(self.name, split, raw)


def list_tasks(data_dir: str | Path) -> list[str]:
  """Names of the tasks stored in `data_dir`, sorted.

  Raises:
    InputError: `data_dir` is not a folder.
  """
  data_dir = mounted(data_dir)
  if not data_dir.is_dir():
    raise InputError(
      f'there is no data folder {data_dir}; {HOW_TO_PREPARE}, '
      '`painformer data demo` makes the demo tasks'
    )
  return sorted(p.name for p in data_dir.iterdir() if _versions(p))


def unfinished_tasks(data_dir: str | Path) -> list[str]:
  """Names of the tasks that are being stored, or whose storing was interrupted."""
  return sorted(p.parent.name for p in mounted(data_dir).glob(f'*/{UNFINISHED}'))


def mounted(data_dir: str | Path) -> Path:
  """The data folder as a path.

  Raises:
    InputError: it is the address of a bucket, which is no path.
  """
  if re.match(r'[a-z][a-z0-9]+:/', str(data_dir)):
    raise InputError(
      f'{data_dir} is an address, not a folder: records are read in random order; '
      'mount the bucket (gcsfuse, s3fs) and give the folder'
    )
  return Path(data_dir)


def open_task(data_dir: str | Path, name: str) -> PreparedTask:
  """Opens the newest version of a prepared task; reads its metadata only.

  Raises:
    InputError: the task is not there, its folder is damaged or was written by another
      program.
  """
  there = list_tasks(data_dir)
  if name not in there:
    if name in unfinished_tasks(data_dir):
      raise InputError(
        f"task '{name}' in {data_dir} is not finished: wait, or run the command that "
        'prepares it again, which resumes where it stopped'
      )
    raise InputError(
      f"no task '{name}' in {data_dir} (there: {', '.join(there) or 'none'}); {HOW_TO_PREPARE}"
    )
  path = _versions(Path(data_dir) / name)[-1]
  try:
    info = _builder(path).info
    metadata = json.loads((path / 'metadata.json').read_text())
    missing = [f for f in FEATURES if f not in info.features]
    if missing:
      raise ValueError(f"it has no feature '{missing[0]}'")
    task = PreparedTask(
      name=name,
      path=path,
      classes=tuple(info.features['label'].names),
      modality=metadata['modality'],
      description=metadata['description'],
      licence=metadata['licence'],
      sizes={s: split.num_examples for s, split in info.splits.items()},
      shards={s: tuple(split.shard_lengths) for s, split in info.splits.items()},
      sha256=metadata['sha256'],
      settings=metadata['settings'],
      listing=metadata['listing'],
    )
    files = [Path(f) for s in info.splits.values() for f in s.filepaths]
  except Exception as error:
    # Whatever TFDS and the JSON reader raise on mangled metadata, it is the
    # folder that is at fault.
    raise InputError(
      f'{path} is damaged or was not written by `painformer data` '
      f'({type(error).__name__}: {error}); delete it and prepare the task '
      'again'
    ) from error
  gone = [f for f in files if not f.is_file() or f.stat().st_size == 0]
  if gone:
    raise InputError(f'{gone[0]} is missing or empty; delete {path} and prepare the task again')
  return task


def table(tasks: Sequence[PreparedTask]) -> str:
  """A line about each task, from its metadata; no record is read."""
  rows = [('task', 'modality', 'classes', 'images', 'MB', 'stored')]
  for task in tasks:
    size = sum(file.stat().st_size for file in task.path.iterdir())
    rows.append(
      (
        task.name,
        task.modality,
        f'{len(task.classes):,}',
        ' + '.join(f'{count:,} {split}' for split, count in task.sizes.items()),
        f'{size / 1e6:,.1f}',
        task.settings,
      )
    )
  return '\n'.join(aligned(rows, right=(2, 4)))


def record_digest(*, key: str, label: int, image: bytes) -> bytes:
  """SHA-256 of one record; a shard's digest is that of its records' digests, in order."""
  return hashlib.sha256(f'{len(key)}:{key}:{label}:{len(image)}:'.encode() + image).digest()


def split_sha256(shards: Sequence[str]) -> str:
  """SHA-256 of a split, from those of its shards in order."""
  return hashlib.sha256('\n'.join(shards).encode()).hexdigest()


def _allow_many_files() -> None:
  """Raises the limit of open files as far as allowed, because shards stay open."""
  soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
  if soft != resource.RLIM_INFINITY and soft < _MANY_FILES:
    most = _MANY_FILES if hard == resource.RLIM_INFINITY else min(hard, _MANY_FILES)
    if most > soft:
      resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


def _builder(path: Path) -> tfds.core.DatasetBuilder:
  return tfds.builder_from_directory(str(path))


def _versions(folder: Path) -> list[Path]:
  """Version folders of a task, oldest first; none where it is no task."""
  if not folder.is_dir():
    return []
  return sorted(
    (p for p in folder.iterdir() if tfds.core.Version.is_valid(p.name)),
    key=lambda p: tfds.core.Version(p.name),
  )
