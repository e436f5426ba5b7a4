"""Describes a run's data in a sentence, and what it cannot show."""

from collections.abc import Iterable

from painformer_jax.data.prepared import PreparedTask

# The splits of the demo's tasks, in short; their descriptions have the details.
DEMO_SPLITS = {
  'orl_identity': '40 people, the same in both; photos 1-5 train, 6-10 test',
  'lfw_face': 'patches with a face or none; even ones train, odd ones test',
  'biosignal_waveform': 'ECG, EMG, EDA, BVP or RESP; other recordings train than test',
  'biosignal_spectrogram': 'the windows of biosignal_waveform, as power density',
  'stimulus_rest': 'one person; 4 of 6 series of pictures train, 2 test',
  'tapping_rest': 'one person, fNIRS; first 576 s train, last 278 s test',
}

DEMO = (
  'Public recordings of different people: photographs, biosignals, fNIRS. '
  'No pain labels: nothing here measures pain.'
)
OTHER = (
  'The tasks are what those who prepared them say (see their descriptions); '
  'an accuracy here is not an assessment of pain.'
)


def what_it_is(tasks: Iterable[str]) -> str:
  """A sentence or two about all of a run's data."""
  return DEMO if set(tasks) <= DEMO_SPLITS.keys() else OTHER


def split_note(task: PreparedTask) -> str:
  """What a task is and how its images are split; short for those of the demo."""
  return DEMO_SPLITS.get(task.name, task.description)
