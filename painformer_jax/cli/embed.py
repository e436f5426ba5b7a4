"""`painformer embed`: images, folders and videos to embeddings."""

import argparse

EXAMPLE = 'painformer embed clip.mp4 photos/ --weights painformer.pth --out clip.npz'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('inputs', nargs='+', metavar='INPUT',
                      help='images, videos, or folders of them')
  parser.add_argument('--weights', required=True, metavar='W',
                      help='.pth, .safetensors, converted folder, or folder of a run')
  parser.add_argument('--out', required=True, metavar='FILE.npz',
                      help='embedding [n, 160], source, frame, time')
  parser.add_argument('--batch-size', type=int, default=16, metavar='N',
                      help='images at once (default: %(default)s)')
  parser.add_argument('--every', type=int, default=1, metavar='N',
                      help='take every Nth frame of a video (default: all)')


def run(args: argparse.Namespace) -> int:
  from painformer_jax.checkpoints.load import read_weights
  from painformer_jax.embed_files import embed_files
  from painformer_jax.errors import InputError
  from painformer_jax.models import functional
  from painformer_jax.progress import say

  if args.batch_size < 1 or args.every < 1:
    raise InputError('--batch-size and --every must be at least 1')
  stored = read_weights(args.weights)
  model = functional.from_variables(stored.config, stored.variables)
  summary = embed_files(
      model, args.inputs, args.out, batch_size=args.batch_size, every=args.every,
      description=f'{stored.source.model} {stored.source.name} {stored.source.sha256}'.strip(),
      say=say)
  print(f'{args.out}: {summary.rows} embeddings from {summary.files} files')
  if summary.problems:
    raise InputError(
        f'{len(summary.problems)} input(s) could not be read whole, named above; '
        f'the rest is in {args.out}')
  return 0
