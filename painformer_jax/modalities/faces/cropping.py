"""The square around a face."""

import numpy as np

from painformer_jax.modalities.faces.boxes import FaceBox


def crop(image: np.ndarray, box: FaceBox, *, margin: float = 0.1) -> np.ndarray:
  """A square around a face, without alignment.

  It is not turned either: the paper's crops are not aligned, so a face that lies on its side
  in the frame lies on its side in the crop. Outside the frame, its outermost pixels are
  repeated.

  Args:
    image: uint8 [height, width, 3].
    margin: as in `FaceConfig`.

  Returns:
    uint8 [side, side, 3].
  """
  side = max(1, round(box.side * (1 + 2 * margin)))
  x, y = box.centre
  left, top = round(x - side / 2), round(y - side / 2)
  height, width = image.shape[:2]
  rows = np.clip(np.arange(top, top + side), 0, height - 1)
  columns = np.clip(np.arange(left, left + side), 0, width - 1)
  return image[rows[:, None], columns]
