"""Finds videos of the same recording, also where one was encoded anew or cut short.

Clips of one person before one background look alike. What two of them never share is how
the picture changes with time. So small thumbnails are compared without their mean over
time. Clips in which next to nothing moves match only if their thumbnails are equal.
"""

import dataclasses
from collections.abc import Hashable, Iterator

import numpy as np

# Levels, of 255, by which the thumbnails of a clip vary at least.
_MOVES = 0.15
# Correlation of the changes of two copies, the least share of the longer one that they
# have in common, and by how many levels the means of their thumbnails may differ.
_ALIKE, _OVERLAP, _MEANS = 0.8, 0.5, 12.0
_FEW = 4  # Thumbnails from which on two clips are compared.
_BLOCK = 1024  # Clips that are compared with as many at a time.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Clip:
  key: Hashable
  thumbnails: np.ndarray


class ClipMatches:
  """Takes clips one by one, and then tells which of them are of the same recording."""

  def __init__(self):
    self._clips: list[_Clip] = []

  def add(self, key: Hashable, thumbnails: np.ndarray) -> None:
    """Adds a clip.

    Args:
      key: names it in the result.
      thumbnails: float [n, values], of frames at equal distances, brightness 0 to 255.
    """
    if len(thumbnails):
      self._clips.append(_Clip(key=key, thumbnails=np.asarray(thumbnails, np.float16)))

  def pairs(self) -> Iterator[tuple[Hashable, Hashable]]:
    """Keys of clips that are the same, the one that was added first in front."""
    clips = self._clips
    if len(clips) < 2:
      return
    # The changes in the first half of the longest are enough to find candidates.
    longest = max(len(clip.thumbnails) for clip in clips)
    width = max(longest // 2, _FEW) * clips[0].thumbnails.shape[1]
    rows = np.zeros((len(clips), width), np.float32)
    for row, clip in zip(rows, clips):
      changes = _changes(clip.thumbnails[: max(longest // 2, _FEW)]).ravel()
      row[: len(changes)] = changes / max(float(np.linalg.norm(changes)), 1e-9)
    taken: set[int] = set()
    for start in range(0, len(clips), _BLOCK):
      for stop in range(start, len(clips), _BLOCK):
        product = rows[start : start + _BLOCK] @ rows[stop : stop + _BLOCK].T
        for n, m in np.argwhere(product >= 0.6 * _ALIKE).tolist():
          a, b = start + n, stop + m
          if a < b and b not in taken and _same(clips[a].thumbnails, clips[b].thumbnails):
            taken.add(b)
            yield clips[a].key, clips[b].key
    # Where nothing moves.
    still: dict[bytes, _Clip] = {}
    for clip in clips:
      if np.std(_changes(clip.thumbnails)) < _MOVES:
        first = still.setdefault(clip.thumbnails.tobytes(), clip)
        if first is not clip:
          yield first.key, clip.key


def _changes(thumbnails: np.ndarray) -> np.ndarray:
  values = thumbnails.astype(np.float32)
  return values - values.mean(axis=0)


def _same(ours: np.ndarray, theirs: np.ndarray) -> bool:
  length = min(len(ours), len(theirs))
  if length < max(_OVERLAP * max(len(ours), len(theirs)), _FEW):
    return False
  x, y = _changes(ours[:length]), _changes(theirs[:length])
  if min(x.std(), y.std()) < _MOVES:
    return False
  means = np.abs(ours[:length].astype(np.float32).mean(0) - theirs[:length].mean(0, np.float32))
  alike = float((x * y).sum() / (np.linalg.norm(x) * np.linalg.norm(y)))
  return alike >= _ALIKE and float(means.mean()) <= _MEANS
