"""`painformer export`: weights to the released PyTorch names and layouts."""

import dataclasses
import pathlib

from painformer_jax.cli import file_options

EXAMPLE = """painformer export weights back.pth
  painformer export runs/pretrain expression.safetensors --head raf_db_basic"""


def add_arguments(parser):
  parser.add_argument(
    'weights', metavar='WEIGHTS', help='weights folder, run folder, .pth or .safetensors file'
  )
  parser.add_argument(
    'out',
    metavar='OUT',
    help='file to write; its ending, .pth, .pt or .safetensors, chooses the format; the config of '
    'the model is written with it; an older export is replaced',
  )
  parser.add_argument(
    '--head',
    metavar='TASK',
    help="write the head of that task too, as head.weight and head.bias: WEIGHTS is a run's folder",
  )
  parser.add_argument(
    '--dtype',
    choices=('float32', 'bfloat16', 'float16'),
    default='float32',
    help='type of the numbers (float32); the others halve the file and round the weights, see '
    'docs/weights.md',
  )
  file_options.add_arguments(parser)


def run(args):
  from painformer_jax.core.errors import InputError
  from painformer_jax.weights import save
  from painformer_jax.weights.load import warnings_of

  if pathlib.Path(args.out).suffix.lower() not in save.SUFFIXES:
    raise InputError(
      f'{args.out} must end in {", ".join(save.SUFFIXES)}; the ending chooses the format'
    )
  options = dataclasses.asdict(file_options.options_of(args))
  stored = save.convert(args.weights, args.out, head=args.head, dtype=args.dtype, **options)
  for line in stored.remarks:
    print(f'{args.weights}: {line}')
  for line in warnings_of(stored):
    print(f'WARNING: {args.weights}: {line}')
  classes = stored.config.num_classes
  head = f'a head of {classes:,} classes' if classes else 'no head'
  if stored.source.head:
    head += f' ({stored.source.head})'
  dtype = '' if args.dtype == 'float32' else f' in {args.dtype}'
  print(f'{args.out}: {len(stored.variables)} tensors in the released names{dtype}, {head}')
  if differing := save.differing(stored.config):
    print('the released code cannot load it, since its model has another ' + ', '.join(differing))
