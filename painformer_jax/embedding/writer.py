"""Embeddings, and where each comes from, as one .npz file."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import BinaryIO

import numpy as np

from painformer_jax.core.files import write_atomically
from painformer_jax.core.targets import NAME, VERSION_FIELD, FileKind, check_file_target
from painformer_jax.embedding.reader import LocatedImage

# Facts about all embeddings.
_FACTS = ('weights', 'modality', 'settings', 'stand_in')


def _is_own(file: BinaryIO) -> bool:
  """Nothing more and nothing less than what `EmbeddingWriter` writes."""
  with np.load(file) as arrays:
    return arrays.files == [NAME, 'columns', *arrays['columns'].tolist(), *_FACTS]


KIND = FileKind(suffixes=('.npz',), is_own=_is_own)


def check_path(path: str | os.PathLike, *, inputs: Iterable[str | os.PathLike] = ()) -> None:
  """Refuses a path that `EmbeddingWriter` would refuse.

  Args:
    path: of the file to write.
    inputs: files and folders that are read; none may be the path.

  Raises:
    InputError: it does not end in .npz; it is read, or exists and was not written by this
      class; its folder does not exist or cannot be written to.
  """
  check_file_target(path, KIND, inputs=inputs)


class EmbeddingWriter:
  """Collects embeddings in memory; `write` puts them into an .npz file.

  100,000 embeddings, over an hour of video, take 71 MiB, and 172 MiB while they are written.

  Args:
    path: of the file, as for `write_atomically`: links are followed, pipes stay pipes.
    columns: of the reader, name -> dtype.

  Attributes:
    rows: how many embeddings were added.
    non_finite: how many of them hold NaN or infinity.

  """

  def __init__(self, path: str | os.PathLike, columns: Mapping[str, type]):
    self._path, self._dtypes = path, {'source': str, **columns}
    self._columns: dict[str, list] = {name: [] for name in self._dtypes}
    self._embeddings: list[np.ndarray] = []
    self.rows = self.non_finite = 0

  def add(self, embeddings: np.ndarray, images: Sequence[LocatedImage]) -> None:
    """Adds the embeddings of some images.

    Args:
      embeddings: float32 [n, width].
      images: the n images.
    """
    self._embeddings.append(embeddings)
    for image in images:
      self._columns['source'].append(image.source)
      for name, value in image.location.items():
        self._columns[name].append(value)
    self.rows += len(images)
    self.non_finite += int((~np.isfinite(embeddings).all(axis=1)).sum())

  def write(
    self, *, weights: str = '', modality: str = '', settings: str = '', stand_in: str = ''
  ) -> None:
    """Writes the file: `embedding` [n, width] float32, each column [n], and the facts.

    Its first array, `painformer_jax`, is the version of this package; its second, `columns`,
    names those of a row for each embedding.

    Raises:
      InputError: as `check_path` says; the disk is full or the file cannot be written.
    """
    check_path(self._path)
    rows = {'embedding': np.concatenate(self._embeddings)}
    rows |= {name: np.array(self._columns[name], self._dtypes[name]) for name in self._dtypes}
    facts = dict(zip(_FACTS, (weights, modality, settings, stand_in), strict=True))
    write_atomically(
      self._path, lambda file: np.savez(file, **VERSION_FIELD, columns=list(rows), **rows, **facts)
    )
