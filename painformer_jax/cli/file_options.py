"""The options of commands that read files of weights."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from painformer_jax.weights.options import FileOptions


def add_arguments(
  parser: argparse.ArgumentParser, *, allow_missing: bool = True, key: str = '--key'
) -> None:
  """Adds --key, --prefix, --rename, --allow-missing and --heads.

  Args:
    parser: of the command.
    allow_missing: whether the command makes a model of the weights.
    key: name of the option --key.
  """
  group = parser.add_argument_group('files of weights')
  group.add_argument(
    key,
    dest='weights_key',
    metavar='KEY',
    help='the state dict to take of those in the file, with dots, such as state_dict or '
    'ema.module (default: the average of the weights if there is one, as timm does)',
  )
  group.add_argument(
    '--prefix',
    metavar='PREFIX',
    help="what the model's names begin with, such as model. ; other names are left out; a dot "
    'alone for nothing (default: found)',
  )
  group.add_argument(
    '--rename',
    metavar='REGEX=NAME',
    action='append',
    default=[],
    help='replace every match of REGEX in the names by NAME, before the prefix is taken off; may '
    'be given several times',
  )
  if allow_missing:
    group.add_argument(
      '--allow-missing',
      metavar='REGEX',
      help='accept arrays whose released name contains a match of REGEX although they are missing '
      'or of another shape (they get initial values) or unexpected (they are left out); ^norm4 '
      'matches names that begin with norm4. At least half of the model must be in the file',
    )
    group.add_argument(
      '--heads',
      metavar='N,N,N,N[,N]',
      type=_heads,
      help='attention heads of each stage, and after them of the class attention if it has others '
      'than the last stage; shapes do not show them (default: what the file says, or those of '
      'the preset of its shapes)',
    )


def options_of(args: argparse.Namespace) -> 'FileOptions':
  """The options that `add_arguments` added."""
  from painformer_jax.weights.options import FileOptions

  return FileOptions(
    key=args.weights_key,
    prefix=args.prefix,
    rename=tuple(args.rename),
    allow_missing=getattr(args, 'allow_missing', None),
    heads=getattr(args, 'heads', None),
  )


def _heads(text: str) -> tuple[int, ...]:
  """'2,4,10,16' -> (2, 4, 10, 16)."""
  try:
    return tuple(int(part) for part in text.split(','))
  except ValueError:
    raise argparse.ArgumentTypeError(
      f'{text!r} is no list of whole numbers such as 2,4,10,16'
    ) from None
