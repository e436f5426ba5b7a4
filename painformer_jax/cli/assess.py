"""`painformer assess`: a dataset folder to a table beside the literature."""

import argparse

EXAMPLE = (
  'painformer assess --config configs/assess_biovid.py --workdir runs/biovid '
  '--config.data_dir=/data/BioVid --config.weights=painformer.pth --check'
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.usage = (
    '%(prog)s --config FILE --workdir DIR [--check] [--against DIR] [--config.KEY=VALUE ...]'
  )
  parser.add_argument(
    '--config',
    required=True,
    metavar='FILE',
    help='Python file with get_config(); any of its values is replaced by '
    '--config.KEY=VALUE, such as --config.data_dir=/data/BioVid',
  )
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='embeddings, finished folds and results; a run found there goes on',
  )
  parser.add_argument(
    '--check',
    action='store_true',
    help='only list what is missing or odd in the dataset folder, and what would be run',
  )
  parser.add_argument(
    '--against',
    metavar='DIR',
    help='folder of another finished run: each row is tested against its row of the same '
    'name, such as a fine-tuned backbone against a frozen one',
  )
  parser.set_defaults(takes_overrides=True)


def run(args: argparse.Namespace) -> int:
  from painformer_jax.assessment import run as assessment
  from painformer_jax.assessment.config import AssessConfig, from_config_dict
  from painformer_jax.cli.config_file import load_config
  from painformer_jax.core.errors import InputError
  from painformer_jax.core.memory import keep_freed_memory
  from painformer_jax.core.progress import log

  config = from_config_dict(load_config(args.config, overrides=args.overrides, kind=AssessConfig))
  if args.check:
    findings = assessment.check(config, args.workdir, log=log, out=print)
    if findings:
      raise InputError(f'{findings} finding{"s" if findings > 1 else ""}, listed above')
    return 0
  keep_freed_memory()
  assessment.assess(config, args.workdir, log=log, out=print, against=args.against)
  return 0
