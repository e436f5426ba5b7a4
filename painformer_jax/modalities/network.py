"""A network that the user brings as ONNX: RGB frames to thermal or depth frames.

The paper makes its thermal frames with a GAN and its depth frames with a
monocular depth network; neither is public. Any ONNX file with one image going in
and one coming out can take their place.
"""

import dataclasses
import math
import os

import numpy as np

from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.core.pictures import resize_to_square
from painformer_jax.modalities.colormap import colour, stretch


@dataclasses.dataclass(frozen=True, kw_only=True)
class NetworkConfig:
  """What the user must say about a network, because its file does not.

  Attributes:
    mean, std: of each channel, for input values in [0, 1]; ImageNet's, as most
      depth networks want. A GAN that takes [-1, 1] has 0.5 and 0.5.
    size: side of the input in pixels, if the file does not fix it.
    low, high: values of a three-channel output that become levels 0 and 255; -1 and 1 for
      a GAN that ends in tanh. A one-channel output is scaled between its own extremes.
    palette: colours of a one-channel output.
  """

  mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
  std: tuple[float, float, float] = (0.229, 0.224, 0.225)
  size: int = 224
  low: float = 0.0
  high: float = 1.0
  palette: str = 'viridis'

  def __post_init__(self):
    for name in ('mean', 'std'):
      values = tuple(getattr(self, name))
      if len(values) != 3 or not all(map(math.isfinite, values)):
        raise InputError(f'{name} must be three numbers, not {values}')
      object.__setattr__(self, name, values)
    if min(self.std) <= 0 or self.size < 1 or not self.low < self.high:
      raise InputError(f'std and size must be positive, low below high: {self}')
    colour(np.zeros((1, 1), np.uint8), palette=self.palette)


class OnnxNetwork:
  """Turns RGB images into images of another modality.

  Args:
    path: of the .onnx file: one input, float32 [1, 3, h, w] or [1, h, w, 3]; first
      output [1, h, w] with further axes of 1, or with 3 channels first or last.
    config: see `NetworkConfig`.

  Attributes:
    height, width: of the input, pixels.

  Raises:
    InputError: onnxruntime is not installed; the file is no network, or not one
      of that kind.
  """

  def __init__(self, path: str | os.PathLike, config: NetworkConfig = NetworkConfig()):
    runtime = import_extra('onnxruntime', extra='onnx')
    self._path, self._config = path, config
    if not os.path.isfile(path):
      raise InputError(f'{path} is not a file')
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # Its faults are raised as exceptions.
    try:
      self._session = runtime.InferenceSession(
        os.fspath(path), options, providers=['CPUExecutionProvider']
      )
    except Exception as error:  # of onnxruntime's own kinds
      raise InputError(
        f'{path} is not a network that onnxruntime can run ({_first_line(error)})'
      ) from error
    self._input, self._channels_first, self.height, self.width = self._check_input()
    # An unusable output is found now, not after an hour of video.
    self(np.zeros((self.height, self.width, 3), np.uint8))

  def __call__(self, image: np.ndarray) -> np.ndarray:
    """Runs the network on one image.

    Args:
      image: uint8 [height, width, 3] RGB of any size; resized to the input's.

    Returns:
      uint8 [h, w, 3] RGB, of the output's size.

    Raises:
      InputError: the network fails, or gives something else than an image.
    """
    config = self._config
    if self.height == self.width:
      image = resize_to_square(image, self.height)
    elif image.shape[:2] != (self.height, self.width):
      image = _resize(image, height=self.height, width=self.width)
    values = (image.astype(np.float32) / 255 - np.float32(config.mean)) / np.float32(config.std)
    if self._channels_first:
      values = values.transpose(2, 0, 1)
    try:
      output = self._session.run(None, {self._input: values[None]})[0]
    except Exception as error:  # of onnxruntime's own kinds
      raise InputError(
        f'{self._path} fails on an image of {self.height}x{self.width} '
        f'pixels ({_first_line(error)})'
      ) from error
    return self._picture(np.asarray(output))

  def _check_input(self) -> tuple[str, bool, int, int]:
    """Name, whether channels come first, height and width of the input."""
    inputs = self._session.get_inputs()
    if len(inputs) != 1:
      raise InputError(f'{self._path} takes {len(inputs)} inputs, not one image')
    shape, kind = list(inputs[0].shape), inputs[0].type
    stated = f'{self._path} takes {kind} {shape}'
    if (
      kind != 'tensor(float)'
      or len(shape) != 4
      or shape[0] not in (1, None)
      and isinstance(shape[0], int)
    ):
      raise InputError(f'{stated}, not one image of float32 [1, 3, h, w] or [1, h, w, 3]')
    if shape[1] == 3:
      first, sides = True, shape[2:]
    elif shape[3] == 3:
      first, sides = False, shape[1:3]
    else:
      raise InputError(f'{stated}: no axis of 3 channels')
    # Sides that the file leaves open are names or None.
    height, width = (s if isinstance(s, int) and s > 0 else self._config.size for s in sides)
    return inputs[0].name, first, height, width

  def _picture(self, output: np.ndarray) -> np.ndarray:
    what = f'{self._path} gives {output.dtype} {list(output.shape)}'
    if output.dtype.kind not in 'fiu':
      raise InputError(f'{what}, not an image')
    picture = output
    while picture.ndim > 2 and picture.shape[0] == 1:
      picture = picture[0]
    if picture.ndim == 3 and picture.shape[-1] == 1:
      picture = picture[..., 0]
    if picture.ndim == 3 and picture.shape[0] == 3:
      picture = picture.transpose(1, 2, 0)
    if not np.isfinite(picture).all():
      raise InputError(f'{what} that is not finite everywhere')
    if picture.ndim == 2 and min(picture.shape) > 1:
      return colour(stretch(picture), palette=self._config.palette)
    if picture.ndim == 3 and picture.shape[-1] == 3:
      span = self._config.high - self._config.low
      levels = (picture.astype(np.float64) - self._config.low) * (255 / span)
      return np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
    raise InputError(f'{what}, not one image of 1 or 3 channels')


def _resize(image: np.ndarray, *, height: int, width: int) -> np.ndarray:
  from PIL import Image

  return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def _first_line(error: Exception) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0][:200]
