"""The commands of `painformer`: picks one, maps errors to exit statuses.

Exit status 0: done. 2: bad input or usage, one line on standard error that
begins `painformer: `. 130: interrupted (SIGINT), or stopped by a signal with everything
saved. 143: stopped (SIGTERM). 1: anything else; of `diff`, that something differs. Where
several processes train, JAX ends one whose peer died with -6 (134 in a shell).
"""

import argparse
import importlib
import io
import os
import re
import sys
import traceback
import warnings

from painformer_jax import __version__
from painformer_jax.checkpoints import orbax_errors
from painformer_jax.core.errors import InputError

# Command -> what it does. The module painformer_jax.cli.<command>, with '_' for '-', holds
# `EXAMPLE: str`, `add_arguments(parser)` and `run(args) -> int | None`. It imports JAX and
# the rest inside `run`, so that --help answers at once.
COMMANDS = {
  'convert': 'convert PyTorch weights (.pth, .safetensors) to a weights folder',
  'export': 'write weights as a .pth or .safetensors file with the released names',
  'inspect': 'show what a file or folder of weights holds, and whether it converts',
  'diff': 'compare two sets of weights; exit status 0 if equal, 1 if different',
  'embed': 'turn images, videos and signals into 160-d embeddings in an .npz file',
  'data': 'fetch the demo corpus; prepare, list, check and preview datasets',
  'pretrain': 'train on several tasks at once; resume a run that was stopped',
  'assess': 'train and test pain assessment on a dataset, fold by fold; print a table',
  'assess-clip': 'estimate pain over time in one recording with a trained assessor',
  'report': 'measure what a run has learned; write one page of results',
  'benchmark': 'measure the speed of the model, the data or the folds on this machine',
  'plan': 'compute memory, traffic and time of training on chips you do not have',
}

_EXAMPLE = """example:
  painformer embed clip.mp4 --weights painformer.pth --out clip.npz

'painformer COMMAND --help' explains a command and gives an example."""


class _Parser(argparse.ArgumentParser):
  """argparse whose errors are one line beginning `painformer: `."""

  def __init__(self, **settings):
    super().__init__(**settings, allow_abbrev=False)

  def error(self, message):
    print(f'painformer: {message} (see: {self.prog} --help)', file=sys.stderr)
    sys.exit(2)


def _parser(command: str | None) -> argparse.ArgumentParser:
  parser = _Parser(
    prog='painformer',
    description='PainFormer, the vision foundation model for pain assessment, in JAX/Flax.',
    epilog=_EXAMPLE,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
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
      '--traceback', action='store_true', help='on an error, also print the Python traceback'
    )
    if name == command:
      module = importlib.import_module(f'painformer_jax.cli.{name.replace("-", "_")}')
      subparser.epilog = f'example:\n  {module.EXAMPLE}'
      subparser.set_defaults(run=module.run, takes_overrides=False)
      module.add_arguments(subparser)
  return parser


def _refuse_empty(argv: list[str]) -> None:
  """Refuses empty arguments, which an unset shell variable leaves."""
  for previous, argument in zip(['painformer', *argv], argv):
    # An override may be empty: --config.KEY= .
    if not argument or re.fullmatch('--[^.]*=', argument):
      which = f'{argument[:-1]} is' if argument else f'the argument after {previous} is'
      raise InputError(f'{which} empty; name what is meant')


def explain(error: BaseException, *, with_traceback: bool = False) -> int:
  """Prints on standard error what ended a command; returns the exit status."""
  if isinstance(error, KeyboardInterrupt):
    print('painformer: interrupted', file=sys.stderr)
    return 130
  if with_traceback or not isinstance(error, InputError):
    traceback.print_exception(error)
  if not isinstance(error, InputError):
    return 1
  print(f'painformer: {" ".join(str(error).split())}', file=sys.stderr)
  return 2


def run(argv: list[str] | None) -> int:
  """Runs one command; returns its exit status.

  Args:
    argv: its arguments; None for those of this process.
  """
  argv = sys.argv[1:] if argv is None else argv
  command = next((a for a in argv if not a.startswith('-')), None)
  parser = _parser(command if command in COMMANDS else None)
  args, args_overrides = parser.parse_known_args(argv)
  if args.command is None:
    parser.error('name a command')
  if args_overrides and not args.takes_overrides:
    parser.error(f'unknown argument: {args_overrides[0]}')
  args.overrides = args_overrides
  orbax_errors.drop_log()
  # Names of files need not be UTF-8; Python holds their other bytes as surrogates.
  if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == 'strict':
    utf_8 = sys.stdout.encoding.lower().replace('-', '') == 'utf8'
    sys.stdout.reconfigure(errors='surrogateescape' if utf_8 else 'backslashreplace')
  # Pillow warns of images above 89 megapixels, which are read like others, and of odd headers.
  warnings.filterwarnings('ignore', module=r'PIL\.')
  try:
    _refuse_empty(argv)
    return args.run(args) or 0
  except (InputError, KeyboardInterrupt) as error:
    return explain(error, with_traceback=args.traceback)
  except BrokenPipeError:
    # What read the output, such as head or less, has ended.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0
