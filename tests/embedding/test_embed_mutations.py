"""Clips, pictures and tables damaged at random: each is embedded or named, none ends the batch."""

import numpy as np
import pytest
from clips import grey_frame, write_clip
from command_line import run_command
from PIL import Image
from test_cli_embed import read

NUMBER = 200
BATCHES = {'rgb': 2, 'thermal': 1, 'depth': 1}


def sources(folder):
  """One good file of each kind."""
  folder.mkdir()
  grey = [grey_frame(k) for k in range(12)]
  rng = np.random.default_rng(1)
  rough = [
    np.asarray(Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8)).resize((64, 48)))
    for _ in range(12)
  ]
  for name, codec, kept_as, frames, options in (
    ('a.mp4', 'libx264', 'yuv420p', rough, {'g': '4'}),
    ('b.mp4', 'libx264', 'yuv420p', rough, {'x264-params': 'tff=1'}),
    ('c.avi', 'mjpeg', 'yuvj420p', grey, {}),
    ('d.avi', 'mpeg4', 'yuv420p', rough, {}),
    ('e.ts', 'mpeg2video', 'yuv420p', rough, {'flags': '+ilme+ildct'}),
    ('f.webm', 'libvpx', 'yuv420p', rough, {}),
    ('g.mkv', 'ffv1', 'yuv420p', grey, {}),
    ('h.mov', 'png', 'rgb24', rough, {}),
    ('i.flv', 'flv', 'yuv420p', rough, {}),
    ('j.mkv', 'libx265', 'yuv420p10le', rough, {'x265-params': 'log-level=none'}),
    ('k.wmv', 'wmv2', 'yuv420p', rough, {}),
  ):
    write_clip(folder / name, frames, codec=codec, kept_as=kept_as, options=options)
  levels = [(7000 + 9 * f[..., 0].astype(np.uint16)) for f in rough]
  write_clip(folder / 'l.mkv', levels, codec='ffv1', kept_as='gray16le', given_as='gray16le')
  first, *others = [Image.fromarray(f) for f in rough[:5]]
  for name in ('m.gif', 'n.webp', 'o.png', 'p.tif', 'q.avif'):
    first.save(folder / name, save_all=True, append_images=others)
  deep, *deeper = [Image.fromarray(page) for page in levels[:3]]
  deep.save(folder / 'r.tif', save_all=True, append_images=deeper)
  for name in ('s.jpg', 't.jp2', 'u.bmp', 'v.tga', 'w.png'):
    first.save(folder / name)
  return sorted(folder.iterdir())


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
  """Some bytes changed, blanked, moved, repeated or cut off; headers more than the rest."""
  data = bytearray(data)
  for _ in range(rng.integers(1, 5)):
    size = len(data)
    if size < 16:
      break
    reach = size if rng.random() < 0.5 else min(size, 512)
    place, length = int(rng.integers(reach)), int(rng.integers(1, 40))
    kind = rng.integers(6)
    if kind == 0:
      data[place] ^= 1 << int(rng.integers(8))
    elif kind == 1:
      data[place : place + length] = rng.bytes(len(data[place : place + length]))
    elif kind == 2:
      data[place : place + length] = bytes(len(data[place : place + length]))
    elif kind == 3:
      data[place : place + 4] = (0xFFFFFFFF if rng.random() < 0.5 else 0x7FFFFFFF).to_bytes(4)
    elif kind == 4:
      del data[max(place, size // 4) :]
    else:
      data[place:place] = data[place : place + length]
  return bytes(data)


@pytest.mark.slow
@pytest.mark.parametrize('seed', [0, 1])
def test_damage_of_any_kind_is_named(stored, tmp_path, seed):
  good, rng = sources(tmp_path / 'good'), np.random.default_rng(seed)
  modalities = [m for m, share in BATCHES.items() for _ in range(share)]
  for batch, modality in enumerate(modalities):
    folder = tmp_path / f'in{batch}'
    folder.mkdir()
    for number in range(NUMBER // len(modalities)):
      file = good[int(rng.integers(len(good)))]
      (folder / f'{number:03d}{file.suffix}').write_bytes(mutated(file.read_bytes(), rng))
    out = tmp_path / f'out{batch}.npz'
    done = run_command('embed', folder, '--weights', stored, '--out', out, '--modality', modality)
    assert done.returncode in (0, 2) and 'Traceback' not in done.stderr, done.stderr[-3000:]
    sources_found = set(map(str, read(out)['source']))
    for file in folder.iterdir():
      assert str(file) in sources_found or f'{file}' in done.stderr, file
    assert len(sources_found) > 10


def tables(folder):
  """One good table of each kind: six seconds of two columns at 100 Hz, with times."""
  folder.mkdir()
  rng = np.random.default_rng(2)
  rows = np.column_stack([np.arange(600) / 100, rng.standard_normal((600, 2))])
  for name, separator, comma in (('a.csv', ',', '.'), ('b.tsv', '\t', '.'), ('c.csv', ';', ',')):
    lines = [separator.join(('time', 'ecg', 'other'))]
    lines += [separator.join(f'{v:.4f}'.replace('.', comma) for v in row) for row in rows]
    (folder / name).write_text('\n'.join(lines) + '\n')
  (folder / 'd.csv').write_bytes((folder / 'a.csv').read_text().encode('utf-16'))
  np.savez(folder / 'f.npz', ecg=rows[:, 1], fs=100.0)
  return sorted(folder.iterdir())


@pytest.mark.slow
def test_damaged_tables_are_named(stored, tmp_path):
  good, rng = tables(tmp_path / 'good'), np.random.default_rng(0)
  folder = tmp_path / 'in'
  folder.mkdir()
  for number in range(100):
    file = good[int(rng.integers(len(good)))]
    (folder / f'{number:03d}{file.suffix}').write_bytes(mutated(file.read_bytes(), rng))
  out = tmp_path / 'out.npz'
  options = ('--modality', 'ecg', '--window', '3', '--representation', 'waveform')
  options += ('--column', 'ecg', '--weights', stored, '--out', out)
  done = run_command('embed', folder, *options)
  assert done.returncode in (0, 2) and 'Traceback' not in done.stderr, done.stderr[-3000:]
  found = set(map(str, read(out)['source']))
  for file in folder.iterdir():
    assert str(file) in found or f'{file}' in done.stderr, file
