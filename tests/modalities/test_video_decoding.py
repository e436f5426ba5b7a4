"""What cameras, phones and editors write: interlaced, turned, wide, trimmed, damaged, deep."""

import fractions
import os

import av
import numpy as np
import pytest
from clips import copy_packets, cut, damage_packet, grey_frame, write_clip

from painformer_jax.core.errors import InputError
from painformer_jax.modalities import video

FRAMES = [grey_frame(k) for k in range(36)]


@pytest.fixture(scope='module')
def clip(tmp_path_factory):
  """36 frames at 25 a second, a key frame every 12."""
  path = tmp_path_factory.mktemp('clips') / 'a.mp4'
  return write_clip(path, FRAMES, options={'g': '12', 'bf': '2'})


def read(path, **options):
  """Frames of a whole file, and what is said of its damage."""
  found, said = [], ''
  try:
    for frame in video.frames(path, **options):
      found.append(frame)
  except InputError as error:
    said = str(error)
  return found, said


def assert_shows(frames, numbers, *, off=6):
  """Each is the frame of that number."""
  assert len(frames) == len(numbers)
  for frame, number in zip(frames, numbers):
    assert abs(frame.image[:, 16:].mean() - FRAMES[number][:, 16:].mean()) < off, number
    assert frame.image[:, :6].mean() > 220


def moving(number, *, height=576, width=720):
  """A bar that moves 6 pixels a frame over a ramp."""
  frame = np.repeat(np.linspace(40, 120, width, dtype=np.uint8)[None, :, None], height, 0)
  frame = np.repeat(frame, 3, -1)
  frame[:, 100 + 6 * number : 140 + 6 * number] = 230
  return frame


def weave(frames):
  """Interlaced: even lines of one moment, odd lines of the next."""
  woven = []
  for first, second in zip(frames[::2], frames[1::2]):
    both = first.copy()
    both[1::2] = second[1::2]
    woven.append(both)
  return woven


# --- interlaced ----------------------------------------------------------------


@pytest.mark.parametrize('name, codec, options', [
  ('a.mp4', 'libx264', {'x264-params': 'tff=1'}),
  ('a.mpg', 'mpeg2video', {'flags': '+ilme+ildct', 'b': '8M'}),
  ('a.avi', 'dvvideo', {'flags': '+ilme+ildct'}),
])  # fmt: skip
def test_interlaced_video_gives_whole_frames(tmp_path, name, codec, options):
  moments = [moving(k) for k in range(12)]
  path = write_clip(tmp_path / name, weave(moments), codec=codec, options=options)
  frames, said = read(path)
  assert (len(frames), said) == (6, '')
  assert [f.number for f in frames] == list(range(6))
  np.testing.assert_allclose([f.time for f in frames], np.arange(6) / 25, atol=1e-3)
  for frame, moment in zip(frames, moments[::2]):
    image = frame.image.astype(int)
    # The bar is where the first moment has it, without the comb of the second one.
    assert np.abs(image[2:-2] - moment[2:-2]).mean() < 4
    lines = np.abs(np.diff(image[100:-100, :, 0], axis=0)).mean()
    assert lines < 2, 'even and odd lines differ'


def test_video_that_becomes_interlaced(tmp_path):
  moments = [moving(k) for k in range(12)]
  plain = write_clip(tmp_path / 'a.ts', moments[:6], codec='mpeg2video', options={'b': '8M'})
  woven = write_clip(
    tmp_path / 'b.ts',
    weave(moments),
    codec='mpeg2video',
    options={'flags': '+ilme+ildct', 'b': '8M'},
  )
  (tmp_path / 'c.ts').write_bytes(plain.read_bytes() + woven.read_bytes())
  frames, said = read(tmp_path / 'c.ts')
  assert len(frames) == 12 and len({f.image.tobytes() for f in frames}) == 12
  for frame, moment in zip(frames, (*moments[:6], *moments[::2])):
    assert np.abs(frame.image[2:-2].astype(int) - moment[2:-2]).mean() < 5
  some = list(video.frames(tmp_path / 'c.ts', every=5))
  assert [f.number for f in some] == [0, 5, 10]
  np.testing.assert_array_equal(some[2].image, frames[10].image)


# --- names ---------------------------------------------------------------------


def test_names_of_any_bytes_and_with_colons(tmp_path, clip, monkeypatch):
  latin = os.fsencode(tmp_path) + b'/M\374ller.mp4'
  with open(latin, 'wb') as file:
    file.write(clip.read_bytes())
  assert_shows(read(os.fsdecode(latin))[0], range(36))
  assert video.stated_frames(os.fsdecode(latin)) == 36
  monkeypatch.chdir(tmp_path)
  for name in ('2024-01-01T12:30:00.mp4', 'http:x.mp4', '-i.mp4', '%d.mp4'):
    with open(name, 'wb') as file:
      file.write(clip.read_bytes())
    assert len(read(name)[0]) == 36, name


# --- parts and damage ----------------------------------------------------------


def test_a_trimmed_clip_is_what_it_shows(tmp_path, clip):
  # Its packets start at a key frame, an edit list hides those before the cut.
  path = copy_packets(clip, tmp_path / 'b.mp4', start=0.8)
  with av.open(str(path)) as file:
    assert file.streams.video[0].frames == 24  # From frame 12 on.
  frames, said = read(path)
  assert said == '' and 14 <= len(frames) <= 16  # B-frames at the cut count or not.
  assert_shows(frames, range(36 - len(frames), 36))
  assert frames[0].time == 0 and video.count_frames(path) == len(frames)


@pytest.mark.parametrize('suffix', ['mkv', 'ts', 'mp4', 'flv'])
def test_a_part_that_keeps_the_clock_of_the_whole_is_whole(tmp_path, clip, suffix):
  path = copy_packets(clip, tmp_path / f'b.{suffix}', start=0.5, shift=False)
  frames, said = read(path)
  assert said == ''
  assert_shows(frames, range(12, 36))
  np.testing.assert_allclose([f.time for f in frames], np.arange(24) / 25, atol=2e-3)


def test_a_stream_cut_between_key_frames_starts_at_the_next(tmp_path, clip):
  path = copy_packets(clip, tmp_path / 'b.ts')
  with av.open(str(path)) as file:
    second = [p for p in file.demux(video=0) if p.size][3].pos
  path.write_bytes(path.read_bytes()[second:])
  frames, said = read(path)
  assert said == ''
  assert_shows(frames, range(12, 36))


@pytest.mark.parametrize('suffix, share', [('mkv', 0.8), ('flv', 0.6)])
def test_a_cut_clip_is_damaged(tmp_path, clip, suffix, share):
  path = cut(copy_packets(clip, tmp_path / f'b.{suffix}'), share)
  frames, said = read(path)
  assert 5 < len(frames) < 32 and 'damaged: it ends after' in said and str(path) in said
  assert_shows(frames, [round(25 * f.time) for f in frames])


def textured(number):
  return np.random.default_rng(number // 6).integers(0, 255, (48, 64, 3), np.uint8) // 2 + number


@pytest.mark.parametrize('name, codec, kept_as, options, lost', [
  ('a.mp4', 'libx264', 'yuv420p', {}, range(12, 18)),
  ('a.mp4', 'libx264', 'yuv420p', {'x264-params': 'slices=4'}, range(12, 18)),
  ('a.mkv', 'libx264', 'yuv420p', {}, range(12, 18)),
  ('a.avi', 'mjpeg', 'yuvj420p', {}, [12]),
  ('a.avi', 'mpeg4', 'yuv420p', {}, range(12, 18)),
  ('a.ts', 'mpeg2video', 'yuv420p', {}, range(12, 18)),
  ('a.mp4', 'mpeg2video', 'yuv420p', {}, range(12, 18)),
])  # fmt: skip
def test_a_damaged_packet_costs_the_frames_up_to_the_next_key_frame(
  tmp_path, name, codec, kept_as, options, lost
):
  whole = [textured(k) for k in range(30)]
  path = write_clip(
    tmp_path / name, whole, codec=codec, kept_as=kept_as, options={'g': '6', 'bf': '0', **options}
  )
  before, said = read(path)
  assert (len(before), said) == (30, '')
  frames, said = read(damage_packet(path, 12))
  assert [f.number for f in frames] == sorted(set(range(30)) - set(lost))
  assert f'{len(lost)} of its frames could not be decoded' in said
  for frame in frames:
    assert frame.time == pytest.approx(before[frame.number].time, abs=1e-3)
    np.testing.assert_array_equal(frame.image, before[frame.number].image)
  times = video.frame_times(path)
  assert len(times) == 30 and np.isfinite(times).all()


def test_a_lasting_sound_does_not_make_a_video_damaged(tmp_path):
  path = tmp_path / 'a.mkv'
  with av.open(str(path), 'w') as file:
    stream = file.add_stream('mjpeg', rate=25)
    stream.width, stream.height, stream.pix_fmt = 64, 48, 'yuvj420p'
    sound = file.add_stream('pcm_s16le', rate=8000)
    for frame in FRAMES[:10]:
      file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format='rgb24')))
    file.mux(stream.encode())
    for k in range(8):  # Eight times half a second.
      part = av.AudioFrame.from_ndarray(np.zeros((1, 4000), np.int16), format='s16', layout='mono')
      part.sample_rate, part.pts = 8000, 4000 * k
      file.mux(sound.encode(part))
    file.mux(sound.encode())
  frames, said = read(path)
  assert (len(frames), said) == (10, '')


def test_sound_with_a_cover_is_no_video(tmp_path):
  path = tmp_path / 'a.mp3'
  with av.open(str(path), 'w') as file:
    sound = file.add_stream('libmp3lame', rate=44100)
    cover = file.add_stream('mjpeg', rate=1)
    cover.width, cover.height, cover.pix_fmt = 64, 48, 'yuvj420p'
    cover.disposition = av.stream.Disposition.attached_pic
    file.mux(cover.encode(av.VideoFrame.from_ndarray(FRAMES[0], format='rgb24')))
    file.mux(cover.encode())
    for k in range(20):
      silence = np.zeros((1, 1152), np.int16)
      part = av.AudioFrame.from_ndarray(silence, format='s16p', layout='mono')
      part.sample_rate, part.pts = 44100, 1152 * k
      file.mux(sound.encode(part))
    file.mux(sound.encode())
  assert read(path) == ([], f'{path} holds no video, only sound and a cover picture')
  assert video.count_frames(path) == 0 and not video.is_video(path)


def test_texts_and_playlists_are_no_videos(tmp_path, clip):
  for name, text in (
    ('a.txt', 'plain\n' * 40),
    ('a.m3u8', f'#EXTM3U\n#EXTINF:1,\n{clip}\n'),
    ('a.ffconcat', f"ffconcat version 1.0\nfile '{clip}'\n"),
  ):
    (tmp_path / name).write_text(text)
    found, said = read(tmp_path / name)
    assert found == [] and name in said


# --- shape and levels ----------------------------------------------------------

CORNERS = np.zeros((48, 64, 3), np.uint8)
CORNERS[:24, :32], CORNERS[:24, 32:], CORNERS[24:, :32] = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.mark.parametrize('rotation, wanted', [
  ({'degrees': 0}, CORNERS),
  ({'degrees': 90}, np.rot90(CORNERS)),
  ({'degrees': 180}, np.rot90(CORNERS, 2)),
  ({'degrees': -90}, np.rot90(CORNERS, -1)),
  ({'degrees': 0, 'hflip': True}, CORNERS[:, ::-1]),
  ({'degrees': 0, 'vflip': True}, CORNERS[::-1]),
])  # fmt: skip
def test_turned_and_mirrored_video_is_upright(tmp_path, rotation, wanted):
  path = write_clip(
    tmp_path / 'a.mp4', [CORNERS] * 2, kept_as='yuv444p', rotation=rotation, options={'crf': '1'}
  )
  for frame in video.frames(path):
    assert frame.image.shape == wanted.shape
    assert np.abs(frame.image.astype(int) - wanted).mean() < 6


@pytest.mark.parametrize(
  'aspect, shape', [((64, 45), (48, 91)), ((1, 2), (96, 64)), ((1, 1), (48, 64))]
)
def test_pixels_become_square_where_asked_for(tmp_path, aspect, shape):
  path = write_clip(tmp_path / 'a.mp4', FRAMES[:2], pixel_aspect=fractions.Fraction(*aspect))
  assert next(video.frames(path)).image.shape == (48, 64, 3)
  wide = next(video.frames(path, square_pixels=True)).image
  assert wide.shape == (*shape, 3) and abs(wide[:, wide.shape[1] // 4 :].mean() - 20) < 4
  assert next(video.frames(path, grey=True, square_pixels=True)).image.shape == shape


@pytest.mark.parametrize('name, codec, kept_as', [
  ('a.mkv', 'ffv1', 'gray16le'), ('a.mov', 'png', 'gray16be'),
])  # fmt: skip
def test_16_bit_video_keeps_its_levels(tmp_path, name, codec, kept_as):
  levels = [
    (28000 + np.arange(48 * 64).reshape(48, 64) * 2 + k).astype(np.uint16) for k in range(4)
  ]
  path = write_clip(tmp_path / name, levels, codec=codec, kept_as=kept_as, given_as='gray16le')
  frames, _ = read(path, grey=True)
  for frame, wanted in zip(frames, levels, strict=True):
    assert frame.image.dtype == np.uint16
    np.testing.assert_array_equal(frame.image, wanted)
  assert next(video.frames(path)).image.dtype == np.uint8


def test_brightness_is_taken_as_it_is_stored(tmp_path):
  grey = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (48, 1))
  path = write_clip(tmp_path / 'a.mkv', [grey] * 2, codec='ffv1', kept_as='gray', given_as='gray')
  np.testing.assert_array_equal(next(video.frames(path, grey=True)).image, grey)
  ten = (np.arange(48 * 64).reshape(48, 64) % 1024).astype(np.uint16)
  path = write_clip(
    tmp_path / 'b.mkv', [ten] * 2, codec='ffv1', kept_as='gray10le', given_as='gray10le'
  )
  np.testing.assert_array_equal(next(video.frames(path, grey=True)).image, ten)
  rgb = np.dstack([grey] * 3)
  path = write_clip(tmp_path / 'c.mkv', [rgb] * 2, codec='ffv1', kept_as='bgr0')
  assert np.abs(next(video.frames(path, grey=True)).image.astype(int) - grey).max() <= 1


def test_the_length_need_not_be_known_to_start(tmp_path, clip, monkeypatch):
  path = tmp_path / 'a.h264'
  write_clip(path, FRAMES, format='h264')
  monkeypatch.setattr('painformer_jax.modalities.video_file.VideoFile.decoded', None)
  assert video.stated_frames(path) == 0 and video.count_frames(path) == 36
