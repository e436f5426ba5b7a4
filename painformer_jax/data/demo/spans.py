"""Which part of which recording an example of the demo corpus is made of."""

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingSpan:
  """What an example is made of; its text is the example's `source`.

  Attributes:
    recording: a file or a set of simultaneous channels; without a comma.
    channel: within the recording; '' for a still image.
    start, stop: in seconds from the recording's start; 0 for a still image.
  """

  recording: str
  channel: str = ''
  start: float = 0.0
  stop: float = 0.0

  def __str__(self) -> str:
    if not self.channel:
      return self.recording
    return f'{self.recording}, {self.channel}, {self.start:.3f}-{self.stop:.3f} s'
