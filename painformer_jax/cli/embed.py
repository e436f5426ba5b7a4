"""`painformer embed`: images, videos and signals to embeddings."""

import argparse
import contextlib
import dataclasses
import os
import signal
import sys

EXAMPLE = """painformer embed clip.mp4 photos/ --weights painformer.pth --out clip.npz
  painformer embed clip.mp4 --modality face --weights painformer.pth --out face.npz --sheet face.png
  painformer embed ecg.csv --modality ecg --column ecg --rate 512 --window 5.5 \\
      --weights painformer.pth --out ecg.npz

modalities:
  rgb      images and videos as they are (default)
  face     the face, found by MTCNN in every frame and cropped without alignment
  thermal  thermal frames; or RGB frames through a network (--network)
  depth    depth frames; or RGB frames through a network (--network), or through
           the face mesh, which is a stand-in (--stand-in)
  ecg emg gsr   windows of a signal, four images each: waveform, angle, phase, psd
  fnirs    haemoglobin, a waveform a channel: .snirf files, or columns of a table

arrays in FILE.npz, one row an image:
  embedding [n, 160], source; pictures: frame, time (s), with faces cropped also
  face (detected, tracked, none); signals: start, stop (s), channel,
  representation, quality. And weights, modality, settings, stand_in."""

_PICTURES = ('rgb', 'face', 'thermal', 'depth')
_SIGNALS = ('ecg', 'emg', 'gsr', 'fnirs')
# Option -> the modalities it fits; every other one fits all.
_FITS = {
  'every': _PICTURES,
  'crop_faces': ('thermal', 'depth'),
  'faceless': ('face', 'thermal', 'depth'),
  'network': ('thermal', 'depth'),
  'stand_in': ('depth',),
  'column': _SIGNALS,
  'key': _SIGNALS,
  'rate': _SIGNALS,
  'window': _SIGNALS,
  'step': _SIGNALS,
  'representation': _SIGNALS,
  'clean': ('ecg', 'emg', 'gsr'),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'inputs', nargs='+', metavar='INPUT', help='images, videos or signal files, or folders of them'
  )
  parser.add_argument(
    '--weights',
    required=True,
    metavar='W',
    help='.pth, .safetensors, converted folder, or folder of a run',
  )
  parser.add_argument(
    '--out', required=True, metavar='FILE.npz', help='embeddings and what locates each, see below'
  )
  parser.add_argument(
    '--batch-size', type=int, default=16, metavar='N', help='images at once (default: %(default)s)'
  )
  parser.add_argument(
    '--modality',
    choices=(*_PICTURES, *_SIGNALS),
    default='rgb',
    metavar='NAME',
    help=f'{", ".join((*_PICTURES, *_SIGNALS))} (default: rgb)',
  )
  parser.add_argument(
    '--settings',
    metavar='FILE.json',
    help='every parameter of the modality; those in use are kept in the '
    'array settings. Options given here win',
  )
  parser.add_argument(
    '--sheet', metavar='FILE.png', help='also draw the first images, as the model sees them'
  )
  parser.add_argument(
    '--sheet-images', type=int, metavar='N', help='how many of them (default: 48)'
  )
  pictures = parser.add_argument_group('images and videos')
  pictures.add_argument(
    '--every', type=int, metavar='N', help='take every Nth frame of a video (default: all)'
  )
  pictures.add_argument(
    '--crop-faces',
    action='store_true',
    default=None,
    help='find the face in each frame and crop it first',
  )
  pictures.add_argument(
    '--faceless',
    choices=('skip', 'whole'),
    help='leave frames without a face out (default), or take them whole',
  )
  pictures.add_argument(
    '--network', metavar='FILE.onnx', help='turns RGB frames into thermal or depth frames'
  )
  pictures.add_argument(
    '--stand-in',
    action='store_true',
    default=None,
    help='depth of a face-mesh model; labelled as a stand-in',
  )
  signals = parser.add_argument_group('signals')
  signals.add_argument(
    '--column',
    metavar='A,B',
    help=(
      'columns that are the channels, by name or number from 0; in .snirf files '
      'names of channels, or hbo or hbr (default: all)'
    ),
  )
  signals.add_argument('--key', metavar='NAME', help='array of an .npz file')
  signals.add_argument('--rate', type=float, metavar='HZ', help='samples a second')
  signals.add_argument(
    '--window', type=float, metavar='S', help='seconds an image shows (default: a whole file)'
  )
  signals.add_argument(
    '--step',
    type=float,
    metavar='S',
    help="seconds from one window's start to the next's (default: window)",
  )
  signals.add_argument(
    '--representation',
    metavar='A,B',
    help=('of waveform, angle, phase, psd (default: all; of fnirs the waveform)'),
  )
  signals.add_argument(
    '--clean', action='store_true', default=None, help='filter ECG, EMG and GSR first (NeuroKit2)'
  )


def run(args: argparse.Namespace) -> int:
  _check_options(args)
  from painformer_jax.core.errors import InputError

  if args.batch_size < 1 or (args.every is not None and args.every < 1):
    raise InputError('--batch-size and --every must be at least 1')
  with _stopped_by_sigterm():
    return _run(args)


def _run(args: argparse.Namespace) -> int:
  from painformer_jax.core.errors import InputError
  from painformer_jax.core.files import check_file_target
  from painformer_jax.core.progress import log
  from painformer_jax.embedding.files import Sheet, embed_files
  from painformer_jax.models import functional
  from painformer_jax.weights.load import non_finite, read_weights

  sheet = None
  if args.sheet:
    sheet = Sheet(path=args.sheet, **_given(images=args.sheet_images))
  # What is wrong with the options is known before the weights are read.
  reader = _picture_reader(args) if args.modality in _PICTURES else _signal_reader(args)
  check_file_target(args.out)
  if os.path.exists(args.weights):
    log(f'reads {args.weights}')
  stored = read_weights(args.weights)
  if bad := non_finite(stored):
    more = f' and {len(bad) - 8} more' if len(bad) > 8 else ''
    log(f'WARNING: {args.weights} holds NaN or infinity in {", ".join(bad[:8])}{more}')
  model = functional.from_variables(stored.config, stored.variables)
  summary = embed_files(
    model,
    args.inputs,
    args.out,
    reader=reader,
    batch_size=args.batch_size,
    sheet=sheet,
    description=f'{stored.source.model} {stored.source.name} {stored.source.sha256}'.strip(),
    log=log,
  )
  remarks = f'; {summary.remarks}' if summary.remarks else ''
  print(f'{args.out}: {summary.rows} embeddings from {summary.files} files{remarks}')
  faults = []
  if summary.problems:
    faults.append(
      f'{len(summary.problems)} input(s) could not be read whole, named above; '
      f'the rest is in {args.out}'
    )
  if summary.non_finite:
    faults.append(
      f'{summary.non_finite} of {summary.rows} embeddings in {args.out} hold NaN or infinity'
    )
  if faults:
    raise InputError('; '.join(faults))
  return 0


def _picture_reader(args):
  from painformer_jax.core.config_fields import read_json
  from painformer_jax.embedding.pictures import PictureConfig, PictureReader

  config = read_json(args.settings, PictureConfig) if args.settings else PictureConfig()
  config = dataclasses.replace(
    config, **_given(every=args.every, crop=args.crop_faces, faceless=args.faceless)
  )
  return PictureReader(args.modality, config, network=args.network, mesh=bool(args.stand_in))


def _signal_reader(args):
  from painformer_jax.core.config_fields import read_json
  from painformer_jax.embedding.signals import SignalReader
  from painformer_jax.modalities.windows import SignalConfig

  config = read_json(args.settings, SignalConfig) if args.settings else SignalConfig()
  config = dataclasses.replace(
    config,
    **_given(
      window=args.window,
      step=args.step,
      representations=_listed(args.representation),
      clean=args.clean,
    ),
  )
  return SignalReader(
    args.modality, config, **_given(rate=args.rate, columns=_listed(args.column), key=args.key)
  )


def _check_options(args: argparse.Namespace) -> None:
  """Refuses options that do not fit the modality, or one another."""
  from painformer_jax.core.errors import InputError

  for name, modalities in _FITS.items():
    if getattr(args, name) is not None and args.modality not in modalities:
      raise InputError(
        f'--{name.replace("_", "-")} does not fit --modality {args.modality}; '
        f'it is for {", ".join(modalities)}'
      )
  if args.network and args.stand_in:
    raise InputError('--network and --stand-in exclude each other')
  if args.sheet_images is not None and not args.sheet:
    raise InputError('--sheet-images needs --sheet')
  if args.faceless and args.modality != 'face' and not (args.crop_faces or args.stand_in):
    raise InputError(f'--faceless with --modality {args.modality} needs --crop-faces')


def _given(**options) -> dict:
  """The options that the user gave."""
  return {name: value for name, value in options.items() if value is not None}


def _listed(text: str | None) -> tuple[str, ...] | None:
  if text is None:
    return None
  return tuple(name.strip() for name in text.split(',') if name.strip())


@contextlib.contextmanager
def _stopped_by_sigterm():
  """SIGTERM ends the block as an exception does, so that nothing half-made is left."""

  def stop(number, frame):
    del frame
    # A second signal must not cut the cleaning short.
    signal.signal(number, signal.SIG_IGN)
    print('painformer: stopped', file=sys.stderr)
    sys.exit(128 + number)

  try:
    previous = signal.signal(signal.SIGTERM, stop)
  except ValueError:  # not in the main thread
    yield
    return
  try:
    yield
  finally:
    signal.signal(signal.SIGTERM, previous)
