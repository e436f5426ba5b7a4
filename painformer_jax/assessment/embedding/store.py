"""Embeddings of a study on disk: written part by part, kept with what made them.

<folder>/<name>/record.json    all that the embeddings depend on; written first
<folder>/<name>/files.json     a fingerprint of each recording
<folder>/<name>/parts/*.npz    finished runs of samples, until all are done
<folder>/<name>/values.npy     float32 [samples, tokens, width], NaN where nothing is
<folder>/<name>/mask.npy       bool [samples, tokens]
<folder>/<name>/summary.json   tokens and troubles; written last
"""

import contextlib
import dataclasses
import fcntl
import json
import os
import pathlib
import shutil
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from painformer_jax.assessment.datasets.recordings import named
from painformer_jax.assessment.embedding.record import INFORMATION, differences
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically, write_json


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
  """The embeddings of one modality.

  Attributes:
    values: float32 [samples, tokens, width], in the order of the study's samples;
      NaN where the mask is False. Memory-mapped and read-only from a store.
    mask: bool [samples, tokens], the embeddings that are there.
    labels: of each token: 'frame 12', 'gsr psd'.
  """

  values: np.ndarray
  mask: np.ndarray
  labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trouble:
  """What is wrong with a modality of a sample.

  Attributes:
    sample: its name.
    what: is wrong.
    left_out: whether nothing of it could be used, so that it is masked.
  """

  sample: str
  what: str
  left_out: bool

  def __str__(self) -> str:
    return f'{self.sample}{" left out" if self.left_out else ""}: {self.what}'


class EmbeddingStore:
  """Finished embeddings of a study; see `embeddings.compute_embeddings`.

  Args:
    folder: that holds them.
    names: of the modalities.
    samples: names of the study's samples.

  Raises:
    InputError: something is missing or damaged, or of other samples.
  """

  def __init__(self, folder: str | os.PathLike, names: Sequence[str], samples: Sequence[str]):
    self.folder, self.names, self.samples = pathlib.Path(folder), tuple(names), tuple(samples)
    self._parts = {name: ModalityFolder(self.folder / name) for name in names}
    for part in self._parts.values():
      if not part.finished:
        raise InputError(f'{part.path} holds no finished embeddings')
      if part.record()['samples']['count'] != len(self.samples):
        raise InputError(f'{part.path} has embeddings of other samples than the study')

  def tokens(self, name: str) -> Tokens:
    """The embeddings of one modality.

    Raises:
      InputError: it is not in the store, or its files are damaged.
    """
    return self._part(name).tokens()

  def troubles(self, name: str) -> tuple[Trouble, ...]:
    """What was wrong with a modality's samples, in their order."""
    return self._part(name).troubles()

  def record(self, name: str) -> dict:
    """All that a modality's embeddings depend on, to be kept with results."""
    return self._part(name).record()

  def stand_in(self, name: str) -> str:
    """What the images were made of in place of the modality; '' for nothing."""
    return self._part(name).record()[INFORMATION]['stand_in']

  def describe(self, name: str) -> str:
    """'gsr: 400 samples x 4 embeddings of 160 numbers; 2 left out, such as A: flat'."""
    tokens, troubles = self.tokens(name), self.troubles(name)
    samples, count, width = tokens.values.shape
    line = f'{name}: {samples:,} samples x {count} embeddings of {width} numbers'
    lost = [trouble for trouble in troubles if trouble.left_out]
    if lost:
      line += f'; {len(lost)} left out, such as {lost[0].sample}: {lost[0].what}'
    if len(troubles) > len(lost):
      line += f'; {len(troubles) - len(lost)} used in part'
    if self.stand_in(name):
      line += f'; a stand-in: {self.stand_in(name)}'
    return line

  def _part(self, name: str) -> 'ModalityFolder':
    if name not in self._parts:
      raise InputError(
        f'there are no embeddings {name!r} in {self.folder}, only {", ".join(self.names)}'
      )
    return self._parts[name]


class ModalityFolder:
  """One modality's folder, while it is made and after.

  Args:
    path: of the folder; need not exist.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)
    self._parts = self.path / 'parts'

  @property
  def finished(self) -> bool:
    return (self.path / 'summary.json').is_file()

  def record(self) -> dict:
    """As it was written.

    Raises:
      InputError: it is missing or damaged.
    """
    return self._read_json('record.json')

  def begin(self, record: Mapping, files: Mapping[str, str]) -> None:
    """Starts the folder, or checks that what it holds was made the same way.

    Args:
      record: all that the embeddings depend on, JSON; see `embedding_record`.
      files: recording -> fingerprint, '' for one that is not there.

    Raises:
      InputError: it was made in another way, from other recordings, or is something
        else.
    """
    record = json.loads(json.dumps(record))
    if not (self.path / 'record.json').is_file():
      self._make(record, files)
      return
    there = self.record()
    differing = list(differences(there, record))
    if differing:
      raise InputError(
        f'{self.path} holds embeddings made otherwise ({named(differing)}): '
        'name another folder, or remove that one'
      )
    before = self._read_json('files.json')
    # Finished embeddings can be used where the recordings are not at hand.
    changed = [
      path
      for path, state in files.items()
      if state != before.get(path) and (state or not self.finished)
    ]
    if changed:
      raise InputError(
        f'{self.path} holds embeddings of recordings that have changed since '
        f'({named(changed)}): name another folder, or remove that one'
      )
    if self.finished:
      shutil.rmtree(self._parts, ignore_errors=True)

  def _make(self, record: Mapping, files: Mapping[str, str]) -> None:
    try:
      if self.path.is_dir() and any(
        not p.name.startswith('.') and p.name != 'files.json' for p in self.path.iterdir()
      ):
        raise InputError(f'{self.path} holds other things than embeddings; name a new folder')
      self.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(f'{self.path} cannot be written: {error.strerror}') from error
    write_json(self.path / 'files.json', files)
    write_json(self.path / 'record.json', record)

  @contextlib.contextmanager
  def locked(self) -> Iterator[None]:
    """Keeps other processes from writing to the folder.

    Raises:
      InputError: one is doing so.
    """
    with open(self.path / '.lock', 'wb') as file:
      try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        raise InputError(
          f'another process is embedding into {self.path}: wait for it, then '
          'run the same command again'
        ) from error
      except OSError:
        pass  # A file system without locks.
      # What a killed process has left; that among the parts goes with them.
      for leftover in self.path.glob('.*.partial'):
        leftover.unlink(missing_ok=True)
      yield

  def done(self) -> int:
    """How many samples, from the first, have been written in parts."""
    stop = 0
    for first, last, _ in self._spans():
      if first != stop:
        raise InputError(
          f'{self._parts} lacks the samples from {stop} to {first}: remove {self.path}'
        )
      stop = last
    return stop

  def write_part(
    self,
    first: int,
    last: int,
    *,
    samples: np.ndarray,
    tokens: np.ndarray,
    values: np.ndarray,
    troubles: Sequence[Trouble],
  ) -> None:
    """Keeps a finished run of samples.

    Args:
      first, last: of the samples, the last not included.
      samples: int [rows], the sample of each embedding.
      tokens: int [rows], its place.
      values: float32 [rows, width].
      troubles: of these samples.

    Raises:
      InputError: it cannot be written, such as on a full disk.
    """
    try:
      self._parts.mkdir(exist_ok=True)
    except OSError as error:
      raise InputError(f'{self._parts} cannot be written: {error.strerror}') from error
    text = json.dumps([dataclasses.asdict(trouble) for trouble in troubles])
    write_atomically(
      self._parts / f'{first:08d}-{last:08d}.npz',
      lambda file: np.savez(
        file,
        samples=np.asarray(samples, np.int64),
        tokens=np.asarray(tokens, np.int64),
        values=np.asarray(values, np.float32),
        troubles=np.array(text),
      ),
    )

  def left_out(self) -> list[Trouble]:
    """Those of the parts so far of which nothing could be used."""
    return [trouble for part in self._read_parts() for trouble in part.troubles if trouble.left_out]

  def finish(self, *, samples: int, width: int, labels: Callable[[int], Sequence[str]]) -> None:
    """Joins the parts; holds one sample in memory at a time.

    Args:
      samples: of the study, all in parts.
      width: of the embeddings.
      labels: takes the number of tokens, gives the label of each.

    Raises:
      InputError: it cannot be written.
    """
    tokens = 1 + max(
      (int(part.tokens.max()) for part in self._read_parts() if len(part.tokens)), default=0
    )
    mask = np.zeros((samples, tokens), bool)
    troubles = []

    def write(file) -> None:
      np.lib.format.write_array_header_1_0(
        file, {'descr': '<f4', 'fortran_order': False, 'shape': (samples, tokens, width)}
      )
      for part in self._read_parts():
        mask[part.samples, part.tokens] = True
        troubles.extend(part.troubles)
        bounds = np.searchsorted(part.samples, np.arange(part.first, part.last + 1))
        for start, stop in zip(bounds, bounds[1:]):
          block = np.full((tokens, width), np.nan, '<f4')
          block[part.tokens[start:stop]] = part.values[start:stop]
          file.write(block.data)

    write_atomically(self.path / 'values.npy', write)
    write_atomically(self.path / 'mask.npy', lambda file: np.save(file, mask))
    write_json(
      self.path / 'summary.json',
      {'tokens': labels(tokens), 'troubles': [dataclasses.asdict(t) for t in troubles]},
    )
    shutil.rmtree(self._parts, ignore_errors=True)

  def tokens(self) -> Tokens:
    """Of finished embeddings; see `EmbeddingStore.tokens`."""
    labels = tuple(self._read_json('summary.json')['tokens'])
    try:
      values = np.load(self.path / 'values.npy', mmap_mode='r', allow_pickle=False)
      mask = np.load(self.path / 'mask.npy', allow_pickle=False)
      if values.shape[:2] != mask.shape or mask.shape[1] != len(labels):
        raise ValueError('its arrays do not fit one another')
    except (OSError, ValueError, EOFError) as error:
      raise InputError(f'{self.path} is damaged ({error}): remove it') from error
    return Tokens(values=values, mask=mask, labels=labels)

  def troubles(self) -> tuple[Trouble, ...]:
    """Of finished embeddings; see `EmbeddingStore.troubles`."""
    return tuple(Trouble(**fields) for fields in self._read_json('summary.json')['troubles'])

  def _spans(self) -> list[tuple[int, int, pathlib.Path]]:
    return sorted(
      (*map(int, path.stem.split('-')), path)
      for path in self._parts.glob('*.npz')
      if not path.name.startswith('.')
    )

  def _read_parts(self) -> Iterator['_Part']:
    for first, last, path in self._spans():
      try:
        with np.load(path, allow_pickle=False) as file:
          arrays = {name: file[name] for name in ('samples', 'tokens', 'values')}
          troubles = json.loads(str(file['troubles']))
      except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
          f'{path} is damaged: remove {self.path}, then run the same command again'
        ) from error
      yield _Part(
        first=first, last=last, **arrays, troubles=tuple(Trouble(**fields) for fields in troubles)
      )

  def _read_json(self, name: str) -> dict:
    try:
      content = json.loads((self.path / name).read_text())
      if not isinstance(content, dict):
        raise ValueError('no JSON object')
      return content
    except (OSError, ValueError) as error:
      raise InputError(f'{self.path / name} is damaged ({error}): remove {self.path}') from error


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Part:
  """Samples `first` to `last` - 1; see `ModalityFolder.write_part`."""

  first: int
  last: int
  samples: np.ndarray
  tokens: np.ndarray
  values: np.ndarray
  troubles: tuple[Trouble, ...]
