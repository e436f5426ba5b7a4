"""`painformer pretrain`: multi-task training from a config file."""

import argparse
import contextlib

EXAMPLE = 'painformer pretrain --config configs/demo.py --workdir runs/demo --config.steps=200'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.usage = (
    '%(prog)s --config FILE --workdir DIR [--config.KEY=VALUE ...]\n'
    '       [--distributed | --coordinator HOST:PORT --processes N --process I]\n'
    '       [--peer-timeout SECONDS]'
  )
  parser.add_argument(
    '--config',
    required=True,
    metavar='FILE',
    help='Python file with a function get_config(); --config.KEY=VALUE replaces one of its '
    'values, such as --config.optimizer.learning_rate=1e-3',
  )
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='folder for checkpoints and metrics; a run that is there is resumed',
  )
  parser.add_argument(
    '--distributed',
    action='store_true',
    help='this process trains together with others; JAX finds them in what SLURM, Open MPI or '
    'a TPU pod sets up, and in what Kubernetes sets up if jax[k8s] is installed',
  )
  parser.add_argument(
    '--coordinator',
    metavar='HOST:PORT',
    help='this process trains together with others that you start yourself; the address where '
    'process 0 listens, the same for all',
  )
  parser.add_argument(
    '--processes', type=int, metavar='N', help='number of processes, with --coordinator'
  )
  parser.add_argument(
    '--process', type=int, metavar='I', help='number of this process, from 0, with --coordinator'
  )
  parser.add_argument(
    '--peer-timeout',
    type=float,
    default=60.0,
    metavar='SECONDS',
    help='without a sign of life for this long a process counts as dead, and the others end '
    '(default: %(default)g)',
  )
  parser.set_defaults(takes_overrides=True)


def run(args: argparse.Namespace) -> int:
  from painformer_jax.cli.commands import explain
  from painformer_jax.cli.config_file import load_config
  from painformer_jax.core.errors import InputError
  from painformer_jax.parallel import processes
  from painformer_jax.training.config import TrainConfig, from_config_dict
  from painformer_jax.training.loop import pretrain

  several = contextlib.nullcontext()
  if args.distributed or args.coordinator is not None:
    if args.distributed and args.coordinator is not None:
      raise InputError('--distributed finds the coordinator by itself: leave one of the two')
    if not args.peer_timeout >= 5:
      raise InputError(f'--peer-timeout is {args.peer_timeout:g}, below 5 seconds')
    several = processes.joined(
      coordinator=args.coordinator,
      count=args.processes,
      index=args.process,
      peer_timeout=args.peer_timeout,
      explain=lambda error: explain(error, with_traceback=args.traceback),
    )
  elif args.processes is not None or args.process is not None:
    raise InputError('--processes and --process need --coordinator HOST:PORT as well')
  with several:
    config = load_config(args.config, overrides=args.overrides, kind=TrainConfig)
    pretrain(from_config_dict(config), args.workdir)
  return 0
