"""`painformer benchmark`: speed of the model, the data or the folds on this machine."""

import argparse

EXAMPLE = """painformer benchmark --model painformer_small --batch 32 --json speed.json
  painformer benchmark data --json data.json
  painformer benchmark data --records 10000 1000000 10900000
  painformer benchmark folds --model mixer_laptop"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'what',
    nargs='?',
    choices=tuple(_RUN),
    default='model',
    help='model: forward passes and training steps; data: reading, decoding and augmenting '
    'images; folds: training all folds at once, compared with PyTorch (default: model)',
  )
  parser.add_argument(
    '--json',
    metavar='FILE.json',
    help='also write the figures to this file; older figures are replaced',
  )
  parser.add_argument(
    '--rounds',
    type=int,
    default=5,
    metavar='N',
    help='how often each variant runs; variants take turns (default: %(default)s)',
  )
  parser.add_argument(
    '--batch',
    type=int,
    metavar='N',
    help='batch size of model (default: 8) and folds (default: 32)',
  )
  parser.add_argument(
    '--model',
    metavar='NAME',
    help='preset of model (default: painformer) and folds (default: mixer_laptop)',
  )

  model = parser.add_argument_group('model')
  model.add_argument(
    '--work',
    nargs='+',
    choices=('forward', 'train'),
    default=['forward', 'train'],
    help='what to time (default: both)',
  )
  model.add_argument(
    '--dtype',
    choices=('float32', 'bfloat16'),
    default='float32',
    help='dtype that is computed in (default: %(default)s)',
  )

  data = parser.add_argument_group('data')
  data.add_argument(
    '--data-dir',
    metavar='DIR',
    help='folder of a prepared task (default: crops of a photograph are prepared and timed)',
  )
  data.add_argument('--task', metavar='NAME', help='task in --data-dir')
  data.add_argument(
    '--image-size',
    type=int,
    default=224,
    metavar='N',
    help='side of the images, pixels (default: %(default)s)',
  )
  data.add_argument(
    '--threads', type=int, metavar='N', help='threads that read (default: one a core)'
  )
  data.add_argument(
    '--workers',
    type=int,
    default=0,
    metavar='N',
    help='make batches in this many processes instead of threads',
  )
  data.add_argument(
    '--batches',
    type=int,
    default=40,
    metavar='N',
    help='batches of 32 images in a round (default: %(default)s)',
  )
  data.add_argument(
    '--memory-minutes',
    type=float,
    default=0.0,
    metavar='X',
    help='also watch the memory for this many minutes',
  )
  data.add_argument(
    '--records',
    type=int,
    nargs='+',
    metavar='N',
    help='measure corpora of this many tiny records instead',
  )
  data.add_argument(
    '--scratch',
    metavar='DIR',
    help='folder where these corpora are kept, 230 bytes a record (default: a temporary one)',
  )

  folds = parser.add_argument_group('folds')
  folds.add_argument(
    '--folds', type=int, default=87, metavar='N', help='number of folds (default: %(default)s)'
  )
  folds.add_argument(
    '--tokens',
    type=int,
    default=1,
    metavar='N',
    help='embeddings of a sample (default: %(default)s)',
  )
  folds.add_argument(
    '--steps',
    type=int,
    default=4,
    metavar='N',
    help='training steps of each fold in a round (default: %(default)s)',
  )


def run(args: argparse.Namespace) -> None:
  from painformer_jax.core.errors import InputError
  from painformer_jax.core.files import write_json
  from painformer_jax.core.targets import check_file_target, json_fields, json_kind
  from painformer_jax.training.run import environment

  if args.json:
    check_file_target(args.json, json_kind('benchmark'))
  if args.rounds < 1 or (args.batch is not None and args.batch < 1):
    raise InputError('--batch and --rounds must be at least 1')
  where = environment()
  figures = _RUN[args.what](args, where)
  if args.json:
    write_json(args.json, {**json_fields('benchmark'), 'environment': where, **figures})


def _model(args, where) -> dict:
  import dataclasses

  from painformer_jax.benchmarks.model import benchmark, table
  from painformer_jax.core.progress import log

  model, batch = args.model or 'painformer', args.batch or 8
  measurements = benchmark(
    model, batch=batch, rounds=args.rounds, work=args.work, dtype=args.dtype, progress=log
  )
  print(
    f'{model}, batch {batch}, {args.dtype}, {where["devices"]} '
    f'{where["device_kind"]} device(s), jax {where["jax"]}; ratio: of the speed '
    'to that of the first row of the same work, median over rounds'
  )
  print(table(measurements))
  return {
    'model': model,
    'batch': batch,
    'measurements': [dataclasses.asdict(m) for m in measurements],
  }


def _data(args, where) -> dict:
  import dataclasses
  import os

  from painformer_jax.benchmarks import data, scale
  from painformer_jax.core.errors import InputError
  from painformer_jax.core.files import temporary_folder
  from painformer_jax.core.progress import log
  from painformer_jax.data.builders.base import store

  if args.records:
    rows = scale.scale(args.records, folder=args.scratch, progress=log)
    print(scale.table(rows))
    return {'scale': [dataclasses.asdict(row) for row in rows]}
  if bool(args.data_dir) != bool(args.task):
    raise InputError('--data-dir and --task go together')
  if args.batches < 1 or args.image_size < 1 or args.workers < 0 or not args.memory_minutes >= 0:
    raise InputError(
      '--batches and --image-size must be at least 1, --workers and --memory-minutes at least 0'
    )
  threads = args.threads or args.workers or os.cpu_count() or 1
  with temporary_folder() as scratch:
    data_dir, task = args.data_dir, args.task
    if task is None:
      data_dir, task = scratch, 'photo_crops'
      store(data.photo_task(4096, args.image_size), scratch, progress=log)
    settings = dict(image_size=args.image_size, threads=threads, progress=log)
    stages = data.stages(
      data_dir, task, batches=args.batches, rounds=args.rounds, workers=args.workers, **settings
    )
    made_by = f', pipeline in {args.workers} process(es)' if args.workers else ''
    print(
      f'{task}, {args.image_size} pixels, {threads} thread(s) of '
      f'{where["cpu_cores"]} cores{made_by}, median of {args.rounds} rounds'
    )
    print(data.table(stages))
    figures = {'stages': [dataclasses.asdict(stage) for stage in stages]}
    if args.memory_minutes:
      memory = data.memory(data_dir, task, seconds=60 * args.memory_minutes, **settings)
      print(
        f'memory: {memory.early:.0f} MiB after a tenth of {memory.seconds:.0f} s, at most '
        f'{memory.largest:.0f} MiB later ({memory.images:,} images)'
      )
      figures['memory'] = dataclasses.asdict(memory)
  return figures


def _folds(args, where) -> dict:
  del where
  from painformer_jax.benchmarks import folds
  from painformer_jax.core.memory import keep_freed_memory
  from painformer_jax.core.progress import log

  keep_freed_memory()
  result = folds.run(
    model=args.model or 'mixer_laptop',
    folds=args.folds,
    batch=args.batch or 32,
    tokens=args.tokens,
    steps=args.steps,
    rounds=args.rounds,
    progress=log,
  )
  print(folds.table(result))
  return result


_RUN = {'model': _model, 'data': _data, 'folds': _folds}
