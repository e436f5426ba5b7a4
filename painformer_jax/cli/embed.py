"""`painformer embed`: images, videos and signals to embeddings."""

import argparse
import os

from painformer_jax.cli import file_options
from painformer_jax.modalities.names import ALIASES, PICTURES, SIGNALS, modality_of

EXAMPLE = """painformer embed clip.mp4 photos/ --weights painformer.pth --out clip.npz
  painformer embed clip.mp4 --modality face --weights painformer.pth --out face.npz --sheet face.png
  painformer embed ecg.csv --modality ecg --column ecg --rate 512 \\
      --weights painformer.pth --out ecg.npz

modalities:
  rgb           images and videos as they are (default)
  face          one person's face in each frame, found by MTCNN and cropped, not rotated
  thermal       thermal frames, or RGB frames through a network (--network)
  depth         depth frames, or RGB frames through a network (--network) or, as a
                stand-in, through a face-mesh model (--stand-in)
  ecg emg gsr   windows of 5.5 s of a signal, four images each: waveform, angle, phase, psd
  fnirs         haemoglobin in windows of 10 s, one waveform a channel; .snirf files or
                columns of a table

arrays in FILE.npz, one row an image:
  embedding     [n, 160] float32
  source        the file
  frame, time   of images and videos: frame number (-1 for an image) and seconds
  face          where faces are cropped: detected in this frame, tracked between two
                detections; with --faceless also held, other (other faces only), none
  person        with --face all: the person's number in the file, from 1
  start, stop, channel, representation, quality    of signals; start and stop in seconds
One value for all rows: weights, modality, settings (JSON), stand_in. `columns` names
the arrays of rows, `painformer_jax` is the version that wrote the file."""

# Option -> the modalities that it is for; every other option is for all.
_MODALITIES_OF = {
  'every': PICTURES,
  'crop_faces': ('thermal', 'depth'),
  'face': ('face', 'thermal', 'depth'),
  'faceless': ('face', 'thermal', 'depth'),
  'network': ('thermal', 'depth'),
  'stand_in': ('depth',),
  'column': SIGNALS,
  'rate': SIGNALS,
  'time': SIGNALS,
  'window': SIGNALS,
  'step': SIGNALS,
  'representation': SIGNALS,
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
    help='.pth or .safetensors file, weights folder or run folder',
  )
  parser.add_argument(
    '--out',
    required=True,
    metavar='FILE.npz',
    help='file to write; its arrays are listed below, an older result is replaced',
  )
  parser.add_argument(
    '--batch-size', type=int, default=16, metavar='N', help='images at once (default: %(default)s)'
  )
  parser.add_argument(
    '--modality',
    type=modality_of,
    choices=(*PICTURES, *SIGNALS),
    default='rgb',
    metavar='NAME',
    help=f'{", ".join((*PICTURES, *SIGNALS))} (default: rgb); '
    + ', '.join(f'{alias} is {name}' for alias, name in ALIASES.items()),
  )
  parser.add_argument(
    '--settings',
    metavar='FILE.json',
    help='settings of the modality; options on the command line replace them. The settings '
    'that were used are stored in FILE.npz, as the array settings',
  )
  parser.add_argument(
    '--sheet',
    metavar='FILE.png',
    help='also draw a sheet of the first images, as the model sees them; an older one is replaced',
  )
  parser.add_argument(
    '--sheet-images', type=int, metavar='N', help='images on the sheet (default: 48)'
  )
  file_options.add_arguments(parser, key='--weights-key')
  pictures = parser.add_argument_group('images and videos')
  pictures.add_argument(
    '--every', type=int, metavar='N', help='take every Nth frame of a video (default: 1)'
  )
  pictures.add_argument(
    '--crop-faces',
    action='store_true',
    default=None,
    help='find the face in each frame and crop it first',
  )
  pictures.add_argument(
    '--face',
    choices=('largest', 'central', 'all'),
    help='whose face: the person with the largest face of the whole clip (the default), the '
    'one nearest to the middle, or all, one row a person and frame',
  )
  pictures.add_argument(
    '--faceless',
    choices=('skip', 'held', 'whole'),
    help="frames in which the person's face is not seen: leave them out (skip, the default), "
    'crop where it was before or will be next (held), or take all others whole (whole)',
  )
  pictures.add_argument(
    '--network',
    metavar='FILE.onnx',
    help='network that turns RGB frames into thermal or depth frames',
  )
  pictures.add_argument(
    '--stand-in',
    action='store_true',
    default=None,
    help='take the depth of a face-mesh model in place of a depth network; FILE.npz says so',
  )
  signals = parser.add_argument_group('signals')
  signals.add_argument(
    '--column',
    type=_names,
    action='extend',
    metavar='A,B',
    help='columns that are the channels, by name or number from 0 (default: the one that '
    'holds no times); of .snirf files channels by name, or hbo or hbr for all of that kind '
    '(default: all); may be given several times',
  )
  signals.add_argument(
    '--key',
    metavar='NAME',
    help='array of an .npz file that holds several; of images and videos the same as --weights-key',
  )
  signals.add_argument(
    '--rate',
    type=float,
    metavar='HZ',
    help='samples a second (default: by the column of times, with which it must agree)',
  )
  signals.add_argument(
    '--time',
    metavar='NAME',
    help='column of times, by name or number from 0 (default: found by its name); none to go '
    'by --rate alone',
  )
  signals.add_argument(
    '--window',
    type=_window,
    metavar='S',
    help='seconds that an image shows, or whole for a whole file (default: 5.5, of fnirs 10)',
  )
  signals.add_argument(
    '--step',
    type=float,
    metavar='S',
    help="seconds from one window's start to the next one's (default: as --window)",
  )
  signals.add_argument(
    '--representation',
    type=_names,
    action='extend',
    metavar='A,B',
    help='of waveform, angle, phase, psd (default: all; of fnirs waveform)',
  )
  signals.add_argument(
    '--clean', action='store_true', default=None, help='filter ECG, EMG or GSR first, by NeuroKit2'
  )


def run(args: argparse.Namespace) -> int:
  _check_options(args)
  return _embed(args)


def _check_options(args: argparse.Namespace) -> None:
  """Refuses options that do not go with the modality or with one another."""
  from painformer_jax.core.errors import InputError

  for name, modalities in _MODALITIES_OF.items():
    if getattr(args, name) is not None and args.modality not in modalities:
      raise InputError(
        f'--{name.replace("_", "-")} does not fit --modality {args.modality}; '
        f'it is for {", ".join(modalities)}'
      )
  if args.key is not None and args.modality in PICTURES:
    if args.weights_key is not None:
      raise InputError('--key and --weights-key are the same for images and videos; give one')
    args.weights_key, args.key = args.key, None
  if args.network and args.stand_in:
    raise InputError('--network and --stand-in exclude each other')
  if args.sheet_images is not None and not args.sheet:
    raise InputError('--sheet-images needs --sheet')
  for name in ('face', 'faceless'):
    given = getattr(args, name) and args.modality != 'face'
    if given and not (args.crop_faces or args.stand_in):
      raise InputError(f'--{name} with --modality {args.modality} needs --crop-faces')
  if args.batch_size < 1 or (args.every is not None and args.every < 1):
    raise InputError('--batch-size and --every must be at least 1')


def _embed(args: argparse.Namespace) -> int:
  from painformer_jax.core.errors import InputError, counted, listed
  from painformer_jax.core.progress import log
  from painformer_jax.embedding.files import Sheet, check_targets, embed_files
  from painformer_jax.embedding.pictures import PictureReader
  from painformer_jax.embedding.signals import SignalReader
  from painformer_jax.models import functional
  from painformer_jax.weights.load import read_weights, warnings_of

  # What is wrong with the options is found before the weights are read.
  sheet = None
  if args.sheet:
    sheet = Sheet(path=args.sheet, images=48 if args.sheet_images is None else args.sheet_images)
  if args.modality in PICTURES:
    reader = PictureReader.from_settings(
      args.modality,
      args.settings,
      network=args.network,
      mesh=bool(args.stand_in),
      progress=log,
      every=args.every,
      crop=args.crop_faces,
      faceless=args.faceless,
      choose=args.face,
    )
  else:
    reader = SignalReader.from_settings(
      args.modality,
      args.settings,
      rate=args.rate,
      columns=args.column,
      key=args.key,
      time=args.time,
      window=args.window,
      step=args.step,
      representations=args.representation,
      clean=args.clean,
    )
  read = [*args.inputs, *filter(None, (args.weights, args.settings, args.network))]
  check_targets(args.out, sheet, inputs=read)
  if os.path.exists(args.weights):
    log(f'reads {args.weights}')
  stored = read_weights(args.weights, file_options.options_of(args))
  for line in stored.remarks:
    log(f'{args.weights}: {line}')
  for line in warnings_of(stored):
    log(f'WARNING: {args.weights}: {line}')
  if stored.source.left_out and not stored.remarks:
    log(f'{args.weights}: left out of {stored.source.name}: {listed(stored.source.left_out)}')
  summary = embed_files(
    functional.from_variables(stored.config, stored.variables),
    args.inputs,
    args.out,
    reader=reader,
    batch_size=args.batch_size,
    sheet=sheet,
    description=f'{stored.source.model} {stored.source.name} {stored.source.sha256}'.strip(),
    log=log,
  )
  remarks = f'; {summary.remarks}' if summary.remarks else ''
  files = f'{summary.used} of ' if summary.used < summary.files else ''
  print(
    f'{args.out}: {counted(summary.rows, "embedding")} from {files}'
    f'{counted(summary.files, "file")}{remarks}'
  )
  faults = []
  if summary.problems:
    faults.append(
      f'{counted(len(summary.problems), "input")} could not be read whole, named above; '
      f'the rest is in {args.out}'
    )
  if summary.non_finite:
    faults.append(
      f'{summary.non_finite:,} of {counted(summary.rows, "embedding")} in {args.out} hold NaN or '
      'infinity'
    )
  if faults:
    raise InputError('; '.join(faults))
  return 0


def _names(text: str) -> tuple[str, ...]:
  """'a, b' -> ('a', 'b')."""
  return tuple(name.strip() for name in text.split(',') if name.strip())


def _window(text: str) -> float:
  """'5.5' -> 5.5, 'whole' -> 0."""
  if text == 'whole':
    return 0.0
  try:
    seconds = float(text)
  except ValueError:
    seconds = 0.0
  if not seconds > 0:
    raise argparse.ArgumentTypeError(f'{text} is neither seconds above 0 nor whole')
  return seconds
