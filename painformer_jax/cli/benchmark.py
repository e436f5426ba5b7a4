"""`painformer benchmark`: speed of the model on this machine."""

import argparse

EXAMPLE = 'painformer benchmark --model painformer_small --batch 32 --json speed.json'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('--model', default='painformer', help='preset (default: %(default)s)')
  parser.add_argument('--batch', type=int, default=8, metavar='N',
                      help='images at once (default: %(default)s)')
  parser.add_argument('--rounds', type=int, default=5, metavar='N',
                      help='runs of each variant, in turns (default: %(default)s)')
  parser.add_argument('--work', nargs='+', choices=('forward', 'train'),
                      default=['forward', 'train'], help='what to time (default: both)')
  parser.add_argument('--dtype', choices=('float32', 'bfloat16'), default='float32',
                      help='of the arithmetic (default: %(default)s)')
  parser.add_argument('--json', metavar='FILE', help='also write the figures here')


def run(args: argparse.Namespace) -> None:
  import dataclasses
  import pathlib

  from painformer_jax import benchmark
  from painformer_jax.errors import InputError
  from painformer_jax.progress import say
  from painformer_jax.training.run import environment, write_json

  if args.batch < 1 or args.rounds < 1:
    raise InputError('--batch and --rounds must be at least 1')
  if args.json and not pathlib.Path(args.json).absolute().parent.is_dir():
    raise InputError(f'--json {args.json}: there is no such folder')
  measurements = benchmark.benchmark(
      args.model, batch=args.batch, rounds=args.rounds, work=args.work, dtype=args.dtype,
      progress=say)
  where = environment()
  print(f'{args.model}, batch {args.batch}, {args.dtype}, {where["devices"]} '
        f'{where["device_kind"]} device(s), jax {where["jax"]}; ratio: speed over the '
        'first row of the same work, round by round')
  print(benchmark.table(measurements))
  if args.json:
    write_json(pathlib.Path(args.json), {
        'model': args.model, 'batch': args.batch, 'environment': where,
        'measurements': [dataclasses.asdict(m) for m in measurements]})
