"""Videos written by PyAV: of any codec, turned, with wide pixels, cut, damaged."""

import av
import numpy as np


def grey_frame(number, *, height=48, width=64):
  """uint8 [height, width, 3]: grey at level 4 * number + 20, with a white bar at the left."""
  frame = np.full((height, width, 3), (4 * number + 20) % 200, np.uint8)
  frame[:, : width // 8] = 255
  return frame


def write_clip(
  path,
  frames,
  *,
  codec='libx264',
  kept_as='yuv420p',
  given_as='rgb24',
  rate=25,
  options=None,
  rotation=None,
  pixel_aspect=None,
  colorspace=None,
  format=None,
):
  """Encodes frames, arrays that `given_as` fits; returns the path.

  Args:
    kept_as: pixel format of the file.
    options: of the encoder.
    rotation: keywords of PyAV's set_display_rotation.
    pixel_aspect: width of a pixel over its height, a Fraction.
  """
  with av.open(f'file:{path}', 'w', format=format) as file:
    stream = file.add_stream(codec, rate=rate)
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = kept_as
    stream.options = options or {}
    if rotation:
      stream.set_display_rotation(**rotation)
    if pixel_aspect:
      stream.codec_context.sample_aspect_ratio = pixel_aspect
    if colorspace:
      stream.codec_context.colorspace = colorspace
    for frame in frames:
      file.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format=given_as)))
    file.mux(stream.encode())
  return path


def copy_packets(source, path, *, start=0.0, shift=True, options=None):
  """The packets from the key frame before `start` on, in another container, not encoded anew.

  Args:
    shift: whether the new clock is 0 at `start`; an .mp4 then shows what follows only.
    options: of the container.
  """
  with av.open(str(source)) as old, av.open(str(path), 'w', options=options or {}) as new:
    stream = old.streams.video[0]
    copy = new.add_stream_from_template(stream)
    before = round(start / float(stream.time_base))
    if start:
      old.seek(before, stream=stream)
    for packet in old.demux(stream):
      if packet.dts is not None:
        if shift:
          packet.pts, packet.dts = packet.pts - before, packet.dts - before
        packet.stream = copy
        new.mux(packet)
  return path


def damage_packet(path, number, *, size=300):
  """Overwrites the middle of one packet with noise, in place."""
  with av.open(str(path)) as file:
    packet = [p for p in file.demux(file.streams.video[0]) if p.size][number]
    size = min(size, packet.size // 2)
    place = packet.pos + packet.size // 4
  data = bytearray(path.read_bytes())
  data[place : place + size] = np.random.default_rng(0).bytes(size)
  path.write_bytes(data)
  return path


def cut(path, share):
  """Keeps the first part of a file, in place."""
  data = path.read_bytes()
  path.write_bytes(data[: int(share * len(data))])
  return path
