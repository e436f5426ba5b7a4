"""Images as PNG bytes."""

import cv2
import numpy as np


def encode_png(image: np.ndarray) -> bytes:
  """Encodes without loss.

  Args:
    image: uint8 [h, w] grey, or [h, w, 3] RGB; RGB without colour is stored as
      grey.
  """
  if image.ndim == 3:
    grey = (image == image[..., :1]).all()
    image = image[..., 0] if grey else image[..., ::-1]
  return cv2.imencode('.png', image)[1].tobytes()
