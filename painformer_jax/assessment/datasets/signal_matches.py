"""Finds signals of the same recording, whatever became of its unit, digits or first rows.

Many recordings look alike: beats do, and slow responses do even more. But no two of them
have the same noise. So each signal is filtered to a band and whitened, which makes all
frequencies of the band equally strong, and limited, which makes the time between beats as
important as the beats. Pairs that then correlate match if nearly all their parts do, of an
eighth of a second at 512 Hz. There are two bands, because noise that was added, or digits
that were cut off, spoil the fast one, and a resampling all that is fast.

Signals of few steps, such as a coarsely digitised skin conductance, have no such noise. They
match if all steps agree, and these are more than can agree by chance.
"""

import collections
import dataclasses
import math
from collections.abc import Hashable, Iterator, Sequence

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Band:
  """How signals are compared in one band.

  Attributes:
    low, high: of the band, as shares of the sampling rate.
    rate: of the points that stand for a signal, as a share of the sampling rate.
    alike: correlation from which on a pair is looked at.
    part: correlation that a part needs, and
    parts: the share of the parts that need it.
  """

  low: float
  high: float
  rate: float
  alike: float
  part: float
  parts: float


_FAST = _Band(low=0.08, high=0.47, rate=1.0, alike=0.25, part=0.2, parts=0.7)
_SLOW = _Band(low=0.016, high=0.08, rate=0.1875, alike=0.6, part=0.6, parts=0.75)
_BANDS = (_FAST, _SLOW)
_ROWS = 64  # Of a signal in a part.
_COMPARED = 512  # Points by which pairs are looked for.
_FLOOR = 1e-4  # Of a band's power: what is weaker stays so.
# Places of a signal, of which no two may hold so much of a band.
_PLACES, _GATHERED = 16, 0.7
_BENT = 30.0  # Changes of slope are limited to so many median ones.
_LIMIT = 3.0  # Whitened signals are limited to so many median deviations.
# Where signals are shifted: peaks of each, rows to either side of a peak, every so many of
# which are compared, the correlation they need, and the share of the shorter signal that
# must lie beside the other.
_PEAKS, _AROUND, _EVERY, _PEAKS_ALIKE, _OVERLAP = 4, 128, 2, 0.7, 0.5
# By how much the correlation of copies exceeds that at other shifts; or, of those that repeat
# themselves, by how much less it lacks.
_ALONE, _CLOSER = 2.0, 5.0
# Steps from which on a signal has noise; steps and bits that the others must hold; and by
# which share of its range two of them may differ.
_NOISY, _STEPS, _BITS, _ROUNDING = 128, 8, 48, 1e-4
_BLOCK = 2048  # Signals that are compared with as many at a time.


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class _Signal:
  """A signal as it is compared.

  Attributes:
    key, kind: as given.
    points: for each band int8 [n], empty where there is nothing in it.
    places: of its peaks, rows.
  """

  key: Hashable
  kind: str
  points: tuple[np.ndarray, ...]
  places: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Pair:
  """Two signals that may be the same: their numbers, and how the second lies."""

  first: int
  second: int
  band: int
  turned: bool = False
  shift: int = 0  # Rows by which the second begins later in the first.


class SignalMatches:
  """Takes signals one by one, and then tells which of them are of the same recording."""

  def __init__(self):
    self._signals: list[_Signal] = []
    self._steps: dict[tuple, list[tuple[Hashable, np.ndarray]]] = collections.defaultdict(list)

  def add(self, key: Hashable, values: np.ndarray, *, kind: str = '') -> None:
    """Adds a signal.

    Args:
      key: names it in the result.
      values: real [n], which may hold NaN.
      kind: such as 'ecg'. Between signals of different kinds only copies that are not
        shifted, turned or resampled are found.
    """
    finite = np.flatnonzero(np.isfinite(values))
    if len(finite) < _STEPS:
      return
    values = np.interp(np.arange(len(values)), finite, np.asarray(values, np.float64)[finite])
    starts = np.flatnonzero(np.diff(values, prepend=np.inf))
    if len(starts) < _NOISY:
      if _is_telling(values, starts):
        levels = values[starts]
        scaled = (levels - levels[0]) / np.abs(levels - levels[0]).max()
        self._steps[len(values), starts.tobytes()].append((key, scaled))
      return
    spectrum = _spectrum(values)
    points = tuple(_whitened(spectrum, len(values), band) for band in _BANDS)
    if any(map(len, points)):
      places = tuple(_peaks(points[0])) if len(points[0]) else ()
      self._signals.append(_Signal(key=key, kind=kind, points=points, places=places))

  def pairs(self) -> Iterator[tuple[Hashable, Hashable]]:
    """Keys of signals that are the same, the one that was added first in front.

    Of several copies of a signal each is named with one other at least.
    """
    for group in self._steps.values():
      for n, (key, levels) in enumerate(group):
        for other, theirs in group[:n]:
          sign = 1 if levels @ theirs >= 0 else -1
          if np.abs(levels - sign * theirs).max() <= _ROUNDING:
            yield other, key
            break
    found: dict[int, set[int]] = collections.defaultdict(set)
    signals = self._signals
    for pair in self._candidates():
      a, b = pair.first, pair.second
      if b in found[a] or found[a] & found[b]:
        continue
      if _agree(signals[a].points[pair.band], signals[b].points[pair.band], pair):
        found[a].add(b)
        found[b].add(a)
        yield signals[a].key, signals[b].key

  def _candidates(self) -> Iterator[_Pair]:
    """Pairs that may be the same."""
    signals = self._signals
    kinds = collections.defaultdict(list)
    for n, signal in enumerate(signals):
      kinds[signal.kind].append(n)
    fast = self._rows(range(len(signals)), 0)
    for a, b in _alike(fast, fast, _FAST.alike):
      yield _Pair(first=a, second=b, band=0)
    for numbers in kinds.values():
      turned = self._rows(numbers, 0, turned=True)
      for a, b in _alike(fast[numbers], turned, _FAST.alike):
        yield _Pair(first=numbers[a], second=numbers[b], band=0, turned=True)
    del fast
    for numbers in kinds.values():
      slow = self._rows(numbers, 1)
      for a, b in _alike(slow, slow, _SLOW.alike):
        yield _Pair(first=numbers[a], second=numbers[b], band=1)
    for numbers in kinds.values():
      owner = [(n, place) for n in numbers for place in signals[n].places]
      peaks = _unit([_around(signals[n].points[0], place) for n, place in owner])
      for p, q in _alike(peaks, peaks, _PEAKS_ALIKE) if owner else ():
        (a, ours), (b, theirs) = owner[p], owner[q]
        if a != b:
          yield _Pair(first=a, second=b, band=0, shift=ours - theirs)

  def _rows(self, numbers: Sequence[int], band: int, *, turned: bool = False) -> np.ndarray:
    """float32 [numbers, points] of norm 1: some points of each signal as it lies."""
    points = [self._signals[n].points[band] for n in numbers]
    longest = max(map(len, points), default=0)
    every = max(longest // _COMPARED, 1)
    rows = np.zeros((len(points), -(-longest // every)), np.float32)
    for row, own in zip(rows, points):
      part = (own[::-1] if turned else own)[::every]
      row[: len(part)] = part
    return _unit(rows)


def _alike(ours: np.ndarray, theirs: np.ndarray, least: float) -> Iterator[tuple[int, int]]:
  """Pairs of rows a < b whose product is at least so large, whatever its sign."""
  for a in range(0, len(ours), _BLOCK):
    for b in range(a, len(theirs), _BLOCK):
      product = ours[a : a + _BLOCK] @ theirs[b : b + _BLOCK].T
      np.abs(product, out=product)
      if product.max() >= least:
        for n, m in np.argwhere(product >= least).tolist():
          if a + n < b + m:
            yield a + n, b + m


def _spectrum(values: np.ndarray) -> np.ndarray:
  """Of a signal's changes of slope, without odd values.

  The slow form of a signal is so much larger than its noise that its ends alone, which do
  not meet, would hide the noise in a spectrum.
  """
  low, high = np.percentile(values, (0.5, 99.5))
  values = np.clip(values, low - (high - low), high + (high - low))
  bends = np.diff(values, n=2)
  # A single bend, such as an onset or a jump, would ring all over the band, louder than noise.
  sizes = np.abs(bends)
  if sizes.any():
    most = _BENT * np.median(sizes[sizes > 0])
    bends = np.clip(bends, -most, most)
  return np.fft.rfft(np.pad(bends, 1))


def _whitened(spectrum: np.ndarray, rows: int, band: _Band) -> np.ndarray:
  """int8 [rows * band.rate]: what lies in a band, whitened and limited; [0] for nothing."""
  first, stop = math.ceil(band.low * rows), int(band.high * rows)
  count = round(band.rate * rows)
  inside = spectrum[first:stop]
  power = np.abs(inside) ** 2
  if len(inside) < 8 or not power.max() > 0:
    return np.zeros(0, np.int8)
  window = np.ones(min(2 * (len(inside) // 100) + 11, len(inside)))
  smooth = np.convolve(power, window, 'same') / np.convolve(np.ones(len(power)), window, 'same')
  flat = inside / np.sqrt(smooth + _FLOOR * smooth.max())
  # A single frequency, such as that of the mains, is no noise.
  flat /= np.maximum(np.abs(flat) / 2, 1)
  # With sharp edges of the band, what is strong would ring all over the signal.
  edge = len(flat) // 4
  fade = np.sin(np.linspace(0, np.pi / 2, edge, endpoint=False)) ** 2
  flat[:edge] *= fade
  flat[len(flat) - edge :] *= fade[::-1]
  whole = np.zeros(count // 2 + 1, complex)
  whole[first : first + len(flat)] = flat[: max(len(whole) - first, 0)]
  points = np.fft.irfft(whole, count)
  energy = np.array([part @ part for part in np.array_split(points, _PLACES)])
  if np.sort(energy)[-2:].sum() > _GATHERED * energy.sum():
    # Not noise, but what filters make of both ends, or of one onset.
    return np.zeros(0, np.int8)
  deviation = np.median(np.abs(points))
  if not deviation > 0:
    return np.zeros(0, np.int8)
  return np.rint(np.clip(points / deviation / _LIMIT, -1, 1) * 127).astype(np.int8)


def _peaks(points: np.ndarray) -> Iterator[int]:
  """The places around which a signal is strongest, none near its ends."""
  if len(points) < 2 * _AROUND + 8:
    return
  # Single points are limited: a few together tell more.
  strength = np.convolve(np.abs(points.astype(np.float32)), np.hanning(9), 'same')
  strength[:_AROUND] = strength[len(points) - _AROUND :] = 0
  for _ in range(_PEAKS):
    top = int(strength.argmax())
    if not strength[top]:
      return
    yield top
    strength[max(top - 8, 0) : top + 9] = 0


def _around(points: np.ndarray, place: int) -> np.ndarray:
  return points[place - _AROUND : place + _AROUND : _EVERY]


def _unit(rows) -> np.ndarray:
  rows = np.asarray(rows, np.float32)
  return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-9)


def _agree(ours: np.ndarray, theirs: np.ndarray, pair: _Pair) -> bool:
  """Whether nearly all parts of two signals correlate, and do so here alone."""
  band = _BANDS[pair.band]
  if pair.turned:
    theirs = theirs[::-1]
  start, late = max(pair.shift, 0), max(-pair.shift, 0)
  length = min(len(ours) - start, len(theirs) - late)
  size = round(_ROWS * band.rate)
  if length < max(_OVERLAP * min(len(ours), len(theirs)), 4 * size):
    return False
  count = length // size
  x = ours[start : start + count * size].reshape(count, size).astype(np.float32)
  y = theirs[late : late + count * size].reshape(count, size).astype(np.float32)
  products = (x * y).sum(axis=1)
  if products.sum() < 0:
    products = -products
  scale = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
  if np.mean(products >= band.part * np.maximum(scale, 1e-9)) < band.parts:
    return False
  return _is_alone(x.ravel(), y.ravel(), near=size // 4)


def _is_alone(x: np.ndarray, y: np.ndarray, *, near: int) -> bool:
  """Whether two signals agree far better as they lie than at any other shift.

  Signals that repeat themselves, or that were filled up from a much lower rate, do not.
  """
  size = 2 * len(x)
  cross = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(y, size).conj(), size)
  cross = np.abs(cross) / max(float(np.linalg.norm(x) * np.linalg.norm(y)), 1e-9)
  here, other = cross[0], cross[near : size - near].max()
  return bool(here >= _ALONE * other or 1 - here <= (1 - other) / _CLOSER)


def _is_telling(values: np.ndarray, starts: np.ndarray) -> bool:
  """Whether the steps of a signal hold more than may be alike by chance.

  A saturation that moves by one percent once a second does not.
  """
  if len(starts) < _STEPS:
    return False
  steps = np.diff(values[starts])
  grid = max(int(np.gcd.reduce(np.diff(starts))), 1)
  places = max(len(values) // grid, len(steps))
  kinds = len(np.unique(np.round(steps / np.abs(steps).max(), 3)))
  return math.log2(math.comb(places, len(steps))) + len(steps) * math.log2(kinds) >= _BITS
