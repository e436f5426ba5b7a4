"""Videos frame by frame and still images, whole and damaged."""

import itertools
import math
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from image_files import read_image
from PIL import Image
from repository import environment

from painformer_jax.core.errors import InputError
from painformer_jax.modalities import images, video


def write_video(path, frames, *, size=(64, 48), rate=25.0, codec='mp4v'):
  """Frame k is grey at level 4 * k + 20, with a white bar at the left."""
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), rate, size)
  for k in range(frames):
    frame = np.full((size[1], size[0], 3), (4 * k + 20) % 200, np.uint8)
    frame[:, :8] = 255
    writer.write(frame)
  writer.release()
  return path


def retime(path, times, *, seconds=None):
  """Gives each frame of a Matroska file (.mkv, .webm) its own time, in place.

  Its length is then as stated, or, without `seconds`, not stated: a browser that records
  cannot know it beforehand. The frame rate is not stated either.
  """
  data, number = bytearray(path.read_bytes()), 0

  def elements(start, stop):
    """Identifiers, and where each element and its contents begin and end."""
    while start < stop:
      size = start + 9 - data[start].bit_length()
      body = size + 9 - data[size].bit_length()
      length = int.from_bytes(data[size:body], 'big') & ~(1 << 7 * (body - size))
      yield data[start:size].hex(), start, body, body + length
      start = body + length

  def blank(start, stop):
    data[start:stop] = b'\xec' + bytes([0x80 | stop - start - 2]) + bytes(stop - start - 2)

  def walk(start, stop):
    nonlocal number
    for name, begin, body, end in elements(start, stop):
      if name in ('18538067', '1549a966', '1654ae6b', 'ae', '1f43b675'):  # Those around others.
        walk(body, end)
      elif name == '4489' and seconds is not None:
        data[body:end] = struct.pack('>d', 1000 * seconds)
      elif name in ('4489', '23e383'):  # Length; nanoseconds a frame.
        blank(begin, end)
      elif name == 'e7':  # Of the cluster: times of its frames are relative.
        data[body:end] = bytes(end - body)
      elif name == 'a3':
        data[body + 1 : body + 3] = round(1000 * times[number]).to_bytes(2, 'big')
        number += 1

  walk(0, len(data))
  assert number == len(times)
  path.write_bytes(data)
  return path


# --- videos ------------------------------------------------------------------


@pytest.mark.parametrize('name, codec', [('a.mp4', 'mp4v'), ('a.avi', 'MJPG')])
def test_every_frame_with_its_number_and_time(tmp_path, name, codec):
  path = write_video(tmp_path / name, 20, codec=codec)
  frames = list(video.frames(path))
  assert [f.number for f in frames] == list(range(20))
  np.testing.assert_allclose([f.time for f in frames], np.arange(20) / 25, atol=1e-3)
  for frame in frames:
    assert frame.image.shape == (48, 64, 3) and frame.image.dtype == np.uint8
    assert abs(frame.image[:, 20:].mean() - (4 * frame.number + 20)) < 4
    assert frame.image[:, :6].mean() > 240
  assert video.count_frames(path) == 20


@pytest.mark.parametrize('every', [1, 3, 7, 19, 20, 100])
def test_every_nth_frame_is_that_frame(tmp_path, every):
  path = write_video(tmp_path / 'a.mp4', 20)
  whole = list(video.frames(path))
  some = list(video.frames(path, every=every))
  assert [f.number for f in some] == list(range(0, 20, every))
  for frame in some:
    np.testing.assert_array_equal(frame.image, whole[frame.number].image)
    assert frame.time == pytest.approx(whole[frame.number].time)


def test_colours_are_rgb(tmp_path):
  path = str(tmp_path / 'a.avi')
  writer = cv2.VideoWriter(path, cv2.VideoWriter_fourcc(*'MJPG'), 25, (64, 48))
  blue = np.array([200, 20, 20], np.uint8)  # OpenCV's order: BGR
  writer.write(np.broadcast_to(blue, (48, 64, 3)))
  writer.release()
  red, _, blue = next(video.frames(path)).image.mean((0, 1))
  assert blue > 150 > 80 > red


def test_frames_are_decoded_when_asked_for(tmp_path):
  path = write_video(tmp_path / 'a.mp4', 20)
  first = list(itertools.islice(video.frames(path), 2))
  assert [f.number for f in first] == [0, 1]


def damaged(tmp_path, kind):
  path = tmp_path / f'{kind}.mp4'
  if kind == 'text':
    path.write_text('not a video\n' * 50)
  elif kind == 'empty':
    path.touch()
  elif kind == 'no frames':
    write_video(path, 0)
  elif kind == 'truncated':
    write_video(path, 40)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  elif kind == 'folder':
    path.mkdir()
  return path


@pytest.mark.parametrize('kind', ['text', 'empty', 'no frames', 'truncated', 'folder', 'absent'])
def test_unreadable_videos_are_named(tmp_path, kind):
  path = damaged(tmp_path, kind)
  with pytest.raises(InputError, match=str(path)) as caught:
    list(video.frames(path))
  assert '\n' not in str(caught.value)
  assert video.count_frames(path) == 0


def test_a_video_that_ends_early_gives_its_frames_then_its_fault(tmp_path):
  # An .avi keeps its frame count at the front, and plays without its index.
  path = write_video(tmp_path / 'a.avi', 40, codec='MJPG')
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  got = []
  with pytest.raises(InputError, match=r'damaged: it ends after \d+ of 40 frames'):
    for frame in video.frames(path):
      got.append(frame.number)
  assert 5 < len(got) < 35 and got == list(range(len(got)))


# Half of it at 30 frames a second, half at 4: no rate is right for all of it.
VARYING = np.concatenate([np.arange(20) / 30, 1 + np.arange(20) / 4])


@pytest.mark.parametrize('name, codec', [('a.mkv', 'MJPG'), ('a.webm', 'VP80')])
@pytest.mark.parametrize('seconds', [6.0, None])
def test_frames_of_a_varying_rate_keep_their_times(tmp_path, name, codec, seconds):
  path = retime(write_video(tmp_path / name, 40, codec=codec), VARYING, seconds=seconds)
  frames = list(video.frames(path))
  assert [f.number for f in frames] == list(range(40))
  np.testing.assert_allclose([f.time for f in frames], VARYING, atol=2e-3)
  np.testing.assert_allclose(video.frame_times(path), VARYING, atol=2e-3)


def test_frames_are_counted_where_the_container_does_not_say(tmp_path):
  path = write_video(tmp_path / 'a.webm', 40, codec='VP80')
  assert video.count_frames(path) == 40
  assert video.count_frames(retime(path, np.arange(40) / 25)) == 40


@pytest.mark.parametrize('numbers', [{0, 3, 4, 17}, {19, 25}, set()])
def test_frames_by_their_numbers(tmp_path, numbers):
  path = write_video(tmp_path / 'a.mp4', 20)
  whole = list(video.frames(path))
  some = list(video.frames(path, numbers=numbers))
  assert [f.number for f in some] == sorted(numbers - {25})
  for frame in some:
    np.testing.assert_array_equal(frame.image, whole[frame.number].image)


def test_a_damaged_video_has_the_times_of_its_frames(tmp_path):
  path = write_video(tmp_path / 'a.avi', 40, codec='MJPG')
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  times = video.frame_times(path)
  assert 5 < len(times) < 35
  np.testing.assert_allclose(times, np.arange(len(times)) / 25, atol=1e-3)
  with pytest.raises(InputError, match='b.mp4'):
    video.frame_times(write_video(tmp_path / 'b.mp4', 0))


def test_a_file_of_a_varying_rate_that_ends_early_is_damaged(tmp_path):
  path = retime(write_video(tmp_path / 'a.mkv', 40, codec='MJPG'), VARYING, seconds=6.0)
  path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  with pytest.raises(InputError, match='damaged: it ends after'):
    list(video.frames(path))


# --- still images ------------------------------------------------------------


def gradient(height=40, width=60):
  x = np.linspace(0, 255, width)
  return np.broadcast_to(x, (height, width)).astype(np.uint8)


@pytest.mark.parametrize('suffix', ['.png', '.bmp', '.webp', '.tif', '.ppm', '.jpg'])
def test_formats(tmp_path, suffix):
  rgb = np.stack([gradient(), gradient()[:, ::-1], gradient() // 2], -1)
  path = tmp_path / f'a{suffix}'
  Image.fromarray(rgb).save(path, **({'lossless': True} if suffix == '.webp' else {}))
  assert path.suffix in images.SUFFIXES
  actual = read_image(path, image_size=32)
  wanted = np.asarray(Image.fromarray(rgb).resize((32, 32), Image.Resampling.BILINEAR))
  assert actual.shape == (32, 32, 3) and actual.dtype == np.uint8
  assert np.abs(actual.astype(int) - wanted).max() <= (8 if suffix == '.jpg' else 0)


@pytest.mark.parametrize('mode', ['L', 'LA', 'RGBA', 'P', 'CMYK', '1', 'I;16', 'F'])
def test_every_kind_of_image_becomes_rgb(tmp_path, mode):
  grey = gradient(32, 32)
  if mode == 'I;16':
    image = Image.fromarray(grey.astype(np.uint16) * 257)
  elif mode == 'F':
    image = Image.fromarray(grey.astype(np.float32) * 257)
  else:
    base = Image.fromarray(np.stack([grey] * 3, -1))
    image = base.quantize(256) if mode == 'P' else base.convert(mode)
  path = tmp_path / ('a.tif' if mode in ('CMYK', 'F') else 'a.png')
  image.save(path)
  with Image.open(path) as stored:
    assert stored.mode[0] == mode[0]
  actual = read_image(path, image_size=32).astype(int)
  assert actual.shape == (32, 32, 3)
  if mode == '1':
    assert set(np.unique(actual)) <= {0, 255}
  else:
    assert np.abs(actual - grey[..., None]).max() <= 2


def test_exif_orientation_is_respected(tmp_path):
  upright = np.zeros((40, 40, 3), np.uint8)
  upright[:20] = 255  # white at the top
  stored = Image.fromarray(np.rot90(upright).copy())  # camera held sideways
  exif = Image.Exif()
  exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
  stored.save(tmp_path / 'a.png', exif=exif)
  stored.save(tmp_path / 'plain.png')
  actual = read_image(tmp_path / 'a.png', image_size=40)
  np.testing.assert_array_equal(actual, upright)
  plain = read_image(tmp_path / 'plain.png', image_size=40)
  assert np.abs(plain.astype(int) - upright).max() == 255


@pytest.mark.parametrize('kind', ['text', 'empty', 'cut', 'folder', 'absent'])
def test_unreadable_images_are_named(tmp_path, kind):
  path = tmp_path / f'{kind}.jpg'
  if kind == 'text':
    path.write_text('no image')
  elif kind == 'empty':
    path.touch()
  elif kind == 'cut':
    noise = np.random.default_rng(0).integers(0, 255, (99, 99, 3), np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
  elif kind == 'folder':
    path.mkdir()
  with pytest.raises(InputError, match=str(path)):
    read_image(path, image_size=32)


def test_time_is_unknown_only_where_nothing_tells_it(tmp_path):
  path = write_video(tmp_path / 'a.mp4', 3, rate=10.0)
  assert not any(math.isnan(f.time) for f in video.frames(path))


def test_decoders_leave_the_messages_to_us(tmp_path):
  # In a fresh process: FFmpeg asks only once how much it may say.
  paths = [str(damaged(tmp_path, kind)) for kind in ('text', 'empty', 'truncated')]
  code = (
    f'from painformer_jax.modalities import video\n'
    f'print([video.count_frames(p) for p in {paths!r}])'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, env=environment()
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, '[0, 0, 0]\n', '')
