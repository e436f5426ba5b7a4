"""`painformer report`: what a run has learned, on one page."""

import argparse

EXAMPLE = 'painformer report runs/demo'


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('run_folder', metavar='RUN', help='--workdir of `painformer pretrain`')
  parser.add_argument(
    '-o',
    '--output',
    metavar='FILE.html',
    help='page to write, an older page is replaced (default: RUN/report.html)',
  )
  parser.add_argument(
    '--data-dir',
    metavar='DIR',
    help='folder of the prepared tasks (default: where they were during training)',
  )


def run(args: argparse.Namespace) -> int:
  from painformer_jax.core.progress import log
  from painformer_jax.report.build import make_report

  print(make_report(args.run_folder, output=args.output, data_dir=args.data_dir, log=log))
  return 0
