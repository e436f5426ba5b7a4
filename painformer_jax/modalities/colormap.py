"""Colouring of single-channel maps."""

import cv2
import numpy as np


def viridis(levels: np.ndarray) -> np.ndarray:
  """Colours levels with viridis, as OpenCV tabulates it.

  OpenCV's 256 entries are within 1/255 of matplotlib's in every channel.

  Args:
    levels: uint8 [h, w].

  Returns:
    uint8 [h, w, 3], RGB.
  """
  bgr = cv2.applyColorMap(levels, cv2.COLORMAP_VIRIDIS)
  return np.ascontiguousarray(bgr[..., ::-1])
