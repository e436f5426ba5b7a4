"""From the boxes of all frames to one track a person.

All boxes are associated, not only those of one face, and a box belongs to one track. So a box
that continues the track of one person is never a candidate for another's. There are three
steps, from the surest to the least sure:

1. Boxes of successive looks that overlap are one piece (Hungarian assignment). Boxes far apart,
   or over a cut, as where the camera is moved, are one piece if they show the same.
2. Pieces of one scene, at most `max_gap` or one look apart, are joined as far as a head may have
   moved; the best pairs first, whenever they come in the clip. Pieces that are there at one time
   are never joined.
3. What is left is joined over longer gaps, and over cuts and back to a scene that looks alike,
   only where a face is at the place where it was last seen.

No face is recognised. Two people who take turns at one place in one scene are one track, and
one person in two scenes that do not look alike is two.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
import scipy.optimize

from painformer_jax.modalities.faces.boxes import FaceBox
from painformer_jax.modalities.faces.config import FaceConfig
from painformer_jax.modalities.faces.scenes import Scene

# Two successive boxes are of the same face if they overlap by this share (IoU),
_SAME = 0.3
# or if their sides differ by at most this factor and their distance is at most this many
# sides, by which boxes of one face differ anyway, or this many sides a second (about 1 m/s) and
# this many in all: people who sit shoulder to shoulder are farther apart.
_LIKE, _NEAR, _SPEED, _REACH = 2.0, 0.5, 5.0, 1.5
# After a longer gap a face is at the place where it was if it has moved by less than
# this share of its side: two heads do not fit there.
_PLACE = 1.0
# Of two pieces at equal distances the earlier one is nearer, by so many sides a second.
_LATE = 0.25


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Look:
  """What is known of a frame of a clip.

  Attributes:
    frame: its number.
    time: in seconds, not below the one before.
    scene: see `scenes`.
    height, width: of the frame, in pixels.
    boxes: of the faces that were detected; None where nobody looked.
    goes_on: pairs of a box of the look before and one of this look, as places in `boxes`, that
      show the same face though they are far apart or there is a cut between; see `may_go_on`.
  """

  frame: int
  time: float
  scene: Scene
  height: int
  width: int
  boxes: tuple[FaceBox, ...] | None
  goes_on: frozenset[tuple[int, int]] = frozenset()


# The boxes of one person: number of the look -> box, numbers rising.
Track = dict[int, FaceBox]


def tracks(looks: Sequence[Look], config: FaceConfig) -> list[Track]:
  """The tracks of all people in a clip; each box is in one of them.

  Args:
    looks: of all frames, in order.
    config: its `max_gap`.

  Returns:
    In order of their beginnings.
  """
  pieces = _overlapping(looks)
  return _returning(looks, _near(looks, pieces, config.max_gap))


def may_go_on(last: Look, look: Look, box: FaceBox, here: FaceBox) -> bool:
  """Whether the picture in two boxes decides if they show one face, in one look and the next."""
  if box.ratio(here) > _LIKE:
    return False
  if last.scene != look.scene:
    return True
  reach = box.side * _SPEED * (look.time - last.time)
  return box.overlap(here) < _SAME and box.distance(here) <= reach


def _overlapping(looks: Sequence[Look]) -> list[Track]:
  """Step 1: runs of boxes, of which each overlaps with the one in the look before."""
  pieces: list[Track] = []
  open_pieces: list[Track] = []  # Those with a box in the last look.
  last: Look | None = None
  for number, look in enumerate(looks):
    if look.boxes is None:
      continue
    continued = _assign(_gains(last, look)) if last and open_pieces else {}
    following = []
    for place, box in enumerate(look.boxes):
      piece = open_pieces[continued[place]] if place in continued else {}
      if not piece:
        pieces.append(piece)
      piece[number] = box
      following.append(piece)
    open_pieces, last = following, look
  return pieces


def _gains(last: Look, look: Look) -> list[list[float]]:
  """How well each box of a look (rows) fits each box of the next one (columns)."""
  cut = look.scene != last.scene

  def gain(row: int, column: int) -> float:
    overlap = last.boxes[row].overlap(look.boxes[column])
    if (row, column) in look.goes_on:
      return _SAME + (overlap if cut else 0.0)
    return 0.0 if cut or overlap < _SAME else overlap

  columns = range(len(look.boxes))
  return [[gain(row, column) for column in columns] for row in range(len(last.boxes))]


def _near(looks: Sequence[Look], pieces: Sequence[Track], max_gap: float) -> list[Track]:
  """Step 2: pieces joined over gaps of `max_gap` at most, the best pairs first."""
  spans = [(min(piece), max(piece)) for piece in pieces]
  # Both rise, as the pieces are in order.
  starts = [first for first, _ in spans]
  times = [looks[first].time for first in starts]
  searched = [number for number, look in enumerate(looks) if look.boxes is not None]
  next_look = dict(itertools.pairwise(searched))

  def cost(one: int, other: int) -> float | None:
    """Of the piece `other` after `one`; None where it cannot be the same face."""
    before, after = spans[one][1], spans[other][0]
    gap = looks[after].time - looks[before].time
    near = gap <= max_gap or next_look.get(before) == after
    if after <= before or not near or looks[after].scene != looks[before].scene:
      return None
    last, following = pieces[one][before], pieces[other][after]
    moved, ratio = last.distance(following), last.ratio(following)
    if last.overlap(following) < _SAME and (
      ratio > _LIKE or moved > last.side * min(max(_NEAR, _SPEED * gap), _REACH)
    ):
      return None
    return moved / last.side + float(np.log2(ratio)) + _LATE * gap

  pairs = []
  for one, (_, end) in enumerate(spans):
    until = max(
      bisect.bisect_right(times, looks[end].time + max_gap),
      bisect.bisect_right(starts, next_look.get(end, end)),
    )
    for other in range(bisect.bisect_right(starts, end), until):
      if (price := cost(one, other)) is not None:
        pairs.append((price, one, other))
  groups = {number: [number] for number in range(len(pieces))}
  for _, one, other in sorted(pairs):
    if groups[one] is groups[other]:
      continue
    joined = sorted(groups[one] + groups[other])
    seams = (pair for pair in itertools.pairwise(joined) if groups[pair[0]] is not groups[pair[1]])
    if all(cost(*pair) is not None for pair in seams):
      groups.update(dict.fromkeys(joined, joined))
  return [
    {number: box for part in group for number, box in pieces[part].items()}
    for first, group in groups.items()
    if group[0] == first
  ]


def _returning(looks: Sequence[Look], found: Sequence[Track]) -> list[Track]:
  """Step 3: tracks joined where a face comes back to its place, whenever that is."""
  people: list[Track] = []
  for start, together in itertools.groupby(found, key=lambda track: next(iter(track))):
    beginning = list(together)
    ends = [next(reversed(person.items())) for person in people]
    back = _assign(
      [
        [
          _at_place(end, track[start])
          if last < start and looks[last].scene.shot == looks[start].scene.shot
          else 0.0
          for track in beginning
        ]
        for last, end in ends
      ]
    )
    for place, track in enumerate(beginning):
      if place in back:
        people[back[place]].update(track)
      else:
        people.append(dict(track))
  return people


def _at_place(last: FaceBox, box: FaceBox) -> float:
  """How well a face is back where it was, in (0, 1]; 0 where it is elsewhere."""
  if last.ratio(box) > _LIKE:
    return 0.0
  return max(0.0, 1 - last.distance(box) / (_PLACE * min(last.side, box.side)))


def _assign(gains: Sequence[Sequence[float]]) -> dict[int, int]:
  """Column -> row of the assignment with the highest sum; a gain of 0 is none."""
  table = np.array(gains, float)
  if not table.size:
    return {}
  rows, columns = scipy.optimize.linear_sum_assignment(table, maximize=True)
  return {int(c): int(r) for r, c in zip(rows, columns) if table[r, c] > 0}
