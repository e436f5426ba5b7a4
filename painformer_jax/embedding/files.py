"""Files of any modality to an .npz of embeddings, streaming."""

import contextlib
import dataclasses
import itertools
import os
from collections.abc import Iterator, Sequence

import numpy as np

from painformer_jax.core.errors import InputError, counted
from painformer_jax.core.progress import Log, Meter
from painformer_jax.core.read_ahead import read_ahead
from painformer_jax.embedding import writer
from painformer_jax.embedding.find import find_files
from painformer_jax.embedding.inference import Embedder
from painformer_jax.embedding.pictures import PictureReader
from painformer_jax.embedding.reader import LocatedImage, Reader
from painformer_jax.modalities import canvas
from painformer_jax.modalities.sheet import Tile, write_sheet
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
    if not 1 <= self.images <= 2000:
      raise InputError(f'a sheet shows 1 to 2000 images, not {self.images}')


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbedSummary:
  """What was embedded and what was not.

  Attributes:
    rows: how many embeddings were written.
    files: how many files were found.
    used: how many of them gave embeddings.
    problems: a line for each file that could not be read to its end.
    remarks: what was left out of the other files and of the folders, in words; '' for
      nothing.
    non_finite: how many embeddings hold NaN or infinity.
  """

  rows: int
  files: int
  used: int
  problems: tuple[str, ...]
  remarks: str = ''
  non_finite: int = 0


def embed_files(
  model: PainFormer,
  inputs: Sequence[str | os.PathLike],
  out: str | os.PathLike,
  *,
  reader: Reader | None = None,
  batch_size: int = 16,
  description: str = '',
  sheet: Sheet | None = None,
  log: Log = lambda line: None,
) -> EmbedSummary:
  """Embeds all files and writes one .npz.

  Its arrays are `embedding` [n, 160] float32, `source` [n] str and the reader's columns.
  Of images and videos these are `frame` [n] int64 (-1 for an image) and `time` [n] float64
  (seconds; nan for an image); where faces are cropped also `face` [n] str,
  and `person` [n] int64 where all people are taken. Of signals they
  are `start` and `stop` [n] float64 (seconds), `channel`, `representation` and `quality`
  [n] str. Further arrays hold one text each: `weights`, `modality`, `settings` (JSON) and
  `stand_in` (what the images were made of in place of the modality, or '').

  Unreadable files are skipped; of damaged videos the readable frames are embedded.

  Args:
    model: from `load`.
    inputs: files and folders.
    out: the .npz; it appears when it is complete.
    reader: of the modality; by default a `PictureReader` of all frames.
    batch_size: images at once.
    description: of the weights; stored as `weights`.
    sheet: a picture of the first images, to write as well.
    log: takes lines about bad files and progress.

  Returns:
    What was written and what was not.

  Raises:
    InputError: nothing could be read, or `out` or the sheet cannot be written, is one of
      the files that are read, or exists and was not written by this program.
  """
  reader = reader or PictureReader()
  found = find_files(inputs, suffixes=reader.suffixes)
  files, problems = found.files, found.problems
  check_targets(out, sheet, inputs=[*inputs, *files])
  embedded = writer.EmbeddingWriter(out, reader.columns)
  for problem in problems:
    log(problem)
  if total := reader.total(files):
    log(f'{total:,} images to embed; compiles the model first')

  def report(problem: str) -> None:
    problems.append(problem)
    log(problem)

  def read(name: str) -> Iterator[LocatedImage]:
    try:
      for image in reader.images(name, image_size=model.config.image_size, log=log):
        used.add(name)
        yield image
    except InputError as error:  # The other files are read all the same.
      report(str(error))

  embedder, tiles, used = Embedder(model, batch_size=batch_size), [], set()
  images = read_ahead(files, lambda: read, threads=1, ahead=_BATCHES_AHEAD * batch_size)
  with Meter(total, log) as meter, contextlib.closing(images):
    for batch in _batched(images, batch_size):
      embedded.add(embedder(np.stack([each.image for each in batch])), batch)
      if sheet and len(tiles) < sheet.images:
        tiles += [
          Tile(image=each.image, title=os.path.basename(each.source), caption=each.caption)
          for each in batch
        ]
      meter.add(len(batch))
  if not embedded.rows:
    first = f' ({problems[0]})' if len(problems) == 1 else ''
    raise InputError(
      f'nothing to embed: {_none_of(len(files))} could be read{first}; {out} was not written'
    )
  if sheet:
    made_of = f'; stand-in: {reader.stand_in}' if reader.stand_in else ''
    tiles = tiles[: sheet.images]
    write_sheet(
      sheet.path,
      tiles,
      heading=f'{reader.modality}{made_of}: the first {len(tiles)} of {embedded.rows} images',
    )
  embedded.write(
    weights=description,
    modality=reader.modality,
    settings=reader.settings,
    stand_in=reader.stand_in,
  )
  return EmbedSummary(
    rows=embedded.rows,
    files=len(files),
    used=len(used),
    problems=tuple(problems),
    remarks='; '.join(filter(None, (reader.remarks(), found.remark))),
    non_finite=embedded.non_finite,
  )


def _none_of(files: int) -> str:
  return f'none of {counted(files, "file")}' if files > 1 else 'no file'


def check_targets(
  out: str | os.PathLike, sheet: Sheet | None, *, inputs: Sequence[str | os.PathLike]
) -> None:
  """Refuses files to write that `embed_files` would refuse, or that are read.

  Raises:
    InputError: names the file and why.
  """
  writer.check_path(out, inputs=inputs)
  if sheet:
    canvas.check_path(sheet.path, inputs=inputs)


def _batched(images: Iterator[LocatedImage], size: int) -> Iterator[tuple[LocatedImage, ...]]:
  while batch := tuple(itertools.islice(images, size)):
    yield batch
