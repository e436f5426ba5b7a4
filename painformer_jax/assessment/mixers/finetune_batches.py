"""Batches of fine-tuning: samples of each step and some of their images, read ahead."""

import contextlib
import dataclasses
import pathlib
import zipfile
from collections.abc import Mapping, Sequence

import numpy as np

from painformer_jax.assessment.datasets.recordings import Sample, Study
from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.embedding.sample_images import (
  EmbeddingSettings,
  SampleReader,
  TokenImage,
)
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically
from painformer_jax.core.read_ahead import read_ahead


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageRequest:
  """Some images of one modality of a sample.

  Attributes:
    position: of the sample in the study.
    sample: that the images belong to.
    tokens: numbers of the images among the sample's tokens, rising; () for no image.
  """

  position: int
  sample: Sample
  tokens: tuple[int, ...]


def frames_a_step(tokens: Mapping[str, Tokens], *, frames: int) -> dict[str, int]:
  """Modality -> most images of a sample in a step; at most `frames`."""
  return {
    name: min(frames, int(part.mask.sum(axis=1).max(initial=0)) or 1)
    for name, part in tokens.items()
  }


def choose(mask: np.ndarray, count: int, rng: np.random.Generator) -> tuple[int, ...]:
  """A random choice of a sample's tokens, rising; all of them where there are fewer.

  Args:
    mask: bool [tokens], which tokens the sample has.
    count: tokens to choose.
    rng: source of random numbers.
  """
  there = np.flatnonzero(mask)
  if len(there) > count:
    there = np.sort(rng.choice(there, count, replace=False))
  return tuple(there.tolist())


class FinetuneBatches:
  """The batches of all steps, one after the other; used in a `with` block.

  The images of a step depend on the seed and the number of the step alone.

  Args:
    study: the samples.
    settings: name -> how images of that modality are made.
    tokens: name -> embeddings of the same samples; their masks say which images exist.
    rows: int [steps, batch], positions of samples in the study.
    label: int [samples].
    weights: float32 [classes], of each class in the loss.
    frames: from `frames_a_step`.
    entropy: integers that seed all random choices.
    start: number of the first step.
    image_size: side of the images, pixels.
    readers: threads for each modality.
    images: folder to save the images of videos in, so that each video is decoded, and its
      faces are found, once and not in every epoch; None saves none.
  """

  def __init__(
    self,
    study: Study,
    settings: Mapping[str, EmbeddingSettings],
    *,
    tokens: Mapping[str, Tokens],
    rows: np.ndarray,
    label: np.ndarray,
    weights: np.ndarray,
    frames: Mapping[str, int],
    entropy: Sequence[int],
    start: int,
    image_size: int,
    readers: int,
    images: pathlib.Path | None = None,
  ):
    self._rows, self._label, self._weights = rows, label, weights
    self._frames, self._size, self._step = dict(frames), image_size, start
    self._absent = {name: part.mask.shape[1] for name, part in tokens.items()}
    self._open = contextlib.ExitStack()
    self._images = {}
    for number, (name, each) in enumerate(settings.items()):
      wanted = _Requests(
        study,
        tokens[name].mask,
        rows[start:],
        frames=self._frames[name],
        entropy=[*entropy, number],
        first=start,
      )
      self._images[name] = self._open.enter_context(
        contextlib.closing(
          read_ahead(
            wanted, _starter(each, study, image_size, images and images / name), threads=readers
          )
        )
      )

  def __enter__(self) -> 'FinetuneBatches':
    return self

  def __exit__(self, *exc_info) -> None:
    self._open.close()

  def __iter__(self) -> 'FinetuneBatches':
    return self

  def __next__(self) -> dict:
    """The next step's batch, for `finetune_program.make_step`.

    Returns:
      'label' int32 [batch], 'weight' float32 [batch], and for each modality 'image'
      uint8 [batch, frames, size, size, 3] and 'token' int32 [batch, frames], the
      number of each image's token; where there is no image, one beyond the last token.

    Raises:
      InputError: a recording that could be read before cannot any more.
      StopIteration: after the last step.
    """
    if self._step >= len(self._rows):
      raise StopIteration
    own = self._rows[self._step]
    self._step += 1
    batch = {name: self._stacked(name, len(own)) for name in self._images}
    label = self._label[own].astype(np.int32)
    return batch | {'label': label, 'weight': self._weights[label]}

  def _stacked(self, name: str, rows: int) -> dict[str, np.ndarray]:
    count, size = self._frames[name], self._size
    image = np.zeros((rows, count, size, size, 3), np.uint8)
    token = np.full((rows, count), self._absent[name], np.int32)
    for row in range(rows):
      for place, found in enumerate(next(self._images[name])):
        image[row, place], token[row, place] = found.image, found.token
    return {'image': image, 'token': token}


class _Requests(Sequence):
  """The requests of all steps for images of one modality, made when they are indexed."""

  def __init__(
    self,
    study: Study,
    mask: np.ndarray,
    rows: np.ndarray,
    *,
    frames: int,
    entropy: Sequence[int],
    first: int,
  ):
    self._study, self._mask, self._rows = study, mask, rows
    self._frames, self._entropy, self._first = frames, list(entropy), first

  def __len__(self) -> int:
    return self._rows.size

  def __getitem__(self, number: int) -> ImageRequest:
    step, row = divmod(number, self._rows.shape[1])
    position = int(self._rows[step, row])
    rng = np.random.default_rng([*self._entropy, self._first + step, row])
    return ImageRequest(
      position=position,
      sample=self._study.samples[position],
      tokens=choose(self._mask[position], self._frames, rng),
    )


def _starter(
  settings: EmbeddingSettings, study: Study, image_size: int, images: pathlib.Path | None
):
  """The function with which each reading thread makes its reader."""
  channels = study.channels_of(settings.source)
  kept = None if images is None or channels else images  # Images of signals are made quickly.
  if kept is not None:
    kept.mkdir(parents=True, exist_ok=True)

  def start():
    reader = SampleReader(settings, channels=channels, image_size=image_size)
    return lambda wanted: iter([_read(reader, wanted, kept)])

  return start


def _read(
  reader: SampleReader, wanted: ImageRequest, kept: pathlib.Path | None
) -> list[TokenImage]:
  """The images in order, from the saved ones or from the recording."""
  if not wanted.tokens:
    return []
  found = (
    _first(reader, wanted)
    if kept is None
    else _all(reader, wanted.sample, kept / f'{wanted.position:07d}.npz')
  )
  missing = [token for token in wanted.tokens if token not in found]
  if missing:
    raise InputError(
      f'{wanted.sample.name}: {len(missing)} of its images could be read before '
      'and cannot now: has the recording changed?'
    )
  return [TokenImage(token=token, image=found[token]) for token in wanted.tokens]


def _first(reader: SampleReader, wanted: ImageRequest) -> dict[int, np.ndarray]:
  """Reads a recording as far as the last requested image: token -> requested image."""
  found = {}
  with contextlib.closing(reader.images(wanted.sample, log=lambda line: None)) as images:
    for image in images:
      if image.token in wanted.tokens:
        found[image.token] = image.image
      if image.token >= wanted.tokens[-1]:
        break
  return found


def _all(reader: SampleReader, sample: Sample, path: pathlib.Path) -> Mapping[int, np.ndarray]:
  """Every image of a sample: token -> image; read from `path`, or saved there first."""
  if not path.is_file():
    images = []
    try:
      images.extend(reader.images(sample, log=lambda line: None))
    except InputError:
      # A damaged recording is used as far as it can be read, as in embedding.
      if not images:
        raise
    write_atomically(
      path,
      lambda file: np.savez(
        file,
        token=np.array([image.token for image in images]),
        image=np.stack([image.image for image in images]),
      ),
    )
  try:
    with np.load(path, allow_pickle=False) as file:
      return dict(zip(file['token'].tolist(), file['image'], strict=True))
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
    raise InputError(f'{path} is damaged: remove it, then run the same command again') from error
