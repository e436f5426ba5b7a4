"""Images from files of images and videos: RGB, face crops, thermal and depth frames."""

import dataclasses
import hashlib
import itertools
import json
import math
import os
import pathlib
from collections import Counter
from collections.abc import Callable, Container, Iterator, Sequence
from typing import Literal

import numpy as np

from painformer_jax.core.config_fields import read_settings
from painformer_jax.core.errors import InputError
from painformer_jax.core.pictures import resize_to_square
from painformer_jax.core.progress import Log, Meter
from painformer_jax.embedding.picture_frames import PictureFrames, count_quickly, is_video
from painformer_jax.embedding.reader import LocatedImage
from painformer_jax.modalities import faces, images, maps, video
from painformer_jax.modalities.names import PICTURES
from painformer_jax.modalities.network import NetworkConfig, OnnxNetwork

Faceless = Literal['skip', 'held', 'whole']

# States of a face, in captions.
_SHOWN = {
  'detected': 'face',
  'tracked': 'face, tracked',
  'held': 'face, held',
  'other': 'other faces',
  'none': 'no face',
}
# What frames that give no row are counted as, and what remarks say of them.
_LEFT_OUT = {
  'none': 'without a face',
  'held': 'before or after a face is seen (--faceless held keeps them)',
  'other': 'with other faces only (--face all takes them)',
  'mesh': 'in which the face mesh finds no face',
}


_FLAT = 'frames of more than 8 bits that are nearly of one brightness in 8'


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig:
  """How frames become images.

  Attributes:
    every: takes every `every`th frame of a video.
    crop: whether to crop the face.
    faceless: what is done with a frame in which the person's face is not seen: 'skip' leaves
      it out; 'held' takes it within `face.max_gap` of a detection, cropped where the face was
      then; 'whole' takes the others too, without cropping.
    face: how faces are found.
    network: input and output of the user's network.
  """

  every: int = 1
  crop: bool = False
  faceless: Faceless = 'skip'
  face: faces.FaceConfig = faces.FaceConfig()
  network: NetworkConfig = NetworkConfig()

  def __post_init__(self):
    if self.every < 1:
      raise InputError(f'every must be at least 1, not {self.every}')
    if self.faceless not in ('skip', 'held', 'whole'):
      raise InputError(f"faceless must be 'skip', 'held' or 'whole', not {self.faceless!r}")


class PictureReader:
  """A `Reader` of images and videos.

  'rgb' takes frames as they are; 'face' crops the face. 'thermal' and 'depth' take the
  user's frames and colour those with a single channel; or they make frames from RGB frames,
  by a network or, for depth, by a face mesh as a stand-in.

  Args:
    modality: one of `names.PICTURES`; 'face' sets `config.crop`.
    config: see `PictureConfig`.
    network: an .onnx file, for 'thermal' and 'depth'.
    mesh: for 'depth': use the face mesh in place of a depth network.
    progress: takes a line now and then while the faces of a long clip are found, before its
      first image comes.

  Raises:
    InputError: a package is not installed, or the network is not usable.
  """

  suffixes = images.SUFFIXES | video.SUFFIXES

  def __init__(
    self,
    modality: str = 'rgb',
    config: PictureConfig = PictureConfig(),
    *,
    network: str | os.PathLike | None = None,
    mesh: bool = False,
    progress: Log | None = None,
  ):
    if modality not in PICTURES:
      raise InputError(f'modalities of pictures are {", ".join(PICTURES)}, not {modality}')
    if (
      (network or mesh)
      and modality not in ('thermal', 'depth')
      or mesh
      and (network or modality != 'depth')
    ):
      raise InputError(f'{modality} takes no such network or stand-in')
    if modality == 'face' or mesh:
      config = dataclasses.replace(config, crop=True)
    if mesh and config.faceless == 'whole':
      raise InputError('the face mesh needs a face: frames without one must be skipped')
    self.modality, self._config, self._progress = modality, config, progress
    self.stand_in, self._convert = '', None
    record = dataclasses.asdict(config)
    if not network:
      del record['network']
    if not config.crop:
      del record['face'], record['faceless']
    if network:
      self._convert = OnnxNetwork(network, config.network)
      record['network']['sha256'] = hashlib.sha256(pathlib.Path(network).read_bytes()).hexdigest()
    if mesh:
      from painformer_jax.modalities import depth

      self._convert = depth.MeshDepth()
      self.stand_in = depth.STAND_IN
    self.settings = json.dumps(record, sort_keys=True)
    self._detector = faces.Detector(config.face) if config.crop else None
    self.columns = {'frame': np.int64, 'time': np.float64}
    if config.crop:
      self.columns['face'] = str
    self._all_faces = config.crop and config.face.choose == 'all'
    if self._all_faces:
      self.columns['person'] = np.int64
    self._counts: Counter[str] = Counter()
    self._blank = self._coloured = self._flat = 0

  @classmethod
  def from_settings(
    cls,
    modality: str,
    settings: str | os.PathLike | None,
    *,
    network: str | os.PathLike | None = None,
    mesh: bool = False,
    progress: Log | None = None,
    choose: str | None = None,
    **options,
  ) -> 'PictureReader':
    """A reader by a JSON file of settings, if any, and options; see `read_settings`.

    `choose` replaces the one of the settings' `face`.
    """
    config = read_settings(PictureConfig, settings, **options)
    if choose is not None:
      config = dataclasses.replace(config, face=dataclasses.replace(config.face, choose=choose))
    return cls(modality, config, network=network, mesh=mesh, progress=progress)

  def total(self, files: Sequence[str]) -> int:
    return sum(-(-count_quickly(name) // self._config.every) for name in files)

  def images(
    self,
    name: str,
    *,
    image_size: int,
    log: Log,
    numbers: Container[int] | None = None,
    most: int | None = None,
  ) -> Iterator[LocatedImage]:
    """The images of a file, see `Reader`.

    Args:
      numbers: of the frames to take from a video, in place of every `config.every`th.
      most: frames to look at; later ones are not read, and nobody is chosen by them.
    """
    broken: list[InputError] = []
    counts: Counter[str] = Counter()
    passes, frames = itertools.count(), self._open(name)

    def open_frames() -> Iterator[video.Frame]:
      found = _until_broken(lambda: frames.read(numbers=numbers, most=most), broken)
      return self._watched(found, name) if next(passes) == 0 else found

    for found in self._faces(open_frames):
      fate = self._fate(found)
      image = None if fate in _LEFT_OUT else self._image(found)
      counts['mesh' if image is None and fate not in _LEFT_OUT else fate] += 1
      if image is None:
        continue
      yield LocatedImage(
        image=resize_to_square(image, image_size),
        source=name,
        caption=_caption(found),
        location=self._location(found),
      )
    self._counts += counts
    self._tell(name, frames, log)
    if counts and not counts['taken'] + counts['whole'] and not broken:
      raise InputError(f'{name} shows no face')
    if remarks := self._remarks(counts):
      log(f'{name}: {remarks}')
    if broken:
      raise broken[0]

  def remarks(self) -> str:
    said = [self._remarks(self._counts)]
    if self._blank:
      said.append(f'frames without a measurement left out: {self._blank}')
    if self._flat:
      said.append(f'{_FLAT}: {self._flat}')
    if self._coloured:
      said.append(
        f'files in colour, not by a palette, taken as {self.modality} frames: {self._coloured}'
      )
    return '; '.join(filter(None, said))

  def _remarks(self, counts: Counter[str]) -> str:
    """Such as '5 of 12 frames left out: 3 without a face, 2 with other faces only'."""
    what = 'images' if self._all_faces else 'frames'
    parts = []
    if counts['whole']:
      parts.append(f'{counts["whole"]} of {counts.total()} {what} without a face taken whole')
    if lost := sum(counts[fate] for fate in _LEFT_OUT):
      why = ', '.join(f'{counts[fate]} {text}' for fate, text in _LEFT_OUT.items() if counts[fate])
      parts.append(f'{lost} of {counts.total()} {what} left out: {why}')
    return '; '.join(parts)

  def _open(self, name: str) -> PictureFrames:
    measured = self.modality in maps.PALETTE and self._convert is None
    return PictureFrames(
      name,
      measured=self.modality if measured else '',
      every=self._config.every,
      # Whole frames become squares anyway; of faces the shape counts.
      square_pixels=self._config.crop,
    )

  def _tell(self, name: str, frames: PictureFrames, log: Log) -> None:
    """Counts and says what is odd in a file's own thermal or depth frames."""
    self._blank += frames.blank
    if frames.blank:
      log(f'{name}: frames that hold no measurement and are left out: {frames.blank}')
    self._flat += frames.flat
    if frames.flat and (self._flat == frames.flat or is_video(name)):
      log(
        f'{name}: {_FLAT}: {frames.flat}; --modality thermal or depth scales them between their '
        'own extremes'
      )
    if frames.kind == 'colour':
      self._coloured += 1
      if self._coloured == 1 or is_video(name):  # Folders of images hold thousands.
        log(
          f'{name} is in colour as visible light is, not by a palette of {self.modality} frames; '
          'it is taken as it is'
        )

  def _faces(self, open_frames: Callable[[], Iterator[video.Frame]]) -> Iterator[faces.Face]:
    if self._detector:
      detect = faces.ClipDetector(self._detector)
      return faces.follow(open_frames, self._config.face, detect=detect)
    return (faces.Face(frame=frame, state='detected', box=None) for frame in open_frames())

  def _watched(self, frames: Iterator[video.Frame], name: str) -> Iterator[video.Frame]:
    """The frames; while faces are found in them, `progress` is told how far that is."""
    report = self._progress
    if report is None or self._detector is None or not is_video(name):
      yield from frames
      return
    # A function of its own, as this bar would be in the way of the one of all files.
    with Meter(
      self.total([name]),
      lambda line: report(line),
      what='frames',
      prefix=f'{name}: looks for faces, ',
    ) as meter:
      for frame in frames:
        yield frame
        meter.add()

  def _fate(self, found: faces.Face) -> str:
    """'taken', 'whole', or a key of `_LEFT_OUT`."""
    if not self._config.crop or found.state in ('detected', 'tracked'):
      return 'taken'
    if found.box is not None and self._config.faceless != 'skip':
      return 'taken'
    return 'whole' if found.box is None and self._config.faceless == 'whole' else found.state

  def _image(self, found: faces.Face) -> np.ndarray | None:
    """uint8 [h, w, 3]; None where the mesh finds no face."""
    image = found.frame.image
    if found.box is not None:
      image = faces.crop(image, found.box, margin=self._config.face.margin)
    return self._convert(image) if self._convert else image

  def _location(self, found: faces.Face) -> dict[str, object]:
    location: dict[str, object] = {'frame': found.frame.number, 'time': found.frame.time}
    if self._config.crop:
      location['face'] = found.state
    if self._all_faces:
      location['person'] = found.person
    return location


def _until_broken(
  read: Callable[[], Iterator[video.Frame]], broken: list[InputError]
) -> Iterator[video.Frame]:
  """Ends where the file is damaged, so that all frames before are used."""
  try:
    yield from read()
  except InputError as error:
    broken.append(error)


def _caption(found: faces.Face) -> str:
  frame = found.frame
  parts = [] if frame.number < 0 else [f'frame {frame.number}']
  if math.isfinite(frame.time):
    parts.append(f'{frame.time:.2f} s')
  if found.state != 'detected' or found.box:
    parts.append(_SHOWN[found.state] + (f' of person {found.person}' if found.person > 1 else ''))
  return ', '.join(parts)
