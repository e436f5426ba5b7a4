"""Videos that are cut or broken: what is lost is counted to the frame, and nothing else is lost."""

import av
import numpy as np
import pytest
from clips import cut, damage_packet, write_clip

from painformer_jax.core.errors import InputError
from painformer_jax.modalities import video
from painformer_jax.modalities.video_structure import read_structure

NUMBER, EVERY = 48, 6  # Frames, and from one key frame to the next.


def textured(number):
  small = np.random.default_rng(number // EVERY).integers(0, 255, (12, 16, 3), np.uint8) // 2
  return np.kron(small, np.ones((4, 4, 1), np.uint8)) + np.uint8(number)


KINDS = {
  'a.mp4': ('libx264', 'yuv420p', {}),
  'faststart.mp4': ('libx264', 'yuv420p', {'movflags': 'faststart'}),
  'pieces.mp4': ('libx264', 'yuv420p', {'movflags': 'frag_keyframe+empty_moov'}),
  'a.avi': ('mpeg4', 'yuv420p', {}),
  'motion.avi': ('mjpeg', 'yuvj420p', {}),
  'a.mkv': ('libx264', 'yuv420p', {}),
  'short.mkv': ('libx264', 'yuv420p', {'cluster_time_limit': '200'}),
  'a.webm': ('libvpx', 'yuv420p', {}),
  'a.flv': ('libx264', 'yuv420p', {}),
  'a.wmv': ('wmv2', 'yuv420p', {}),
  'a.ts': ('libx264', 'yuv420p', {}),
  'a.mpg': ('mpeg2video', 'yuv420p', {}),
  'a.y4m': ('rawvideo', 'yuv420p', {}),
  'grey.y4m': ('rawvideo', 'gray', {}),
}


@pytest.fixture(scope='module')
def clips(tmp_path_factory):
  """A clip of each kind, and its frames."""
  folder, found = tmp_path_factory.mktemp('clips'), {}
  for name, (codec, kept_as, options) in KINDS.items():
    path = folder / name
    form = 'yuv4mpegpipe' if path.suffix == '.y4m' else None
    with av.open(str(path), 'w', format=form, container_options=options) as file:
      stream = file.add_stream(codec, rate=25, options={'g': str(EVERY), 'bf': '0'})
      stream.height, stream.width, stream.pix_fmt = 48, 64, kept_as
      for k in range(NUMBER):
        file.mux(stream.encode(av.VideoFrame.from_ndarray(textured(k), format='rgb24')))
      file.mux(stream.encode())
    found[name] = path, read(path)
  return found


def read(path):
  frames, said = [], ''
  try:
    for frame in video.frames(path):
      frames.append(frame)
  except InputError as error:
    said = str(error)
  return frames, said


def copied(path, folder):
  copy = folder / path.name
  copy.write_bytes(path.read_bytes())
  return copy


@pytest.mark.parametrize('name', KINDS)
def test_a_whole_clip_has_no_fault(clips, name):
  path, (frames, said) = clips[name]
  assert said == '' and [f.number for f in frames] == list(range(NUMBER))
  with av.open(str(path)) as file:
    structure = read_structure(path, file.format.name)
  assert not structure.tears and not structure.cut


@pytest.mark.parametrize('share', [0.95, 0.7])
@pytest.mark.parametrize('name', [n for n in KINDS if n not in ('a.mp4', 'pieces.mp4')])
def test_a_cut_clip_says_so(tmp_path, clips, name, share):
  """An .mp4 with its index at the end is no video any more."""
  path = copied(clips[name][0], tmp_path)
  if name == 'a.mpg':
    share -= 0.02  # Not between two packs.
  frames, said = read(cut(path, share))
  whole = clips[name][1][0]
  for frame in frames:
    np.testing.assert_array_equal(frame.image, whole[frame.number].image)
  if len(frames) < NUMBER:  # Else it was the index.
    assert 'is damaged: it' in said
  if 'faststart' in name or name.endswith('.avi') and len(frames) < NUMBER:
    ends = int(said.split('it ends after ')[1].split()[0])
    lost = int(said.split('; ')[1].split()[0]) if '; ' in said else 0
    assert len(frames) + lost == ends < NUMBER and f'of {NUMBER} frames' in said


def test_a_small_loss_at_the_end_of_a_long_index_is_said(tmp_path, clips):
  path = copied(clips['faststart.mp4'][0], tmp_path)
  path.write_bytes(path.read_bytes()[:-20])
  frames, said = read(path)
  assert NUMBER - 2 <= len(frames) < NUMBER and 'is damaged' in said


@pytest.mark.parametrize('name', ['a.mp4', 'a.mkv', 'a.avi', 'a.ts', 'a.mpg', 'a.flv'])
def test_where_the_only_key_frame_is_damaged_nothing_is_shown(tmp_path, name):
  codec, kept_as, _ = KINDS[name]
  path = tmp_path / name
  write_clip(path, [textured(k // 9) for k in range(9)], codec=codec, options={'g': '99'})
  assert len(read(path)[0]) == 9
  frames, said = read(damage_packet(path, 0, size=999))
  assert frames == [] and f'{path} holds no frame that can be decoded' in said


def test_frames_that_an_avi_passes_over_are_counted_and_keep_the_others_numbers(tmp_path, clips):
  """The head of two chunks is destroyed: FFmpeg goes on at the next, and counts on from there."""
  source, (whole, _) = clips['motion.avi']
  path = copied(source, tmp_path)
  data = bytearray(path.read_bytes())
  with av.open(str(source)) as file:
    entries = [(e.pos, e.size) for e in file.streams.video[0].index_entries]
  start, stop = entries[20][0], entries[21][0] + 8
  data[start:stop] = np.random.default_rng(0).integers(128, 200, stop - start, np.uint8).tobytes()
  path.write_bytes(data)
  frames, said = read(path)
  lost = NUMBER - len(frames)
  assert 2 <= lost <= 3 and f'{lost} of its frames could not be decoded' in said
  assert 'ends' not in said and frames[-1].number == NUMBER - 1
  for frame in frames:
    np.testing.assert_array_equal(frame.image, whole[frame.number].image)
    assert frame.time == pytest.approx(frame.number / 25, abs=1e-3)


@pytest.mark.parametrize('name', ['short.mkv', 'a.mpg'])
def test_what_is_lost_in_the_middle_of_a_container_is_counted(tmp_path, clips, name):
  source, (whole, _) = clips[name]
  path = copied(source, tmp_path)
  data, middle = bytearray(path.read_bytes()), len(path.read_bytes()) // 2
  data[middle - 700 : middle + 700] = np.random.default_rng(0).bytes(1400)
  path.write_bytes(data)
  frames, said = read(path)
  lost = NUMBER - len(frames)
  assert 2 <= lost <= 4 * EVERY and f'{lost} of its frames could not be decoded' in said
  assert frames[-1].number == NUMBER - 1
  for frame in frames:
    np.testing.assert_array_equal(frame.image, whole[frame.number].image)


def test_the_clock_of_a_container_is_no_rate(tmp_path):
  """FFmpeg says 60,000 frames a second of DV."""
  frames = [np.full((576, 720, 3), 9 * k, np.uint8) for k in range(3)]
  path = write_clip(tmp_path / 'a.dv', frames, codec='dvvideo', format='dv')
  assert video.stated_frames(path) == 3 and len(read(path)[0]) == 3


def test_a_decoder_that_cannot_be_opened_is_no_crash(tmp_path):
  path = write_clip(tmp_path / 'a.mkv', [textured(k) for k in range(3)], codec='ffv1')
  data = bytearray(path.read_bytes())
  place = data.find(b'\x63\xa2')  # The decoder's settings.
  data[place + 3 : place + 30] = bytes(27)
  path.write_bytes(data)
  frames, said = read(path)
  assert frames == [] and f'{path} holds no frame that can be decoded' in said
