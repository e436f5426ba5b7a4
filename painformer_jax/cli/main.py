"""Entry point of `painformer`: picks a command, maps errors to exit statuses.

Exit status 0: done. 2: bad input or usage, one line on standard error that
begins `painformer: `. 130: interrupted. 1: anything else.
"""

import argparse
import importlib
import os
import re
import sys
import traceback
import warnings

from painformer_jax import __version__
from painformer_jax.core.errors import InputError

# Command -> what it does. The module painformer_jax.cli.<command>, '-' being '_', holds
# `EXAMPLE: str`, `add_arguments(parser)` and `run(args) -> int | None`; it
# imports JAX and the rest inside `run`, so that --help answers at once.
COMMANDS = {
  'convert': 'PyTorch weights (.pth, .safetensors) to a weights folder',
  'export': 'weights to the released PyTorch names and layouts',
  'embed': 'images, videos and signals to 160-d embeddings in an .npz',
  'data': 'fetch the demo corpus; prepare and check datasets',
  'pretrain': 'multi-task training; resumes by itself',
  'assess': 'pain assessment on BioVid or AI4Pain folders: folds, tables',
  'assess-clip': 'a trained assessor on one recording: levels over time',
  'report': 'probes, curves and one page of results for a run',
  'benchmark': 'speed of the model on this machine',
  'plan': 'memory, traffic and time of training on chips that are not there',
}


class _Parser(argparse.ArgumentParser):
  """argparse whose errors are one line beginning `painformer: `."""

  def __init__(self, **settings):
    super().__init__(**settings, allow_abbrev=False)

  def error(self, message):
    print(f'painformer: {message} (see: {self.prog} --help)', file=sys.stderr)
    sys.exit(2)


def _parser(command: str | None) -> argparse.ArgumentParser:
  parser = _Parser(prog='painformer', description='PainFormer in JAX/Flax: convert, train, embed.')
  parser.add_argument('--version', action='version', version=__version__)
  subparsers = parser.add_subparsers(dest='command', metavar='COMMAND')
  for name, summary in COMMANDS.items():
    subparser = subparsers.add_parser(
      name,
      help=summary,
      description=summary[0].upper() + summary[1:] + '.',
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparser.add_argument(
      '--traceback', action='store_true', help='on an error, show where in the code it arose'
    )
    if name == command:
      module = importlib.import_module(f'painformer_jax.cli.{name.replace("-", "_")}')
      subparser.epilog = f'example:\n  {module.EXAMPLE}'
      subparser.set_defaults(run=module.run, takes_overrides=False)
      module.add_arguments(subparser)
  return parser


def _refuse_empty(argv: list[str]) -> None:
  """No file, folder or name is '', which an unset variable of a shell leaves."""
  for previous, argument in zip(['painformer', *argv], argv):
    # An override may be empty: --config.KEY= .
    if not argument or re.fullmatch('--[^.]*=', argument):
      which = f'{argument[:-1]} is' if argument else f'the argument after {previous} is'
      raise InputError(f'{which} empty; name what is meant')


def explain(error: BaseException, *, with_traceback: bool = False) -> int:
  """Says on standard error what ended a command; returns its exit status."""
  if isinstance(error, KeyboardInterrupt):
    print('painformer: interrupted', file=sys.stderr)
    return 130
  if with_traceback or not isinstance(error, InputError):
    traceback.print_exception(error)
  if not isinstance(error, InputError):
    return 1
  print(f'painformer: {" ".join(str(error).split())}', file=sys.stderr)
  return 2


def main(argv: list[str] | None = None) -> int:
  """Runs one command; returns its exit status."""
  argv = sys.argv[1:] if argv is None else argv
  command = next((a for a in argv if not a.startswith('-')), None)
  parser = _parser(command if command in COMMANDS else None)
  args, args_overrides = parser.parse_known_args(argv)
  if args.command is None:
    parser.error('name a command')
  if args_overrides and not args.takes_overrides:
    parser.error(f'unknown argument: {args_overrides[0]}')
  args.overrides = args_overrides
  # Of images above 89 megapixels, which are read like others.
  warnings.filterwarnings('ignore', r'Image size \(\d+ pixels\) exceeds limit')
  try:
    _refuse_empty(argv)
    return args.run(args) or 0
  except (InputError, KeyboardInterrupt) as error:
    return explain(error, with_traceback=args.traceback)
  except BrokenPipeError:
    # The reader (head, less) has gone; nothing is left to tell it.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
