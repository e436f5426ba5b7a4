"""`painformer assess-clip`: levels over time, and abstention."""

import csv
import dataclasses
import json
import shutil
import weakref

import cv2
import numpy as np
import pytest
from command_line import run_command as run

from painformer_jax.assessment.clips import assessor, clip, signals
from painformer_jax.assessment.clips.calibration import fit_temperature
from painformer_jax.assessment.clips.recording import Recording
from painformer_jax.assessment.datasets import biovid, planted_signals
from painformer_jax.assessment.embedding.sample_images import SampleReader
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.inference import Embedder
from painformer_jax.weights.folder import save_weights
from painformer_jax.weights.load import read_weights

SECONDS = 5.5


@pytest.fixture(scope='module')
def recording(tmp_path_factory):
  """Eleven windows of skin conductance, high responses every other time; two faults."""
  rng = np.random.default_rng(0)
  parts = [
    planted_signals.signals(4.0 if n % 2 else 0.0, rng, effect=4.0)['gsr'] for n in range(13)
  ]
  parts[3] = np.full(2816, 5.0)
  parts[6] = np.full(2816, np.nan)
  path = tmp_path_factory.mktemp('clip') / 'skin.csv'
  path.write_text(
    'time,skin\n'
    + ''.join(f'{n / 512:.5f},{value:.6g}\n' for n, value in enumerate(np.concatenate(parts)))
  )
  return path


def folder_of(finished):
  return finished[0] / 'assessors' / 'gsr-BL1-PA4'


def test_csv_has_a_row_a_window_and_abstains_where_the_signal_is_missing(
  finished, recording, tmp_path
):
  done = run(
    'assess-clip',
    recording,
    '--assessor',
    folder_of(finished),
    '--rate',
    512,
    '--column',
    'skin',
    '--step',
    SECONDS,
    '--out',
    tmp_path / 'levels.csv',
  )
  assert done.returncode == 0, done.stderr
  assert 'no medical device' in done.stderr and '13 windows, 2 abstained' in done.stdout
  assert 'levels are relative to this recording' in done.stderr
  lines = (tmp_path / 'levels.csv').read_text().splitlines()
  # The study was planted, which comes before anything else.
  assert lines[0].startswith('# Trained on synthetic recordings (BioVid Part A, synthetic copy)')
  assert 'A research tool; no medical device' in lines[0]
  assert done.stderr.splitlines()[0].startswith('Trained on synthetic recordings')
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
  done = run(
    'assess-clip',
    f'gsr={recording}',
    '--assessor',
    folder_of(finished),
    '--rate',
    512,
    '--column',
    'gsr=1',
    '--step',
    5,
    '--out',
    tmp_path / 'levels.json',
  )
  assert done.returncode == 0, done.stderr
  record = json.loads((tmp_path / 'levels.json').read_text())
  assert record['classes'] == ['no pain', 'PA4'] and 'no medical device' in record['notice']
  assert record['relative'].startswith('levels are relative to this recording')
  assert record['measured']['low'] <= record['measured']['accuracy'] <= record['measured']['high']
  assert {'start', 'stop', 'level', 'probability', 'abstained'} == record['windows'][0].keys()


@pytest.mark.parametrize(
  'arguments, words',
  [
    (('--rate', 512, '--column', 'pulse'), 'pulse'),
    (('--rate', 512, '--column', 'skin,time'), 'takes 1 channel, not 2 columns'),
    (('--rate', 512, '--column', 'skin', '--step', 0), 'above 0 s'),
    (('--rate', 'eda=512'), "there is no signal 'eda'; this assessor takes gsr"),
    (('--rate', 'gsr=fast'), "'fast' is no number of samples a second above 0"),
    (('--rate', 0), "'0' is no number"),
    (('--rate', 'gsr=inf'), "'inf' is no number"),
    (('--rate', 'gsr=512', '--rate', 'gsr=256'), 'gsr is given twice'),
    (('--rate', 512, '--rate', 256), 'the rate of all signals is given twice'),
    (('--rate', 512, '--column', 'skin', '--out', 'levels.txt'), 'name a .csv or .json file'),
    (('--rate', 500, '--column', 'skin'), 'the stated rate is 500 Hz'),
    (('--rate', 512, '--column', 'skin', '--step', 30), 'needs 8 to standardise'),
  ],
)
def test_mistakes_end_with_one_line(finished, recording, arguments, words):
  done = run('assess-clip', recording, '--assessor', folder_of(finished), *arguments)
  assert done.returncode == 2 and words in done.stderr.splitlines()[-1]


def test_other_weights_and_other_folders_are_refused(finished, recording, small, tmp_path):
  config = read_weights(small / 'weights')
  changed = {k: v + 1 if k == 'norm4/bias' else v for k, v in config.variables.items()}
  assert changed.keys() == config.variables.keys()
  save_weights(tmp_path / 'other', changed, config=config.config, source=config.source)
  done = run(
    'assess-clip',
    recording,
    '--assessor',
    folder_of(finished),
    '--rate',
    512,
    '--column',
    'skin',
    '--weights',
    tmp_path / 'other',
  )
  assert done.returncode == 2 and 'other weights' in done.stderr
  done = run('assess-clip', recording, '--assessor', tmp_path)
  assert done.returncode == 2 and 'holds no trained assessor' in done.stderr


def test_two_sources_must_be_named(finished, recording):
  folder = finished[0] / 'assessors' / 'both-BL1-PA4'
  done = run('assess-clip', recording, '--assessor', folder)
  assert done.returncode == 2 and 'SOURCE=' in done.stderr
  done = run('assess-clip', f'gsr={recording}', '--assessor', folder, '--rate', 512)
  assert done.returncode == 2 and 'takes ecg, gsr; given were gsr' in done.stderr


@pytest.mark.parametrize(
  'given, rates',
  [
    (('512',), (512, 512)),
    (('ecg=256', 'gsr=512'), (256, 512)),
    (('ecg=256', '512'), (256, 512)),
    (('gsr=8',), (0, 8)),
  ],
)
def test_each_signal_has_a_rate_of_its_own(finished, recording, monkeypatch, given, rates):
  class Enough(Exception):
    pass

  def assess(loaded, recordings, **_):
    assert tuple(recordings[name].rate for name in ('ecg', 'gsr')) == rates
    assert (recordings['ecg'].time, recordings['gsr'].time) == ('none', '')
    raise Enough

  monkeypatch.setattr(clip, 'assess_clip', assess)
  with pytest.raises(Enough):
    run(
      'assess-clip',
      f'gsr={recording}',
      f'ecg={recording}',
      '--assessor',
      finished[0] / 'assessors' / 'both-BL1-PA4',
      *(part for each in given for part in ('--rate', each)),
      '--time',
      'ecg=none',
    )


def test_two_signals_of_different_rates(finished, recording, tmp_path):
  """Half of the rows of one of them."""
  lines = recording.read_text().splitlines(keepends=True)
  (tmp_path / 'heart.csv').write_text(''.join([lines[0], *lines[1::2]]))
  done = run(
    'assess-clip',
    f'gsr={recording}',
    f'ecg={tmp_path / "heart.csv"}',
    '--assessor',
    finished[0] / 'assessors' / 'both-BL1-PA4',
    '--rate',
    '512',
    '--rate',
    'ecg=256',
    '--column',
    'gsr=skin',
    '--column',
    'ecg=skin',
    '--step',
    SECONDS,
  )
  assert done.returncode == 0, done.stderr
  assert '13 windows of 5.50 s' in done.stderr


@pytest.fixture
def of_skin(finished):
  """An assessor of 5.5 s of skin conductance, which judges a single window too."""
  return dataclasses.replace(assessor.load(folder_of(finished)), normalise='none')


def skin(recording, path, *, rows: int) -> dict[str, Recording]:
  """The first rows of the recording."""
  path.write_text(''.join(recording.read_text().splitlines(keepends=True)[: 1 + rows]))
  return {'gsr': Recording(path=str(path), columns=('skin',), rate=512)}


@pytest.mark.parametrize('seconds', [0.0, SECONDS])
@pytest.mark.parametrize('rows', [2815, 2760])
def test_a_recording_slightly_shorter_than_a_window_is_one(
  of_skin, recording, tmp_path, rows, seconds
):
  """Whether its images are of whole samples or of windows of so many seconds."""
  settings = of_skin.settings['gsr']
  of_skin = dataclasses.replace(
    of_skin,
    settings={
      'gsr': dataclasses.replace(
        settings, signal=dataclasses.replace(settings.signal, window=seconds)
      )
    },
  )
  whole, short = (
    clip.assess_clip(of_skin, skin(recording, tmp_path / f'{n}.csv', rows=n)) for n in (2816, rows)
  )
  assert short.start.tolist() == whole.start.tolist() == [0]
  assert short.stop.tolist() == [SECONDS] and short.reason == whole.reason == ('',)
  np.testing.assert_allclose(short.probability, whole.probability, atol=0.05)


@pytest.mark.parametrize('kept', [slice(0, 300), slice(2516, None), slice(1200, 1500)])
def test_a_window_with_300_samples_is_abstained_from(of_skin, recording, tmp_path, kept):
  """Blank before, after or around them; and what is left is not stretched to a window."""
  lines = recording.read_text().splitlines(keepends=True)
  values = [line.split(',')[1] for line in lines[1:2817]]
  there = range(2816)[kept]
  rows = [f'{n / 512:.5f},{v if n in there else chr(10)}' for n, v in enumerate(values)]
  (tmp_path / 'a.csv').write_text(lines[0] + ''.join(rows))
  curve = clip.assess_clip(
    of_skin, {'gsr': Recording(path=str(tmp_path / 'a.csv'), columns=('skin',), rate=512)}
  )
  assert curve.level == [''] and 'gsr: ' in curve.reason[0] and 'gaps' in curve.reason[0]
  assert np.isnan(curve.probability).all()


def test_times_are_said_or_ignored_on_request(of_skin, recording, tmp_path):
  given, said = skin(recording, tmp_path / 'a.csv', rows=2816)['gsr'], []
  given = dataclasses.replace(given, rate=0.0)
  clip.assess_clip(of_skin, {'gsr': given}, log=said.append)
  assert any("512 Hz by column 'time', taken as seconds" in line for line in said)
  wrong = dataclasses.replace(given, rate=500.0)
  with pytest.raises(InputError, match='the stated rate is 500 Hz; --time none goes by --rate'):
    clip.assess_clip(of_skin, {'gsr': wrong})
  curve = clip.assess_clip(of_skin, {'gsr': dataclasses.replace(wrong, time='none')})
  assert len(curve.start) == 1
  with pytest.raises(InputError, match='gsr without times needs a sampling rate'):
    clip.assess_clip(of_skin, {'gsr': dataclasses.replace(given, time='none')})
  with pytest.raises(InputError, match='step of 1e-09 s is too short for windows of 5.5 s'):
    clip.assess_clip(of_skin, {'gsr': given}, step=1e-9)


def test_a_recording_at_a_much_lower_rate_is_refused(of_skin, recording, tmp_path):
  lines = recording.read_text().splitlines(keepends=True)
  (tmp_path / 'a.csv').write_text(lines[0] + ''.join(lines[1::9]))
  given = Recording(path=str(tmp_path / 'a.csv'), columns=('skin',), rate=512 / 9)
  with pytest.raises(InputError, match='trained on gsr at 512 Hz; at 56.8889 Hz'):
    clip.assess_clip(of_skin, {'gsr': given})


def test_a_recording_much_shorter_than_a_window_is_refused(of_skin, recording, tmp_path):
  with pytest.raises(InputError, match=r'lasts 5\.39 s; this assessor judges windows of 5\.50 s'):
    clip.assess_clip(of_skin, skin(recording, tmp_path / 'a.csv', rows=2759))


def test_images_are_embedded_and_dropped_a_batch_at_a_time(of_skin, recording, monkeypatch):
  """Of thirteen windows, eleven with an image, in the order in which they come."""
  events, drawn, batches, alive, most = [], [], [], [], []

  class Reader(SampleReader):
    def signal_images(self, *args, **options):
      for image in super().signal_images(*args, **options):
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

  monkeypatch.setattr(signals, 'SampleReader', Reader)
  monkeypatch.setattr(clip, 'Embedder', Recorded)
  recordings = {'gsr': Recording(path=str(recording), columns=('skin',), rate=512)}
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


def test_an_assessor_that_could_judge_no_clip_is_not_kept(small, tmp_path):
  data, rng = shutil.copytree(small / 'data', tmp_path / 'data'), np.random.default_rng(0)
  for sample in biovid.open_study(data, modalities=('gsr',)).samples:
    folder = data / 'grey' / sample.subject / sample.name
    folder.mkdir(parents=True)
    for number in range(2):
      cv2.imwrite(str(folder / f'{number}.png'), rng.integers(0, 255, (8, 8, 3), dtype=np.uint8))
  text = (small / 'config.py').read_text()
  (tmp_path / 'config.py').write_text(
    text.replace(
      '  return config',
      """
  config.image_sources = dict(grey='grey/{subject}/{sample}')
  config.modalities.grey = dict(source='grey', image_type='rgb')
  config.rows.both.fusion = dict(kind='fusion-1', modalities=('gsr', 'grey'))
  return config""",
    )
  )
  done = run(
    'assess',
    '--config',
    tmp_path / 'config.py',
    '--workdir',
    tmp_path / 'work',
    f'--config.data_dir={data}',
    '--config.assessor=True',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  [line] = [line for line in done.stderr.splitlines() if 'no assessor is saved' in line]
  assert line.startswith('both, BL1-PA4: ') and 'images of grey do not say their rate' in line
  assert [path.name for path in (tmp_path / 'work' / 'assessors').iterdir()] == ['gsr-BL1-PA4']


def test_temperature_mends_overconfidence():
  rng = np.random.default_rng(0)
  logits = rng.normal(0, 1, (4000, 2))
  label = (rng.random(4000) < 1 / (1 + np.exp(logits[:, 0] - logits[:, 1]))).astype(int)
  claimed = np.exp(4 * logits) / np.exp(4 * logits).sum(1, keepdims=True)
  assert fit_temperature(label, claimed) == pytest.approx(4, rel=0.2)
