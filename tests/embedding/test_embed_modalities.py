"""`painformer embed --modality` as a command, and its contact sheets."""

import json

import numpy as np
import pytest
from command_line import run_command
from PIL import Image
from row_readers import face_clip, mtcnn, rows_of, signals, table
from test_cli_embed import names, read
from test_signal_windows import beats
from test_video import write_video

from painformer_jax.cli.main import main
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.find import find_files
from painformer_jax.embedding.pictures import PictureReader
from painformer_jax.embedding.signals import SignalReader
from painformer_jax.modalities import sheet


def test_signals_to_embeddings_and_a_sheet(stored, tmp_path):
  folder = tmp_path / 'in'
  folder.mkdir()
  table(folder / 'a.csv', time=np.arange(2816) / 512, ecg=beats())
  table(folder / 'b.csv', time=np.arange(2816) / 512, ecg=np.zeros(2816))
  (folder / 'ignored.txt').write_text('no signal')
  (tmp_path / 's.json').write_text('{"images": {"spectrogram": {"segment": 128, "overlap": 64}}}')
  done = run_command(
    'embed',
    folder,
    '--modality',
    'ecg',
    '--column',
    'ecg',
    '--rate',
    512,
    '--weights',
    stored,
    '--settings',
    tmp_path / 's.json',
    '--out',
    tmp_path / 'out.npz',
    '--sheet',
    tmp_path / 'sheet.png',
    '--sheet-images',
    3,
    '--batch-size',
    4,
  )
  assert done.returncode == 2
  assert done.stderr.splitlines() == [
    f'reads {stored}',
    '8 images to embed; compiles the model first',
    f'{folder / "b.csv"}: 1 of 1 windows left out (1 flat)',
    f'painformer: 1 input could not be read whole, named above; the rest is in '
    f'{tmp_path / "out.npz"}',
  ]
  assert done.stdout == (
    f'{tmp_path / "out.npz"}: 4 embeddings from 1 of 2 files; 1 of 2 windows left out (1 flat); '
    'left out of the folders: 1 .txt without numbers\n'
  )
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
def test_faces_to_embeddings(stored, tmp_path, astronaut):
  clip = face_clip(tmp_path / 'a.avi', astronaut, faceless=(4,))
  write_video(tmp_path / 'none.mp4', 5)
  done = run_command(
    'embed',
    clip,
    tmp_path / 'none.mp4',
    '--modality',
    'face',
    '--weights',
    stored,
    '--out',
    tmp_path / 'out.npz',
    '--every',
    2,
    '--batch-size',
    4,
  )
  assert done.returncode == 2 and 'none.mp4 shows no face' in done.stderr
  arrays = read(tmp_path / 'out.npz')
  assert list(arrays['frame']) == [0, 2, 4, 6, 8, 10]
  assert list(arrays['face']) == ['detected'] * 2 + ['tracked'] + ['detected'] * 3
  np.testing.assert_allclose(arrays['time'], np.arange(0, 12, 2) / 25, atol=1e-3)
  assert 'face' in json.loads(str(arrays['settings']))
  assert done.stdout.endswith('3 of 9 frames left out: 3 without a face\n')


@pytest.mark.parametrize(
  'options, words',
  [
    ('--rate 5', '--rate does not fit --modality rgb; it is for ecg, emg, gsr, fnirs'),
    ('--modality ecg --rate 5 --every 2', '--every does not fit --modality ecg'),
    ('--modality face --network a.onnx', '--network does not fit --modality face'),
    ('--modality thermal --stand-in', '--stand-in does not fit --modality thermal'),
    ('--modality fnirs --clean', '--clean does not fit --modality fnirs'),
    ('--crop-faces', '--crop-faces does not fit --modality rgb'),
    ('--modality depth --faceless whole', '--faceless with --modality depth needs --crop-faces'),
    ('--face all', '--face does not fit --modality rgb'),
    ('--modality thermal --face all', '--face with --modality thermal needs --crop-faces'),
    ('--modality depth --network a.onnx --stand-in', 'exclude each other'),
    ('--modality gsr --rate 0', 'gsr needs a sampling rate'),
    ('--modality gsr --time none', 'needs a sampling rate'),
    ('--modality rgb --time t', '--time does not fit --modality rgb'),
    ('--modality ecg --window 0', '0 is neither seconds above 0 nor whole'),
    ('--modality ecg --window x', 'x is neither'),
    ('--modality gsr --rate -3', 'gsr needs a sampling rate'),
    ('--modality emg --rate 100 --clean', 'emg at 100 Hz cannot be cleaned'),
    ('--modality ecg --rate 512 --window 0.3', 'have 154 samples'),
    ('--modality ecg --rate 512 --step 1 --window whole', 'a step needs a window'),
    ('--modality ecg --rate 512 --representation psd,x', "not 'x'"),
    ('--modality eeg', 'eeg'),
    ('--settings absent.json', 'absent.json cannot be read'),
    ('--sheet a.txt', 'a.txt must end in'),
    ('--sheet absent/a.png', 'no folder'),
    ('--sheet a.png --sheet-images 0', '1 to 2000'),
    ('--sheet-images 3', 'needs --sheet'),
  ],
)
def test_options_that_do_not_fit_are_refused_in_a_line(
  tmp_path, monkeypatch, capsys, options, words
):
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
  found = lambda reader: [
    f[len(str(tmp_path)) + 1 :] for f in find_files([tmp_path], suffixes=reader.suffixes).files
  ]
  assert found(signals()) == ['a.csv']
  assert found(SignalReader('fnirs')) == ['a.csv', 'c.SNIRF']
  assert found(PictureReader()) == ['b.png']
  (tmp_path / 'empty').mkdir()
  [problem] = find_files([tmp_path / 'empty'], suffixes=signals().suffixes).problems
  assert 'holds no file that ends in .csv, .csv.gz, .npy, .npz, .parquet, .tsv, ' in problem


def tile(level, size=20, **words):
  return sheet.Tile(image=np.full((size, size, 3), level, np.uint8), title='a', **words)


def test_tiles_lie_in_rows():
  page = sheet.draw_sheet([tile(10 * k) for k in range(7)], heading='x', columns=3, side=40)
  assert page.dtype == np.uint8 and page.shape[1] == 420
  pitch = 40 + 2 * 15 + 10
  for k in range(7):
    top, left = 40 + k // 3 * pitch, 16 + k % 3 * 50
    assert (page[top + 1 : top + 39, left + 1 : left + 39] == 10 * k).all()
  assert page.shape[0] == 40 + 3 * pitch + 16


def test_captions_stay_below_their_image():
  plain = sheet.draw_sheet([tile(0), tile(0)], heading='x', side=100)
  page = sheet.draw_sheet(
    [tile(0, caption='ünïcode and far too long ' * 9), tile(0)], heading='x', side=100
  )
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
