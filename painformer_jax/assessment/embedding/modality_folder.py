"""The embeddings of one modality on disk: written part by part, with what made them.

<folder>/<name>/record.json    all that the embeddings depend on; written first
<folder>/<name>/files.json     a fingerprint of each recording
<folder>/<name>/parts/*.npz    embeddings of consecutive samples, until all are done
<folder>/<name>/values.npy     float32 [samples, tokens, width], NaN where there is none
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
from painformer_jax.assessment.embedding.record import differences
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically, write_json


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Tokens:
  """The embeddings of one modality.

  Attributes:
    values: float32 [samples, tokens, width], in the order of the study's samples;
      NaN where the mask is False. Memory-mapped and read-only from a store.
    mask: bool [samples, tokens], which embeddings exist.
    labels: of each token, such as 'frame 12' or 'gsr psd'.
  """

  values: np.ndarray
  mask: np.ndarray
  labels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trouble:
  """What is wrong with one modality of a sample.

  Attributes:
    sample: its name.
    what: what is wrong.
    left_out: whether nothing of it could be used, so that all its tokens are masked.
  """

  sample: str
  what: str
  left_out: bool

  def __str__(self) -> str:
    return f'{self.sample}{" left out" if self.left_out else ""}: {self.what}'


class ModalityFolder:
  """The folder of one modality, while it is written and afterwards.

  Args:
    path: of the folder, which need not exist.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = pathlib.Path(path)
    self._parts = self.path / 'parts'

  @property
  def finished(self) -> bool:
    return (self.path / 'summary.json').is_file()

  def record(self) -> dict:
    """All that the embeddings depend on, as it was written.

    Raises:
      InputError: it is missing or damaged.
    """
    return self._read_json('record.json')

  def begin(self, record: Mapping, files: Mapping[str, str]) -> None:
    """Starts the folder, or checks that its embeddings were made in the same way.

    Args:
      record: all that the embeddings depend on, for JSON; see `record`.
      files: recording -> fingerprint, '' for one that is missing.

    Raises:
      InputError: its embeddings were made in another way or from other recordings, or it
        holds something else.
    """
    record = json.loads(json.dumps(record))
    if not (self.path / 'record.json').is_file():
      self._make(record, files)
      return
    there = self.record()
    differing = list(differences(there, record))
    if differing:
      raise InputError(
        f'{self.path} holds embeddings made in another way ({named(differing)}): '
        'name another folder, or remove that one'
      )
    before = self._read_json('files.json')
    # Finished embeddings can be used without the recordings.
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
    """Keeps other processes from writing to the folder meanwhile.

    Raises:
      InputError: another process is writing to it.
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
      # Left by a killed process; those among the parts are removed with them.
      for leftover in self.path.glob('.*.partial'):
        leftover.unlink(missing_ok=True)
      yield

  def done(self) -> int:
    """How many samples, from the first on, are in parts.

    Raises:
      InputError: samples in between are missing.
    """
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
    """Writes the embeddings of consecutive samples.

    Args:
      first, last: the samples, `last` excluded.
      samples: int [n], the sample of each embedding.
      tokens: int [n], the token of each embedding.
      values: float32 [n, width].
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
    """The samples in the parts so far of which nothing could be used."""
    return [trouble for part in self._read_parts() for trouble in part.troubles if trouble.left_out]

  def finish(self, *, samples: int, width: int, labels: Callable[[int], Sequence[str]]) -> None:
    """Joins the parts, with one sample in memory at a time.

    Args:
      samples: number of samples, all of which are in parts.
      width: of the embeddings.
      labels: from the number of tokens to the label of each.

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
