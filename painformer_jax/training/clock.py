"""How long a run has taken and with what, how fast it goes, when it will end."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator

# What a run's time goes to. While the devices work it is COMPUTE, whatever the host
# does meanwhile; while they do not, it is what keeps them waiting.
COMPUTE, INPUT, HOST = 'compute', 'input', 'host'
CHECKPOINT, EVALUATION, PROFILE = 'checkpoint', 'evaluation', 'profile'


@dataclasses.dataclass
class Clock:
  """Time and images of a run, over all its interruptions.

  Attributes:
    steps: done so far.
    images: of the steps whose time is counted, by all processes; the first
      step after each start compiles and is not counted.
    seconds: spent in those steps, input wait included; evaluation and
      checkpoints are not.
    spent: what the time went to -> seconds: 'compute' the devices worked; 'input'
      they were idle and the host waited for a batch; 'host' they were idle and the
      host did something else; 'checkpoint', 'evaluation', 'profile' training stood
      still for that. The first three make up `seconds`.
  """

  steps: int = 0
  images: int = 0
  seconds: float = 0.0
  spent: dict[str, float] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    self.spent = dict(self.spent)
    self.resumed = 0.0  # When training last went on, by time.perf_counter().
    self._mark = None
    self._window_images = self._window_seconds = 0.0
    self._window = {}

  @property
  def running(self) -> bool:
    return self._mark is not None

  def resume(self) -> None:
    """Starts to count, after a pause or at the beginning."""
    self._mark = self.resumed = time.perf_counter()

  def pause(self) -> None:
    """Stops to count, for work that is not training."""
    self._advance()
    self._mark = None

  @contextlib.contextmanager
  def during(self, activity: str) -> Iterator[None]:
    """Counts a `with` block as something else than training."""
    self.pause()
    began = time.perf_counter()
    try:
      yield
    finally:
      self.count(activity, time.perf_counter() - began)
      self.resume()

  def count(self, activity: str, seconds: float) -> None:
    """Adds to what the time went to."""
    for counts in (self.spent, self._window):
      counts[activity] = counts.get(activity, 0.0) + seconds

  def tick(self, images: int) -> None:
    """Counts a step of so many images."""
    self._advance()
    self.steps += 1
    self.images += images
    self._window_images += images

  def _advance(self) -> None:
    if self._mark is not None:
      now = time.perf_counter()
      self.seconds += now - self._mark
      self._window_seconds += now - self._mark
      self._mark = now

  def rate(self) -> float:
    """Images a second since the last call of `rate`; 0 before any step."""
    self._advance()
    rate = self._window_images / self._window_seconds if self._window_seconds else 0.0
    self._window_images = self._window_seconds = 0.0
    return rate

  def split(self) -> dict[str, float]:
    """What the time since the last call of `split` went to, as in `spent`."""
    window, self._window = self._window, {}
    return window

  def remaining(self, steps: int, *, images_per_step: int, rate: float) -> float:
    """Seconds until so many steps are done, at `rate` images a second.

    Training stands still as often as it did so far.
    """
    if not rate:
      return float('inf')
    training = sum(self.spent.get(name, 0.0) for name in (COMPUTE, INPUT, HOST))
    standing = sum(self.spent.values()) - training
    overhead = 1 + standing / training if training else 1.0
    return max(steps - self.steps, 0) * images_per_step / rate * overhead

  def record(self) -> dict:
    """What a checkpoint keeps."""
    return {
      'steps': self.steps,
      'images': self.images,
      'seconds': self.seconds,
      'spent': dict(self.spent),
    }
