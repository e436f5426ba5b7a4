"""`painformer pretrain`: multi-task training from a config file."""

import argparse

EXAMPLE = ('painformer pretrain --config configs/demo.py --workdir runs/demo '
           '--config.steps=200')


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.usage = ('%(prog)s --config FILE --workdir DIR [--distributed] '
                  '[--config.KEY=VALUE ...]')
  parser.add_argument(
      '--config', required=True, metavar='FILE',
      help='Python file with get_config(); any of its values is replaced by '
      '--config.KEY=VALUE, such as --config.optimizer.learning_rate=1e-3')
  parser.add_argument(
      '--workdir', required=True, metavar='DIR',
      help='checkpoints and metrics; a run found there goes on')
  parser.add_argument(
      '--distributed', action='store_true',
      help='this is one of several processes that train together; JAX finds the '
      'others by what SLURM, Open MPI, Kubernetes or a TPU pod sets up')
  parser.set_defaults(takes_overrides=True)


def run(args: argparse.Namespace) -> int:
  from painformer_jax.cli.config_file import load_config
  from painformer_jax.parallel.mesh import join_processes
  from painformer_jax.training.config import from_config_dict
  from painformer_jax.training.loop import pretrain

  if args.distributed:
    join_processes()
  config = from_config_dict(load_config(args.config, overrides=args.overrides))
  pretrain(config, args.workdir)
  return 0
