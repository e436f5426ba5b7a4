"""The finished embeddings of a study."""

import os
import pathlib
from collections.abc import Sequence

from painformer_jax.assessment.embedding.modality_folder import ModalityFolder, Tokens, Trouble
from painformer_jax.assessment.embedding.record import INFORMATION
from painformer_jax.core.errors import InputError


class EmbeddingStore:
  """Finished embeddings of a study; see `embed.compute_embeddings`.

  Args:
    folder: of the embeddings.
    names: of the modalities.
    samples: names of the study's samples.

  Raises:
    InputError: a modality is missing, damaged or of another number of samples.
  """

  def __init__(self, folder: str | os.PathLike, names: Sequence[str], samples: Sequence[str]):
    self.folder, self.names, self.samples = pathlib.Path(folder), tuple(names), tuple(samples)
    self._parts = {name: ModalityFolder(self.folder / name) for name in names}
    for part in self._parts.values():
      if not part.finished:
        raise InputError(f'{part.path} holds no finished embeddings')
      if part.record()['samples']['count'] != len(self.samples):
        raise InputError(f'{part.path} has embeddings of other samples than the study')

  def tokens(self, name: str) -> Tokens:
    """The embeddings of one modality.

    Raises:
      InputError: it is not in the store, or its files are damaged.
    """
    return self._part(name).tokens()

  def troubles(self, name: str) -> tuple[Trouble, ...]:
    """What was wrong with a modality's samples, in their order."""
    return self._part(name).troubles()

  def record(self, name: str) -> dict:
    """All that a modality's embeddings depend on, for results.json."""
    return self._part(name).record()

  def stand_in(self, name: str) -> str:
    """What the images were made of instead of the modality itself; '' if they were not."""
    return self._part(name).record()[INFORMATION]['stand_in']

  def describe(self, name: str) -> str:
    """'gsr: 400 samples x 4 embeddings of 160 numbers; 2 left out, such as A: flat'."""
    tokens, troubles = self.tokens(name), self.troubles(name)
    samples, count, width = tokens.values.shape
    line = f'{name}: {samples:,} samples x {count} embeddings of {width} numbers'
    lost = [trouble for trouble in troubles if trouble.left_out]
    if lost:
      line += f'; {len(lost)} left out, such as {lost[0].sample}: {lost[0].what}'
    if len(troubles) > len(lost):
      line += f'; {len(troubles) - len(lost)} used in part'
    if self.stand_in(name):
      line += f'; a stand-in: {self.stand_in(name)}'
    return line

  def _part(self, name: str) -> ModalityFolder:
    if name not in self._parts:
      raise InputError(
        f'there are no embeddings {name!r} in {self.folder}, only {", ".join(self.names)}'
      )
    return self._parts[name]
