"""`painformer embed` from outside, and its streaming."""

import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest
from command_line import assert_refused, run_command
from nano_weights import CONFIG
from PIL import Image
from repository import environment
from test_models import drawn
from test_video import write_video

import painformer_jax as pj
from painformer_jax.cli.main import main
from painformer_jax.core import progress
from painformer_jax.embedding.files import embed_files
from painformer_jax.embedding.find import find_files
from painformer_jax.embedding.pictures import PictureConfig, PictureReader
from painformer_jax.embedding.reader import LocatedImage
from painformer_jax.embedding.writer import EmbeddingWriter
from painformer_jax.models import functional
from painformer_jax.models.registry import make_config
from painformer_jax.weights import folder as weights


@pytest.fixture
def inputs(tmp_path):
  """Two photographs, one deeper, and a clip of 10 frames, in a folder."""
  folder = tmp_path / 'in'
  (folder / 'deep').mkdir(parents=True)
  for n, name in enumerate(['b.png', 'deep/a.JPG']):
    Image.fromarray(photograph(n)).save(folder / name, format='PNG')
  write_video(folder / 'clip.mp4', 10)
  (folder / 'notes.txt').write_text('neither image nor video')
  return folder


def photograph(seed):
  return np.random.default_rng(seed).integers(0, 256, (40, 48, 3), np.uint8)


def spoil(folder):
  """Puts a file of each damaged kind into a folder; their names."""
  (folder / 'text.jpg').write_text('no image')
  Image.fromarray(photograph(9)).save(folder / 'cut.jpg')
  cut = folder / 'cut.jpg'
  cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
  clip = write_video(folder / 'short.mp4', 30)
  clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
  write_video(folder / 'none.mp4', 0)
  return ['cut.jpg', 'none.mp4', 'short.mp4', 'text.jpg']


def read(path):
  with np.load(path, allow_pickle=False) as file:
    return dict(file)


def names(folder: pathlib.Path) -> list[str]:
  return sorted(p.name for p in folder.iterdir())


# --- the command -------------------------------------------------------------


def test_images_folders_and_videos(painformer, stored, inputs, model):
  out = inputs.parent / 'out.npz'
  done = painformer('embed', inputs, '--weights', stored, '--out', out, '--batch-size', 4)
  assert done.returncode == 0, done.stderr
  remark = 'left out of the folders: 1 .txt'
  assert done.stdout == f'{out}: 12 embeddings from 3 files; {remark}\n'
  arrays = read(out)
  assert arrays['embedding'].shape == (12, 32) and arrays['embedding'].dtype == np.float32
  clip = str(inputs / 'clip.mp4')
  assert list(arrays['source']) == [str(inputs / 'b.png')] + [clip] * 10 + [
    str(inputs / 'deep/a.JPG')
  ]
  assert arrays['frame'].dtype == np.int64
  assert list(arrays['frame']) == [-1, *range(10), -1]
  assert np.isnan(arrays['time'][[0, -1]]).all() and arrays['time'].dtype == np.float64
  np.testing.assert_allclose(arrays['time'][1:-1], np.arange(10) / 25, atol=1e-3)
  assert str(arrays['weights']) == f'painformer_nano nano.pth {"ab" * 32}'
  np.testing.assert_allclose(
    arrays['embedding'][[0, -1]],
    pj.embed(
      model,
      np.stack(
        [
          np.asarray(Image.fromarray(photograph(n)).resize((32, 32), Image.BILINEAR))
          for n in (0, 1)
        ]
      ),
    ),
    atol=1e-5,
  )
  assert names(inputs.parent) == ['in', 'out.npz']


def test_bad_inputs_are_named_and_the_rest_is_written(stored, inputs):
  bad = spoil(inputs)
  out = inputs.parent / 'out.npz'
  done = run_command('embed', inputs, inputs / 'gone.png', '--weights', stored, '--out', out)
  assert done.returncode == 2
  lines = [line for line in done.stderr.splitlines() if 'images/s' not in line]
  for name in [*bad, 'gone.png']:
    assert len([line for line in lines if str(inputs / name) in line]) == 1, name
  assert lines[-1].startswith('painformer: 5 inputs could not be read whole')
  assert lines[0] == f'reads {stored}'
  assert [line for line in lines if 'images to embed' in line]
  assert len(lines) == 8, 'nobody else speaks'
  assert len(read(out)['embedding']) == 12


def test_nothing_readable_writes_nothing(stored, tmp_path):
  folder = tmp_path / 'in'
  folder.mkdir()
  spoil(folder)
  done = run_command('embed', folder, '--weights', stored, '--out', tmp_path / 'out.npz')
  assert_refused(done, 'nothing to embed')
  assert names(tmp_path) == ['in']


@pytest.mark.parametrize(
  'options, name',
  [
    (['--batch-size', '0'], '--batch-size'),
    (['--every', '0'], '--every'),
    (['--weights', 'absent.pth'], 'absent.pth'),
    (['--out', 'absent/out.npz'], 'absent'),
    (['--out', f'{"o" * 300}.npz'], 'File name too long'),
    (['--out', ''], '--out'),
    (['--weights='], '--weights'),
  ],
)
def test_bad_usage_is_one_line(stored, inputs, options, name):
  done = run_command(
    'embed', inputs, '--weights', stored, '--out', 'out.npz', *options, cwd=inputs.parent
  )
  assert_refused(done, name, alone=True)
  assert names(inputs.parent) == ['in']


def test_a_full_disk_is_one_line_and_leaves_nothing(painformer, stored, inputs):
  out = inputs.parent / 'out.npz'
  done = painformer('embed', inputs, '--weights', stored, '--out', out, file_limit=1_000)
  assert_refused(done, out, 'File too large')
  assert names(inputs.parent) == ['in']


def test_an_empty_input_is_not_this_folder(inputs, monkeypatch, capsys):
  monkeypatch.chdir(inputs)
  assert main(['embed', 'b.png', '', '--weights', 'w', '--out', 'out.npz']) == 2
  assert capsys.readouterr().err.startswith('painformer: the argument after b.png is empty; ')
  assert main(['convert', '', 'out']) == 2
  assert capsys.readouterr().err.startswith('painformer: the argument after convert is empty; ')


def test_pillow_does_not_warn_of_large_images(painformer, stored, tmp_path):
  """Of 90 megapixels, above its limit; one bit each."""
  Image.new('1', (9_500, 9_500)).save(tmp_path / 'a.png')
  done = painformer('embed', tmp_path / 'a.png', '--weights', stored, '--out', tmp_path / 'o.npz')
  assert done.returncode == 0, done.stderr
  assert done.stderr.splitlines() == [
    f'reads {stored}',
    '1 images to embed; compiles the model first',
  ]


@pytest.mark.parametrize(
  'number, status, word', [(signal.SIGINT, 130, 'interrupted'), (signal.SIGTERM, 143, 'stopped')]
)
def test_an_interrupt_leaves_nothing(stored, tmp_path, number, status, word):
  write_video(tmp_path / 'long.mp4', 6_000, size=(320, 240))
  earlier = EmbeddingWriter(tmp_path / 'out.npz', {})
  image = LocatedImage(image=np.zeros((2, 2, 3), np.uint8), source='a', location={})
  earlier.add(np.zeros((1, 3), np.float32), [image])
  earlier.write()
  older = (tmp_path / 'out.npz').read_bytes()
  # Where tests run in the background, the signal is ignored unless asked for.
  code = (
    'import signal, sys; from painformer_jax.cli.main import main; '
    'signal.signal(signal.SIGINT, signal.default_int_handler); sys.exit(main())'
  )
  process = subprocess.Popen(
    [
      sys.executable,
      '-c',
      code,
      'embed',
      'long.mp4',
      '--weights',
      stored,
      '--out',
      'out.npz',
      '--batch-size',
      '1',
    ],
    cwd=tmp_path,
    text=True,
    env=environment(JAX_PLATFORMS='cpu'),
    stderr=subprocess.PIPE,
  )
  try:
    # Lines about progress begin when the first images are embedded.
    assert any('images/s' in line for line in process.stderr), 'ended before the signal'
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
  finally:
    process.kill()
    process.wait()
  assert process.returncode == status
  assert error.splitlines()[-1] == f'painformer: {word}'
  assert names(tmp_path) == ['long.mp4', 'out.npz']
  assert (tmp_path / 'out.npz').read_bytes() == older


# --- the function ------------------------------------------------------------


def test_every_nth_frame_in_batches_of_any_size(model, inputs, tmp_path):
  results = []
  for n, size in enumerate([1, 4]):
    out = tmp_path / f'{n}.npz'
    summary = embed_files(
      model,
      [inputs / 'clip.mp4'],
      out,
      batch_size=size,
      reader=PictureReader(config=PictureConfig(every=4)),
    )
    assert (summary.rows, summary.files, summary.problems) == (3, 1, ())
    results.append(read(out))
  for arrays in results:
    assert list(arrays['frame']) == [0, 4, 8]
    np.testing.assert_allclose(arrays['time'], [0, 0.16, 0.32], atol=1e-3)
    np.testing.assert_allclose(arrays['embedding'], results[0]['embedding'], atol=1e-5)


def test_a_video_that_ends_early_keeps_its_frames(model, tmp_path):
  clip = write_video(tmp_path / 'a.avi', 40, codec='MJPG')
  clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
  said = []
  summary = embed_files(model, [clip], tmp_path / 'out.npz', batch_size=4, log=said.append)
  problems = [line for line in said[1:] if 'images/s' not in line]  # On a slow machine.
  assert 5 < summary.rows < 35 and summary.problems == tuple(problems)
  assert re.search(r'a.avi is damaged: it ends after \d+ of 40', problems[0])


def test_files_are_found_in_a_stable_order(inputs):
  found = find_files([inputs / 'notes.txt', inputs, inputs / 'absent'])
  assert [str(pathlib.Path(f).relative_to(inputs)) for f in found.files] == [
    'notes.txt',
    'b.png',
    'clip.mp4',
    'deep/a.JPG',
  ]
  assert len(found.problems) == 1 and 'absent does not exist' in found.problems[0]
  assert found.left_out == {'.txt': 1}


def test_entries_that_cannot_be_read_are_named(inputs):
  """Neither passed over nor taken for a defect; a pipe would never answer."""
  (inputs / 'gone.jpg').symlink_to('nowhere')
  (inputs / 'loop.png').symlink_to('loop.png')
  os.mkfifo(inputs / 'pipe.bmp')
  found = find_files([inputs, 'n' * 300, inputs / 'b.png' / 'deeper', ''])
  assert [pathlib.Path(f).name for f in found.files] == ['b.png', 'clip.mp4', 'a.JPG']
  assert found.problems == [
    f'{inputs}/gone.jpg is a link to what does not exist',
    f'{inputs}/loop.png cannot be read: Too many levels of symbolic links',
    f'{inputs}/pipe.bmp is no regular file',
    f'{"n" * 300} cannot be read: File name too long',
    f'{inputs}/b.png/deeper does not exist',
    ' does not exist',
  ]


def test_folders_without_permission_are_named(inputs, monkeypatch):
  (inputs / 'deep').chmod(0)
  inputs.parent.chmod(0o755)
  monkeypatch.chdir(inputs.parent)  # Its own parents are closed to others.
  user = os.geteuid()
  if not user:
    os.seteuid(65534)
  try:
    found = find_files(['in', 'in/deep/a.JPG', 'in/deep'])
  finally:
    os.seteuid(user)
    (inputs / 'deep').chmod(0o755)
  assert found.files == ['in/b.png', 'in/clip.mp4']
  assert found.problems == [
    f'in/deep{name} cannot be read: Permission denied' for name in ('', '/a.JPG', '')
  ]


def test_embeddings_that_are_not_finite_are_counted(stored, inputs):
  """And the arrays that hold NaN are named."""
  arrays = weights.load_weights(stored).variables
  spoilt = {'norm1/bias', 'patch_embed1/bn1/mean'} & arrays.keys()
  weights.save_weights(
    inputs.parent / 'nan',
    arrays | {p: np.nan * arrays[p] for p in spoilt},
    config=CONFIG,
    source=weights.WeightsSource(name='nan.pth'),
  )
  out = inputs.parent / 'out.npz'
  done = run_command('embed', inputs, '--weights', inputs.parent / 'nan', '--out', out)
  lines = done.stderr.splitlines()
  assert [line for line in lines if line.startswith('WARNING')] == [lines[1]]
  assert 'nan: holds NaN or infinity in ' in lines[1] and 'norm1.bias' in lines[1]
  assert_refused(done, '12 of 12 embeddings', out, 'NaN')
  assert np.isnan(read(out)['embedding']).all()


def test_an_unknown_suffix_is_told_by_content(model, inputs, tmp_path):
  (inputs / 'clip.mp4').rename(inputs / 'clip')
  (inputs / 'b.png').rename(inputs / 'picture')
  summary = embed_files(
    model, [inputs / 'clip', inputs / 'picture'], tmp_path / 'out.npz', batch_size=4
  )
  assert summary.rows == 11
  assert list(read(tmp_path / 'out.npz')['frame']) == [*range(10), -1]


def test_progress_has_a_rate_and_an_estimate(model, inputs, tmp_path, monkeypatch):
  monkeypatch.setattr('painformer_jax.core.progress.SECONDS_BETWEEN_LINES', 0.0)
  said = []
  embed_files(model, [inputs], tmp_path / 'out.npz', batch_size=4, log=said.append)
  assert said[0] == '12 images to embed; compiles the model first'
  assert len(said) == 3  # The first batch compiles.
  for line, rows in zip(said[1:], (8, 12)):
    assert re.fullmatch(rf'{rows} of 12 images  [\d.,]+ images/s  eta .+', line)


@pytest.mark.parametrize(
  'culprit', ['embedding.inference.Embedder.__call__', 'embedding.pictures.resize_to_square']
)
def test_a_defect_is_not_taken_for_bad_input(model, inputs, tmp_path, monkeypatch, culprit):
  # The second one runs in the decoding thread.
  def fail(*_, **__):
    raise RuntimeError('out of memory')

  monkeypatch.setattr(f'painformer_jax.{culprit}', fail)
  with pytest.raises(RuntimeError, match='out of memory'):
    embed_files(model, [inputs / 'clip.mp4'], tmp_path / 'out.npz', batch_size=1)
  assert names(tmp_path) == ['in']


def test_weights_of_another_input_size(stored, inputs, tmp_path):
  model = pj.load(stored, image_size=48)
  summary = embed_files(model, [inputs / 'b.png'], tmp_path / 'out.npz', batch_size=1)
  image = np.asarray(Image.fromarray(photograph(0)).resize((48, 48), Image.BILINEAR))
  assert summary.rows == 1
  np.testing.assert_allclose(
    read(tmp_path / 'out.npz')['embedding'], pj.embed(model, image[None]), atol=1e-5
  )


# --- memory ------------------------------------------------------------------


def resident() -> float:
  """MiB in memory now."""
  pages = int(pathlib.Path('/proc/self/statm').read_text().split()[1])
  return pages * os.sysconf('SC_PAGE_SIZE') / 2**20


def largest_while_embedding(short, long, out):
  """Rows, and the largest memory seen after a batch, for each clip."""
  config = make_config('painformer_nano', image_size=64)
  model = functional.from_variables(config, drawn(config))
  progress.SECONDS_BETWEEN_LINES = 0.0  # says something after each batch
  found = {}
  for name, path in ('warm-up', short), ('short', short), ('long', long):
    seen = []
    rows = embed_files(model, [path], out, log=lambda _: seen.append(resident())).rows
    found[name] = {'rows': rows, 'memory': max(seen)}
  return found


@pytest.mark.skipif(sys.platform != 'linux', reason='reads /proc')
@pytest.mark.slow
def test_memory_does_not_grow_with_a_video_s_length(tmp_path, on_devices, measured):
  short = write_video(tmp_path / 'short.mp4', 150, size=(320, 240))
  long = write_video(tmp_path / 'long.mp4', 3_000, size=(320, 240))
  found = on_devices(
    1,
    largest_while_embedding,
    fresh=True,
    short=str(short),
    long=str(long),
    out=str(tmp_path / 'out.npz'),
  )
  assert (found['short']['rows'], found['long']['rows']) == (150, 3_000)
  # The frames are 660 MiB; keeping them resized costs 49. Allocators vary by 12.
  measured(
    'memory for 3000 frames of video over that for 150, MiB',
    found['long']['memory'] - found['short']['memory'],
    limit=24,
  )


def test_no_file_that_is_read_or_not_ours_is_overwritten(stored, inputs):
  picture, folder = inputs / 'b.png', inputs.parent
  weights_file = folder / 'own.safetensors'
  weights_file.write_bytes(b'not ours')
  before = {path: path.read_bytes() for path in inputs.rglob('*') if path.is_file()}

  def refused(*options, names):
    done = run_command('embed', inputs, '--weights', stored, *options, cwd=folder)
    assert_refused(done, *names, alone=True)

  refused('--out', picture, names=[picture, '.npz'])
  refused('--out', 'table.csv', names=['table.csv', '.npz'])
  refused('--out', 'out.npz', '--sheet', picture, names=[picture, 'exists'])
  (folder / 'out.npz').write_bytes(b'PK something of the user')
  refused('--out', 'out.npz', names=['out.npz', 'exists'])
  assert before == {path: path.read_bytes() for path in inputs.rglob('*') if path.is_file()}
  assert (folder / 'out.npz').read_bytes() == b'PK something of the user'


def test_an_own_result_is_replaced_but_not_where_it_is_read(stored, inputs):
  folder = inputs.parent
  options = ('--weights', stored, '--out', 'out.npz', '--sheet', 'sheet.png')
  for _ in range(2):
    done = run_command('embed', inputs / 'b.png', *options, cwd=folder)
    assert done.returncode == 0, done.stderr
  sheet = (folder / 'sheet.png').read_bytes()
  done = run_command('embed', inputs / 'b.png', 'sheet.png', *options, cwd=folder)
  assert_refused(done, 'sheet.png', 'is read', alone=True)
  assert (folder / 'sheet.png').read_bytes() == sheet
