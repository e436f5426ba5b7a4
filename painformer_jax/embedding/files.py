"""Files of any modality to an .npz of embeddings, streaming."""

import dataclasses
import itertools
import os
import pathlib
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Meter
from painformer_jax.core.read_ahead import read_ahead
from painformer_jax.embedding.inference import Embedder
from painformer_jax.embedding.npz import NpzWriter
from painformer_jax.embedding.pictures import PictureReader
from painformer_jax.embedding.reader import Reader, Row
from painformer_jax.modalities import canvas
from painformer_jax.modalities import sheet as sheets
from painformer_jax.models.painformer import PainFormer

_BATCHES_AHEAD = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sheet:
  """A picture of what the model sees: its first images, with captions.

  Attributes:
    path: of the .png or .jpg.
    images: how many, at most.
  """

  path: str | os.PathLike
  images: int = 48

  def __post_init__(self):
    canvas.check_path(self.path)
    if not 1 <= self.images <= 2000:
      raise InputError(f'a sheet shows 1 to 2000 images, not {self.images}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
  """What became of the inputs.

  Attributes:
    rows: written.
    files: found.
    problems: a line for each bad file.
    remarks: what was left out of good files, in words; '' for nothing.
    non_finite: rows whose embedding holds NaN or infinity.
  """

  rows: int
  files: int
  problems: tuple[str, ...]
  remarks: str = ''
  non_finite: int = 0


def find_files(
  inputs: Iterable[str | os.PathLike], *, suffixes: frozenset[str] = PictureReader.suffixes
) -> tuple[list[str], list[str]]:
  """Files among the inputs and in their folders, in a stable order.

  Args:
    inputs: files of any name, and folders; of these, all files with the suffixes
      at any depth, sorted by path.
    suffixes: lower-case, with the dot; images and videos by default.

  Returns:
    The files, and a line for each input that is not there or holds nothing, and
    for each entry of a folder that cannot be read.
  """
  files, problems = [], []
  for name in map(str, inputs):
    try:
      is_folder = stat.S_ISDIR(os.stat(name).st_mode)
    except (FileNotFoundError, NotADirectoryError):
      problems.append(f'{name} does not exist')
    except OSError as error:
      problems.append(f'{name} cannot be read: {error.strerror}')
    else:
      if not is_folder:
        files.append(name)
        continue
      found, faults = _in_folder(name, suffixes)
      files += found
      problems += faults
      if not found and not faults:
        what = (
          'image or video'
          if suffixes == PictureReader.suffixes
          else f'file that ends in {", ".join(sorted(suffixes))}'
        )
        problems.append(f'{name} holds no {what}')
  return files, problems


def _in_folder(name: str, suffixes: frozenset[str]) -> tuple[list[str], list[str]]:
  """The files at any depth, and a line for each entry that cannot be one."""
  found, problems = [], []

  def unreadable(error: OSError) -> None:
    problems.append(f'{error.filename} cannot be read: {error.strerror}')

  for folder, _, entries in os.walk(name, onerror=unreadable):
    for path in (pathlib.Path(folder, entry) for entry in entries):
      if path.suffix.lower() not in suffixes:
        continue
      try:
        if stat.S_ISREG(os.stat(path).st_mode):
          found.append(str(path))
        else:
          problems.append(f'{path} is no regular file')
      except FileNotFoundError:
        problems.append(f'{path} is a link to what does not exist')
      except OSError as error:
        unreadable(error)
  return sorted(found), sorted(problems)


def embed_files(
  model: PainFormer,
  inputs: Sequence[str | os.PathLike],
  out: str | os.PathLike,
  *,
  reader: Reader | None = None,
  batch_size: int = 16,
  description: str = '',
  sheet: Sheet | None = None,
  log: Callable[[str], None] = lambda line: None,
) -> Summary:
  """Embeds everything and writes one .npz.

  Arrays: `embedding` [n, 160] float32, `source` [n] str, and the reader's columns:
  of pictures `frame` [n] int64 (-1 for a still image) and `time` [n] float64
  (seconds; nan for one), of face crops also `face` [n] str; of signals `start`,
  `stop` [n] float64 (seconds), `channel`, `representation` and `quality` [n] str.
  Besides, strings: `weights`, `modality`, `settings` (JSON) and `stand_in`, which
  says what the images were made of in place of the modality, '' for nothing.

  Args:
    model: from `load`.
    inputs: files and folders.
    out: the .npz; written under its name once whole.
    reader: of the modality; a `PictureReader` of all frames by default.
    batch_size: images at once.
    description: of the weights, kept with the embeddings.
    sheet: a picture to write besides.
    log: told about bad files and progress.

  Returns:
    What was written and what was not: unreadable files are skipped, of damaged
    videos the readable frames are kept.

  Raises:
    InputError: nothing could be read, or `out` or the sheet cannot be written.
  """
  reader = reader or PictureReader()
  files, problems = find_files(inputs, suffixes=reader.suffixes)
  for problem in problems:
    log(problem)
  columns = {
    'embedding': ((model.config.embedding_width,), np.float32),
    'source': ((), str),
    **reader.columns,
  }
  embedder = Embedder(model, batch_size=batch_size)
  tiles, non_finite = [], 0
  total = reader.total(files)
  with NpzWriter(out, columns) as writer, Meter(total, log) as meter:
    if total:
      log(f'{total:,} images to embed; compiles the model first')

    def report(problem: str) -> None:
      problems.append(problem)
      log(problem)

    def read(name: str) -> Iterator[Row]:
      try:
        yield from reader.rows(name, image_size=model.config.image_size, log=log)
      except InputError as error:  # The other files are read all the same.
        report(str(error))

    rows = read_ahead(files, lambda: read, threads=1, ahead=_BATCHES_AHEAD * batch_size)
    for batch in _batched(rows, batch_size):
      embedding = embedder(np.stack([row.image for row in batch]))
      non_finite += int((~np.isfinite(embedding).all(axis=1)).sum())
      writer.append(
        embedding=embedding,
        source=[row.source for row in batch],
        **{name: [row.place[name] for row in batch] for name in reader.columns},
      )
      if sheet and len(tiles) < sheet.images:
        tiles += [
          sheets.Tile(image=row.image, title=os.path.basename(row.source), caption=row.caption)
          for row in batch
        ]
      meter.add(len(batch))
    if not writer.rows:
      raise InputError(
        f'nothing to embed: none of the {len(files)} files could be read; {out} was not written'
      )
    if sheet:
      about = (
        f'{reader.modality}; stand-in: {reader.stand_in}' if reader.stand_in else reader.modality
      )
      sheets.write_sheet(
        sheet.path,
        tiles[: sheet.images],
        heading=(f'{about}: the first {min(len(tiles), sheet.images)} of {writer.rows} images'),
      )
    writer.finish(
      weights=description,
      modality=reader.modality,
      settings=reader.settings,
      stand_in=reader.stand_in,
    )
    return Summary(
      rows=writer.rows,
      files=len(files),
      problems=tuple(problems),
      remarks=reader.remarks(),
      non_finite=non_finite,
    )


def _batched(rows: Iterator[Row], size: int) -> Iterator[tuple[Row, ...]]:
  while batch := tuple(itertools.islice(rows, size)):
    yield batch
