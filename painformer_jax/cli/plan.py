"""`painformer plan`: compile the training step for machines you do not have."""

import argparse
import itertools
import pathlib

EXAMPLE = """painformer plan --config configs/pretrain_painformer.py --topology v5e:16x16 \\
      --per-chip 64 --json plan.json
  painformer plan --config configs/pretrain_painformer.py --topology h100:8 \\
      --sweep per-chip=64,128 --sweep remat=none,full --plot plan.png"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.usage = (
    '%(prog)s --config FILE --topology NAME [--per-chip N] [--json FILE] '
    '[--sweep KEY=VALUE,... ...] [--config.KEY=VALUE ...]'
  )
  parser.add_argument(
    '--config',
    required=True,
    metavar='FILE',
    help='config file of `painformer pretrain`; its data and weights are not needed',
  )
  parser.add_argument(
    '--topology',
    metavar='NAME',
    help='the chips: v5e:16x16, v6e:4x4, v5p:4x4x8, "2*v5e:4x4" (two slices), h100:16, or '
    'cpu:8 (8 devices simulated by this CPU, to look at the program)',
  )
  parser.add_argument(
    '--per-chip',
    type=int,
    metavar='N',
    help='images a chip: the whole batch is this times the number of chips, divided among the '
    'tasks as config.shares says',
  )
  parser.add_argument(
    '--classes',
    action='append',
    default=[],
    metavar='TASK=N',
    help='number of classes of a task that is neither prepared nor part of the corpus',
  )
  parser.add_argument(
    '--epochs', type=float, default=200, metavar='E', help='epochs of a run (default: %(default)g)'
  )
  parser.add_argument(
    '--samples',
    type=int,
    metavar='N',
    help='images of an epoch (default: 10.9 million, the published corpus)',
  )
  parser.add_argument(
    '--sweep',
    action='append',
    default=[],
    metavar='KEY=A,B,...',
    help='compile every combination of these values, minutes each; KEY is topology, per-chip '
    'or a key of the config, such as model.gate, remat or sharding.state',
  )
  parser.add_argument(
    '--json',
    metavar='FILE.json',
    help='also write all figures to this file; older figures are replaced',
  )
  parser.add_argument(
    '--plot',
    metavar='FILE',
    help='also draw time and memory as .png, .pdf or .svg (extra demo); an older plot is replaced',
  )
  parser.set_defaults(takes_overrides=True)


def run(args: argparse.Namespace) -> int:
  from painformer_jax.core.errors import InputError, import_extra
  from painformer_jax.core.files import write_atomically, write_json
  from painformer_jax.core.progress import log
  from painformer_jax.core.targets import check_file_target, json_fields, json_kind
  from painformer_jax.data.corpus import PUBLISHED_SAMPLES
  from painformer_jax.parallel.topology import check_compiler, parse_topology
  from painformer_jax.planning import picture, text
  from painformer_jax.planning.plan import run_apart
  from painformer_jax.planning.result import Plan

  if args.json:
    check_file_target(args.json, json_kind('plan'))
  if args.plot:
    import_extra('matplotlib', extra='demo')
    check_file_target(args.plot, picture.KIND)
  if args.epochs <= 0 or (args.samples is not None and args.samples < 1):
    raise InputError('--epochs and --samples are above 0')
  points = _points(args.sweep)
  requests = [_request(args, point) for point in points]
  for request in requests:  # Everything that can be wrong, before the first compilation.
    check_compiler(parse_topology(request.topology))
  plans, failures = [], []
  for number, (point, request) in enumerate(zip(points, requests), start=1):
    setting = ', '.join(f'{k} {v}' for k, v in point.items())
    log(
      f'compiles {number} of {len(points)} for {request.topology}'
      + (f': {setting}' if setting else '')
    )
    try:
      program = run_apart(request)
    except InputError as error:  # The others of a sweep may have taken hours.
      if len(points) == 1:
        raise
      failures.append(f'{setting}: {error}')
      log(failures[-1])
      continue
    plans.append(
      Plan(
        program=program,
        settings=point,
        epochs=args.epochs,
        samples=args.samples or PUBLISHED_SAMPLES,
      )
    )
  if not plans:
    raise InputError(failures[0])
  print(text.table(plans) if args.sweep else text.describe(plans[0]))
  if args.json:
    records = [{**json_fields('plan'), **plan.record()} for plan in plans]
    write_json(args.json, records if args.sweep else records[0])
  if args.plot:
    kind = pathlib.Path(args.plot).suffix[1:].lower()
    write_atomically(args.plot, lambda file: picture.draw(plans, file, kind=kind))
  if failures:
    raise InputError(f'{len(failures)} of {len(points)} did not compile; {failures[0]}')
  return 0


def _points(sweeps) -> list[dict[str, str]]:
  """Every combination of the swept values; one without settings for no sweep."""
  from painformer_jax.core.errors import InputError

  axes = {}
  for sweep in sweeps:
    key, _, values = sweep.partition('=')
    key = key.removeprefix('config.')
    values = [value.strip() for value in values.split(',')]
    if not key or not all(values):
      raise InputError(f'--sweep {sweep}: write it as KEY=A,B, such as model.gate=fft,dft')
    if key in axes:
      raise InputError(f'--sweep {key} is given twice')
    axes[key] = values
  return [dict(zip(axes, values)) for values in itertools.product(*axes.values())]


def _request(args: argparse.Namespace, point: dict[str, str]):
  """One compilation, checked as far as that can be done without the compiler."""
  from painformer_jax.cli.config_file import load_config
  from painformer_jax.core.errors import InputError
  from painformer_jax.parallel.topology import parse_topology
  from painformer_jax.planning.plan import Request
  from painformer_jax.planning.tasks import task_sizes
  from painformer_jax.training.config import TrainConfig, from_config_dict

  point = dict(point)
  name, per_chip = point.pop('topology', args.topology), point.pop('per-chip', args.per_chip)
  if not name:
    raise InputError('name a --topology, such as v5e:16x16')
  topology = parse_topology(name)
  overrides = [*args.overrides, *(f'--config.{key}={value}' for key, value in point.items())]
  fields = load_config(args.config, overrides=overrides, kind=TrainConfig).to_dict()
  if per_chip is not None:
    if not str(per_chip).isdecimal() or int(per_chip) < 1:
      raise InputError(f'--per-chip {per_chip} is not a number above 0')
    fields['batch_size'] = int(per_chip) * topology.chips
    fields['batch_size_multiple'] = topology.chips * fields['grad_accum_steps']
    for task in fields['tasks'].values():
      task['batch_size'] = 0
  config = from_config_dict(fields)
  classes, sizes = task_sizes(config, explicit=args.classes)
  for task, size in config.with_batch_sizes(sizes).batch_sizes.items():
    if size % (topology.chips * config.grad_accum_steps):
      parts = f' and {config.grad_accum_steps} microbatches' if config.grad_accum_steps > 1 else ''
      raise InputError(
        f'task {task} has a batch size of {size}, which does not split over {topology.chips} '
        f'chips{parts}: name --per-chip N, or another batch size'
      )
  return Request(config=fields, classes=classes, sizes=sizes, topology=name)
