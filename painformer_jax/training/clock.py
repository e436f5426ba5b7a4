"""How long a run has taken, how fast it goes, when it will end."""

import dataclasses
import time


@dataclasses.dataclass
class Clock:
  """Time and images of a run, over all its interruptions.

  Attributes:
    steps: done so far.
    images: of the steps whose time is counted, by all processes; the first
      step after each start compiles and is not counted.
    seconds: spent in those steps, input wait included; evaluation and
      checkpoints are not.
  """

  steps: int = 0
  images: int = 0
  seconds: float = 0.0

  def __post_init__(self):
    self._mark = None
    self._window_images = self._window_seconds = 0.0

  @property
  def running(self) -> bool:
    return self._mark is not None

  def resume(self) -> None:
    """Starts to count, after a pause or at the beginning."""
    self._mark = time.perf_counter()

  def pause(self) -> None:
    """Stops to count, for work that is not training."""
    self._advance()
    self._mark = None

  def tick(self, images: int) -> None:
    """Counts a finished step of so many images."""
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

  def remaining(self, steps: int, *, images_per_step: int, rate: float) -> float:
    """Seconds until so many steps are done, at `rate` images a second."""
    return max(steps - self.steps, 0) * images_per_step / rate if rate else float('inf')

  def record(self) -> dict:
    """What a checkpoint keeps."""
    return {'steps': self.steps, 'images': self.images, 'seconds': self.seconds}
