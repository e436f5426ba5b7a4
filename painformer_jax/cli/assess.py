"""`painformer assess`: pain assessment on a dataset, compared with the literature."""

import argparse

EXAMPLE = """painformer assess --config configs/assess_biovid.py --workdir runs/biovid \\
      --config.data_dir=/data/BioVid --config.weights=painformer.pth --check"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.usage = (
    '%(prog)s --config FILE --workdir DIR [--check] [--against DIR] [--config.KEY=VALUE ...]'
  )
  parser.add_argument(
    '--config',
    required=True,
    metavar='FILE',
    help='Python file with a function get_config(); --config.KEY=VALUE replaces one of its '
    'values, such as --config.data_dir=/data/BioVid',
  )
  parser.add_argument(
    '--workdir',
    required=True,
    metavar='DIR',
    help='folder for embeddings, finished folds and results; a run that is there is resumed',
  )
  parser.add_argument(
    '--check',
    action='store_true',
    help='only check the dataset folder: list what is missing or suspicious in it, and what '
    'would be run',
  )
  parser.add_argument(
    '--against',
    metavar='DIR',
    help='--workdir of another finished run; each row of the table is tested against the row of '
    'that name there, such as a fine-tuned backbone against a frozen one',
  )
  parser.set_defaults(takes_overrides=True)


def run(args: argparse.Namespace) -> int:
  from painformer_jax.assessment.config import AssessConfig, from_config_dict
  from painformer_jax.assessment.run import assess, check
  from painformer_jax.cli.config_file import load_config
  from painformer_jax.core.memory import keep_freed_memory
  from painformer_jax.core.progress import log

  config = from_config_dict(load_config(args.config, overrides=args.overrides, kind=AssessConfig))
  if args.check:
    check(config, args.workdir, log=log, out=print)
    return 0
  keep_freed_memory()
  assess(config, args.workdir, log=log, out=print, against=args.against)
  return 0
