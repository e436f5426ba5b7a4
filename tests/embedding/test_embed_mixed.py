"""One `embed` over two hundred files, good and bad: nothing is silent, nothing is lost."""

import os

import numpy as np
import pytest
from clips import write_clip
from command_line import run_command
from PIL import Image
from test_cli_embed import read

pytestmark = pytest.mark.slow

NUMBER = 200
# Kind of file -> frames of a good one; a page is a frame.
GOOD = {
  **dict.fromkeys(('.png', '.jpg', '.JPG', '.bmp', '.tga', '.jp2', '.jfif', '.avif', '.ppm'), 1),
  **dict.fromkeys(('.gif', '.tif', '.webp', '.apng'), 3),
  **dict.fromkeys(('.mp4', '.avi', '.mkv', '.webm', '.mov', '.ts', '.MP4'), 6),
}
CODECS = {'.avi': 'mjpeg', '.webm': 'libvpx', '.ts': 'mpeg2video', '.mov': 'png', '.mkv': 'ffv1'}
KEPT_AS = {'.avi': 'yuvj420p', '.mov': 'rgb24'}
# What no frame can come from, by its content.
BAD = {
  'empty.png': b'',
  'empty.mp4': b'',
  'text.jpg': b'this is no picture\n' * 9,
  'text.mp4': b'this is no clip\n' * 9,
  'zeros.mkv': bytes(5000),
  'page.gif': b'<html>404 not found</html>',
}
# What is skipped by its kind, without being opened.
OTHER = ('notes.txt', 'table.csv', 'paper.pdf', 'study.docx', 'no_suffix', 'archive.zip')
HIDDEN = ('._a.png', '.hidden.mp4')


def write_good(path, number):
  rng = np.random.default_rng(number)
  small = rng.integers(0, 256, (3, 4, 3), np.uint8)
  frames = [
    np.asarray(Image.fromarray(np.roll(small, k, 1)).resize((64, 48)))
    for k in range(GOOD[path.suffix])
  ]
  if len(frames) == 6:
    kind = path.suffix.lower()
    write_clip(
      path, frames, codec=CODECS.get(kind, 'libx264'), kept_as=KEPT_AS.get(kind, 'yuv420p')
    )
    return
  first, *others = map(Image.fromarray, frames)
  options = {'save_all': True, 'append_images': others} if others else {}
  if path.suffix == '.apng':
    options['format'] = 'PNG'
  first.save(path, **options)


@pytest.fixture(scope='module')
def embedded(stored, tmp_path_factory):
  """The folder, its good files, and what `embed` of it gave."""
  folder = tmp_path_factory.mktemp('mixed') / 'in'
  (folder / 'deeper' / 'still').mkdir(parents=True)
  places, kinds = [folder, folder / 'deeper', folder / 'deeper' / 'still'], list(GOOD)
  further = len(BAD) + len(OTHER) + len(HIDDEN) + 2
  good = []
  for number in range(NUMBER - further):
    name = ('{:03d}', 'M\xfc ller {:03d}', '2024-01-01T12:{:03d}', "it's %d {:03d}")[number % 4]
    path = places[number % 3] / (name.format(number) + kinds[number % len(kinds)])
    write_good(path, number)
    good.append(path)
  for name, content in BAD.items():
    (folder / name).write_bytes(content)
  # A clip and a picture that break off.
  for source, name in ((good[kinds.index('.mov')], 'half.mov'), (good[0], 'half.png')):
    content = source.read_bytes()
    (folder / name).write_bytes(content[: len(content) // 2])
  for name in (*OTHER, *HIDDEN):
    (folder / name).write_bytes(good[0].read_bytes())
  os.symlink(folder, folder / 'deeper' / 'round')
  out = folder.parent / 'out.npz'
  done = run_command('embed', folder, '--weights', stored, '--out', out)
  return folder, good, done, out


def test_every_file_is_embedded_or_named(embedded):
  folder, good, done, out = embedded
  assert sum(path.is_file() for path in folder.rglob('*')) == NUMBER
  assert done.returncode == 2 and 'Traceback' not in done.stderr
  sources, counts = np.unique(read(out)['source'], return_counts=True)
  rows = dict(zip(map(str, sources), counts.tolist(), strict=True))
  whole = {str(path): GOOD[path.suffix] for path in good}
  assert {path: rows.get(path) for path in whole} == whole
  # Of what breaks off, rows may come, but it is named.
  assert rows.keys() - whole.keys() <= {str(folder / 'half.mov'), str(folder / 'half.png')}
  for name in (*BAD, 'half.mov', 'half.png'):
    assert str(folder / name) in done.stderr, name
  assert f'{sum(rows.values())} embeddings from {len(rows)} of 192 files' in done.stdout
  (left_out,) = (line for line in done.stdout.splitlines() if 'hidden' in line)
  for kind in ('.txt', '.csv', '.pdf', '.docx', '.zip', '2 hidden'):
    assert kind in left_out


def test_each_file_is_embedded_as_it_is_alone(embedded, stored, tmp_path):
  """Neighbours in a batch, good or bad, change nothing."""
  _, good, _, out = embedded
  together = read(out)
  for path in good[:: len(good) // 8]:
    run_command('embed', path, '--weights', stored, '--out', tmp_path / 'one.npz')
    alone = read(tmp_path / 'one.npz')['embedding']
    rows = together['embedding'][together['source'] == str(path)]
    np.testing.assert_allclose(rows, alone, rtol=1e-5, atol=1e-6)
