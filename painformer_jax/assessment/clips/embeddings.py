"""Embeddings of a recording's images, computed a batch at a time."""

import numpy as np

from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.embedding.inference import Embedder


class NumberedEmbeddings:
  """Embeddings by the number of their image; of images, at most a batch is in memory.

  Args:
    embedder: computes them.
  """

  def __init__(self, embedder: Embedder):
    self._embedder = embedder
    self._numbers, self._images, self._values = [], [], {}

  def __len__(self) -> int:
    return len(self._values) + len(self._images)

  def add(self, number: int, image: np.ndarray) -> None:
    """Takes an image, uint8 [size, size, 3], under a number of its own."""
    self._numbers.append(number)
    self._images.append(image)
    if len(self._images) == self._embedder.batch_size:
      self._run()

  def tokens(self, numbers: np.ndarray) -> Tokens:
    """The embeddings of int [windows, tokens]; numbers that were not added are masked."""
    self._run()
    width = len(next(iter(self._values.values()))) if self._values else 1
    values = np.full((*numbers.shape, width), np.nan, np.float32)
    mask = np.zeros(numbers.shape, bool)
    for place, number in np.ndenumerate(numbers):
      if number in self._values:
        values[place], mask[place] = self._values[number], True
    return Tokens(values=values, mask=mask, labels=('',) * numbers.shape[1])

  def _run(self) -> None:
    if self._images:
      self._values.update(zip(self._numbers, self._embedder(np.stack(self._images))))
      self._numbers.clear()
      self._images.clear()
