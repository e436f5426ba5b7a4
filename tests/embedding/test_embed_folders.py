"""Folders of all that Pillow and PyAV read: formats, pages, links, what is left out."""

import importlib.util
import os

import numpy as np
import pytest
from clips import grey_frame, write_clip
from command_line import run_command
from PIL import Image
from test_cli_embed import read

from painformer_jax.core.errors import InputError
from painformer_jax.core.pictures import resize_to_square
from painformer_jax.embedding.find import find_files
from painformer_jax.embedding.pictures import PictureConfig, PictureReader
from painformer_jax.modalities import images, maps

needs_heic = pytest.mark.skipif(
  importlib.util.find_spec('pillow_heif') is None, reason='pillow-heif is not installed'
)


def photo(seed=0, height=24, width=32):
  rng = np.random.default_rng(seed)
  coarse = rng.integers(0, 256, (4, 4, 3), np.uint8)
  return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def rows_of(reader, path):
  said = []
  return list(reader.images(str(path), image_size=16, log=said.append)), said


def test_a_folder_of_everything(stored, tmp_path):
  folder, away = tmp_path / 'in', tmp_path / 'away'
  folder.mkdir()
  away.mkdir()
  for name in ('a.avif', 'b.jfif', 'c.JPE', 'd.jp2', 'e.tga', '._f.png', '../away/g.png'):
    photo().save(folder / name, format='JPEG' if name in ('b.jfif', 'c.JPE') else None)
  (folder / 'linked').symlink_to('../away')
  (away / 'back').symlink_to('../in')
  clip = [grey_frame(k) for k in range(3)]
  noise = np.random.default_rng(0).integers(0, 256, (3, 48, 64, 3), np.uint8)  # Of some size.
  write_clip(folder / 'h.mts', list(noise), codec='mpeg2video', format='mpegts')
  write_clip(folder / 'i.3gp', clip)
  write_clip(folder / 'j.flv', clip, codec='flv')
  write_clip(folder / 'k.ogv', clip, codec='libvpx', format='ogg')
  write_clip(folder / os.fsdecode(b'l\374.webm'), clip, codec='libvpx')
  for name in ('notes.txt', 'more.txt', 'x.json', 'Makefile'):
    (folder / name).touch()
  out = tmp_path / 'out.npz'
  done = run_command('embed', folder, '--weights', stored, '--out', out, '--batch-size', 4)
  assert done.returncode == 0, done.stderr
  arrays = read(out)
  names = [os.fsencode(str(s))[len(str(folder)) + 1 :] for s in arrays['source']]
  stills = [b'a.avif', b'b.jfif', b'c.JPE', b'd.jp2', b'e.tga', b'linked/g.png']
  videos = [b'h.mts', b'i.3gp', b'j.flv', b'k.ogv', b'l\374.webm']
  assert sorted(names) == sorted(stills + 3 * videos)
  assert [list(arrays['frame'][np.array(names) == v]) for v in videos] == [[0, 1, 2]] * 5
  assert np.isfinite(arrays['embedding']).all()
  assert 'left out of the folders: 1 .json, 2 .txt, 1 hidden, 1 without a suffix' in done.stdout


@needs_heic
def test_heic_needs_an_extra(tmp_path, monkeypatch):
  import pillow_heif

  pillow_heif.register_heif_opener()
  photo(height=64, width=64).save(tmp_path / 'a.heic')
  (tmp_path / 'a.heic').rename(tmp_path / 'b.jpg')  # As phones send it.
  photo(height=64, width=64).save(tmp_path / 'a.HEIC', format='HEIF')
  found = find_files([tmp_path])
  assert len(found.files) == 2 and not found.problems
  for file in found.files:
    [row], _ = rows_of(PictureReader(), file)
    wanted = np.asarray(photo(height=64, width=64).resize((16, 16), Image.Resampling.BILINEAR))
    assert np.abs(row.image.astype(int) - wanted).mean() < 12
  monkeypatch.setattr(images, 'suffixes_without_package', lambda: images.HEIC_SUFFIXES)
  found = find_files([tmp_path])
  assert [os.path.basename(f) for f in found.files] == ['b.jpg']
  assert len(found.problems) == 1 and "pip install '.[heic]'" in found.problems[0]


# --- pages ---------------------------------------------------------------------


@pytest.mark.parametrize('name, timed', [
  ('a.tif', False), ('a.gif', True), ('a.webp', True), ('a.png', True), ('a.avif', True),
])  # fmt: skip
def test_every_page_is_a_frame(tmp_path, name, timed):
  pages = [photo(k) for k in range(5)]
  options = {'duration': [100, 200, 300, 400, 500]} if timed else {}
  if name == 'a.webp':
    options['lossless'] = True
  pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:], **options)
  rows, said = rows_of(PictureReader(), tmp_path / name)
  assert [row.location['frame'] for row in rows] == [0, 1, 2, 3, 4] and said == []
  times = [row.location['time'] for row in rows]
  if timed:
    np.testing.assert_allclose(times, [0, 0.1, 0.3, 0.6, 1.0], atol=2e-3)
  else:
    assert np.isnan(times).all()
  for row, page in zip(rows, pages):
    wanted = resize_to_square(page, 16)
    assert np.abs(row.image.astype(int) - wanted).mean() < 8
  reader = PictureReader(config=PictureConfig(every=2))
  assert [r.location['frame'] for r in rows_of(reader, tmp_path / name)[0]] == [0, 2, 4]
  assert reader.total([str(tmp_path / name)]) == (1 if name == 'a.png' else 3)


def test_previews_are_no_pages(tmp_path):
  photo(0, 64, 64).save(
    tmp_path / 'a.mpo', save_all=True, append_images=[photo(1, 64, 64)], format='MPO'
  )
  (tmp_path / 'a.mpo').rename(tmp_path / 'a.jpg')
  [row], _ = rows_of(PictureReader(), tmp_path / 'a.jpg')
  assert row.location['frame'] == -1
  from PIL import TiffImagePlugin

  reduced = TiffImagePlugin.ImageFileDirectory_v2()
  reduced[254] = 1
  small = photo(1, 8, 8)
  small.encoderinfo = {'tiffinfo': reduced}
  photo(0).save(tmp_path / 'b.tif', save_all=True, append_images=[small])
  with Image.open(tmp_path / 'b.tif') as stored:
    assert stored.n_frames == 2
  rows, _ = rows_of(PictureReader(), tmp_path / 'b.tif')
  assert [row.location['frame'] for row in rows] == [-1]


def test_a_damaged_stack_gives_the_pages_it_can(tmp_path):
  path = tmp_path / 'a.tif'
  pages = [photo(k, 40, 40) for k in range(4)]
  pages[0].save(path, save_all=True, append_images=pages[1:], compression='tiff_deflate')
  data = bytearray(path.read_bytes())
  with Image.open(path) as image:
    image.seek(2)
    place = image.tag_v2[273][0]
  data[place : place + 40] = bytes(40)
  path.write_bytes(data)
  rows = []
  with pytest.raises(Exception, match='1 of its 4 pages') as caught:
    for row in PictureReader().images(str(path), image_size=16, log=print):
      rows.append(row.location['frame'])
  assert rows == [0, 1, 3] and str(path) in str(caught.value)


def test_stacks_of_16_bits_keep_their_levels(tmp_path):
  ramp = (7000 + np.arange(24 * 32).reshape(24, 32) * 20).astype(np.uint16)
  stack = [ramp, ramp[::-1].copy(), ramp[:, ::-1].copy()]
  first, *others = [Image.fromarray(page) for page in stack]
  first.save(tmp_path / 'a.tif', save_all=True, append_images=others)
  rows, said = rows_of(PictureReader('thermal'), tmp_path / 'a.tif')
  assert len(rows) == 3 and said == []
  for row, page in zip(rows, stack):
    wanted = resize_to_square(maps.colour_map(page, modality='thermal'), 16)
    np.testing.assert_array_equal(row.image, wanted)


# --- thermal and depth clips -----------------------------------------------------


def scene(number, *, height=48, width=64):
  """uint8 [height, width]: a warm spot that moves over a ramp."""
  rows, columns = np.mgrid[:height, :width]
  spot = 150 * np.exp(-((rows - 24) ** 2 + (columns - 10 - 4 * number) ** 2) / 60)
  return (columns + spot + 10).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize('modality', ['thermal', 'depth'])
@pytest.mark.parametrize('name, codec, kept_as, colorspace', [
  ('a.avi', 'mjpeg', 'yuvj420p', None),
  ('a.mp4', 'libx264', 'yuv420p', 1),  # BT.709
  ('a.avi', 'mpeg4', 'yuv420p', None),
])  # fmt: skip
def test_a_grey_clip_is_grey_in_every_frame(tmp_path, modality, name, codec, kept_as, colorspace):
  frames = [np.dstack([scene(k)] * 3) for k in range(8)]
  for k, frame in enumerate(frames):  # Channels two or three levels apart, as encoders leave it.
    frame[..., 2] = np.minimum(frame[..., 2], 252) + k % 3
  path = write_clip(
    tmp_path / name, frames, codec=codec, kept_as=kept_as, colorspace=colorspace,
    options={'b': '2M'},
  )  # fmt: skip
  reader = PictureReader(modality)
  rows, said = rows_of(reader, path)
  assert len(rows) == 8 and said == [] and reader.remarks() == ''
  for row, frame in zip(rows, frames):
    wanted = resize_to_square(maps.colour_map(frame[..., 0], modality=modality), 16)
    assert np.abs(row.image.astype(int) - wanted).mean() < 12


def test_16_bit_clips_keep_their_levels(tmp_path):
  levels = [28000 + 4 * scene(k).astype(np.uint16) for k in range(3)]
  path = write_clip(
    tmp_path / 'a.mkv', levels, codec='ffv1', kept_as='gray16le', given_as='gray16le'
  )
  rows, _ = rows_of(PictureReader('thermal'), path)
  for row, values in zip(rows, levels, strict=True):
    wanted = resize_to_square(maps.colour_map(values, modality='thermal'), 16)
    np.testing.assert_array_equal(row.image, wanted)


def test_a_clip_in_colour_is_told(tmp_path):
  still = np.asarray(photo(3, 48, 64).convert('RGB'))
  muted = (still // 3 + 80).astype(np.uint8)
  path = write_clip(tmp_path / 'a.mp4', [muted] * 4, kept_as='yuv444p')
  reader = PictureReader('thermal')
  rows, said = rows_of(reader, path)
  assert len(rows) == 4
  assert len(said) == 1 and 'a.mp4 is in colour' in said[0]
  assert reader.remarks().startswith('files in colour') and reader.remarks().endswith(': 1')
  warm = [maps.colour_map(scene(k), modality='thermal') for k in range(4)]
  path = write_clip(tmp_path / 'b.mp4', warm, kept_as='yuv444p', options={'crf': '5'})
  reader = PictureReader('thermal')
  rows, said = rows_of(reader, path)
  assert len(rows) == 4 and said == [] and reader.remarks() == ''
  assert np.abs(rows[0].image.astype(int) - resize_to_square(warm[0], 16)).mean() < 6


def test_frames_without_a_measurement_are_left_out(tmp_path):
  depth = [scene(k) for k in range(4)]
  depth[2] = np.zeros_like(depth[2])
  path = write_clip(tmp_path / 'a.mkv', depth, codec='ffv1', kept_as='gray', given_as='gray')
  rows, said = rows_of(reader := PictureReader('depth'), path)
  assert [r.location['frame'] for r in rows] == [0, 1, 3]
  assert 'no measurement' in said[0] and said[0].endswith(': 1')
  assert reader.remarks() == 'frames without a measurement left out: 1'


def test_a_16_bit_clip_of_narrow_range_is_told_where_8_bits_are_taken(tmp_path):
  levels = [28000 + 4 * scene(k).astype(np.uint16) for k in range(3)]
  narrow = write_clip(
    tmp_path / 'a.mkv', levels, codec='ffv1', kept_as='gray16le', given_as='gray16le'
  )
  rows, said = rows_of(reader := PictureReader(), narrow)
  assert len(rows) == 3 and 'a.mkv: frames of more than 8 bits' in said[0] and ': 3;' in said[0]
  assert reader.remarks().endswith('in 8: 3')
  wide = [257 * scene(k).astype(np.uint16) for k in range(3)]
  path = write_clip(tmp_path / 'b.mkv', wide, codec='ffv1', kept_as='gray16le', given_as='gray16le')
  assert rows_of(PictureReader(), path)[1] == []
  black = [np.zeros((48, 64, 3), np.uint8)] * 2  # Of 8 bits: nothing is lost.
  assert rows_of(PictureReader(), write_clip(tmp_path / 'c.mp4', black))[1] == []
  Image.fromarray(levels[0]).save(tmp_path / 'd.png')
  assert '8 bits' in rows_of(PictureReader(), tmp_path / 'd.png')[1][0]
  assert rows_of(PictureReader('thermal'), narrow)[1] == []


# --- suffixes --------------------------------------------------------------------


def test_a_file_is_what_its_content_is(tmp_path):
  frames = [np.dstack([scene(k)] * 3) for k in range(3)]
  first, *others = map(Image.fromarray, frames)
  first.save(tmp_path / 'anim.mp4', format='GIF', save_all=True, append_images=others)
  first.save(tmp_path / 'wrong.mp4', format='PNG')
  clip = write_clip(tmp_path / 'a.mp4', frames)
  (tmp_path / 'wrong.jpg').write_bytes(clip.read_bytes())
  raw = write_clip(tmp_path / 'a.mjpeg', frames, codec='mjpeg', kept_as='yuvj420p', format='mjpeg')
  plain = write_clip(tmp_path / 'a.m2v', frames, codec='mpeg2video', format='mpeg2video')
  (tmp_path / 'no_suffix').write_bytes(plain.read_bytes())
  for name, count in (
    ('anim.mp4', 3), ('wrong.mp4', 1), ('wrong.jpg', 3), (raw, 3), (plain, 3), ('no_suffix', 3),
  ):  # fmt: skip
    rows, said = rows_of(reader := PictureReader(), tmp_path / name)
    assert (len(rows), said) == (count, []), name
    assert reader.total([str(tmp_path / name)]) <= count
  (tmp_path / 'text.jpg').write_text('no picture\n' * 9)
  with pytest.raises(InputError, match='text.jpg is not a readable image'):
    rows_of(PictureReader(), tmp_path / 'text.jpg')
