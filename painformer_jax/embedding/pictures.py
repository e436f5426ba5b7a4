"""Images from files of images and videos: RGB, face crops, thermal and depth frames."""

import dataclasses
import hashlib
import json
import math
import os
import pathlib
from collections.abc import Container, Iterable, Iterator, Sequence
from typing import Literal

import numpy as np

from painformer_jax.core.config_fields import read_settings
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.reader import LocatedImage, Log
from painformer_jax.modalities import faces, images, maps, video
from painformer_jax.modalities.names import PICTURES
from painformer_jax.modalities.network import NetworkConfig, OnnxNetwork

Faceless = Literal['skip', 'whole']


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig:
  """How frames become images.

  Attributes:
    every: takes every `every`th frame of a video.
    crop: whether to crop the face.
    faceless: what is done with a frame without a face: 'skip' leaves it out, 'whole' takes
      it without cropping.
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
    if self.faceless not in ('skip', 'whole'):
      raise InputError(f"faceless must be 'skip' or 'whole', not {self.faceless!r}")


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
    self.modality, self._config = modality, config
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
    self._seen = self._faceless = 0

  @classmethod
  def from_settings(
    cls,
    modality: str,
    settings: str | os.PathLike | None,
    *,
    network: str | os.PathLike | None = None,
    mesh: bool = False,
    **options,
  ) -> 'PictureReader':
    """A reader by a JSON file of settings, if any, and options; see `read_settings`."""
    config = read_settings(PictureConfig, settings, **options)
    return cls(modality, config, network=network, mesh=mesh)

  def total(self, files: Sequence[str]) -> int:
    return sum(
      max(1, -(-video.count_frames(f) // self._config.every)) if _is_video(f) else 1 for f in files
    )

  def images(
    self, name: str, *, image_size: int, log: Log, numbers: Container[int] | None = None
  ) -> Iterator[LocatedImage]:
    """The images of a file, see `Reader`.

    Args:
      numbers: of the frames to take from a video, in place of every `config.every`th.
    """
    broken: list[InputError] = []
    seen, faceless = self._seen, self._faceless
    for found in self._faces(_until_broken(self._frames(name, numbers), broken)):
      image = self._image(found)
      self._seen += 1
      self._faceless += image is None or found.state == 'none'
      if image is None:
        continue
      frame = found.frame
      yield LocatedImage(
        image=images.resize_to_square(image, image_size),
        source=name,
        caption=_caption(found),
        location={'frame': frame.number, 'time': frame.time}
        | ({'face': found.state} if self._config.crop else {}),
      )
    seen, faceless = self._seen - seen, self._faceless - faceless
    if broken:
      raise broken[0]
    if faceless and self._config.faceless == 'skip':
      if faceless == seen:
        raise InputError(f'{name} shows no face')
      log(f'{name}: {faceless} of {seen} frames show no face and are left out')

  def remarks(self) -> str:
    if not self._config.crop or not self._faceless:
      return ''
    what = 'left out' if self._config.faceless == 'skip' else 'taken whole'
    return f'{self._faceless} of {self._seen} frames without a face {what}'

  def _frames(self, name: str, numbers: Container[int] | None) -> Iterator[video.Frame]:
    own = self.modality in maps.PALETTE and self._convert is None
    if _is_video(name):
      for frame in video.frames(name, every=self._config.every, numbers=numbers):
        image = maps.colour_frame(frame.image, modality=self.modality) if own else frame.image
        yield dataclasses.replace(frame, image=image)
    elif own:
      yield _still(maps.read_map(name, modality=self.modality))
    else:
      yield _still(images.read(name, lambda image: np.asarray(images.to_rgb(image))))

  def _faces(self, frames: Iterable[video.Frame]) -> Iterator[faces.Face]:
    if self._detector:
      return faces.track(frames, self._config.face, detect=self._detector)
    return (faces.Face(frame=frame, state='detected', box=None) for frame in frames)

  def _image(self, found: faces.Face) -> np.ndarray | None:
    """uint8 [h, w, 3]; None for a frame to leave out."""
    image = found.frame.image
    if self._config.crop:
      if found.box is None and self._config.faceless == 'skip':
        return None
      if found.box is not None:
        image = faces.crop(image, found.box, margin=self._config.face.margin)
    return self._convert(image) if self._convert else image


def _until_broken(frames: Iterator[video.Frame], broken: list[InputError]) -> Iterator[video.Frame]:
  """Ends where the file is damaged, so that all frames before are used."""
  try:
    yield from frames
  except InputError as error:
    broken.append(error)


def _still(image: np.ndarray) -> video.Frame:
  return video.Frame(number=-1, time=math.nan, image=image)


def _caption(found: faces.Face) -> str:
  frame = found.frame
  parts = [] if frame.number < 0 else [f'frame {frame.number}', f'{frame.time:.2f} s']
  if found.state != 'detected' or found.box:
    parts.append({'detected': 'face', 'tracked': 'face, tracked', 'none': 'no face'}[found.state])
  return ', '.join(parts)


def _is_video(name: str) -> bool:
  """By suffix; a file of another suffix is one if its frames can be counted."""
  suffix = pathlib.Path(name).suffix.lower()
  if suffix in images.SUFFIXES | video.SUFFIXES:
    return suffix in video.SUFFIXES
  return video.count_frames(name) > 1
