"""`painformer data`: fetch the demo corpus, prepare datasets, check them."""

import argparse
import sys

_MAX_IMAGE_SIZE = 4096
_DEMO_GAP = 10  # Seconds between training and test windows of a recording.

EXAMPLE = 'painformer data check --data-dir runs/data'

_EXAMPLES = {
    'demo': 'painformer data demo --data-dir runs/data',
    'prepare': 'painformer data prepare folder --help',
    'folder': ('painformer data prepare folder --source photos '
               '--name my_task --data-dir runs/data'),
    'check': EXAMPLE,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  actions = _choices(parser, 'ACTION')

  demo = _action(
      actions, 'demo', _demo, 'fetch the demo corpus and prepare its tasks')
  demo.add_argument(
      '--cache', metavar='DIR',
      help='where downloads are kept (default: $PAINFORMER_CACHE, or '
      'painformer_jax in your cache folder)')
  _add_common(demo, image_size=96)

  prepare = _action(
      actions, 'prepare', None, 'turn a dataset folder into ArrayRecord files')
  readers = _choices(prepare, 'READER')
  folder = _action(
      readers, 'folder', _prepare_folder,
      'SOURCE/{train,test}/CLASS/*.jpg or .png, or SOURCE/CLASS/* with a part '
      'held out')
  folder.add_argument('--source', required=True, metavar='DIR')
  folder.add_argument('--name', required=True, help='name of the task')
  folder.add_argument(
      '--encoding', choices=('jpeg', 'png'), default='jpeg',
      help='how images are stored (default: %(default)s, quality 95)')
  folder.add_argument(
      '--test-fraction', type=float, default=0.2, metavar='X',
      help='share of each class held out for testing where SOURCE has no train '
      'and test folders (default: %(default)s)')
  folder.add_argument(
      '--split-seed', type=int, default=0, metavar='N',
      help='of the choice of what is held out (default: %(default)s)')
  folder.add_argument(
      '--modality', default='image', help='kind of input, such as face')
  folder.add_argument(
      '--licence', default='not stated', help='terms of the images')
  _add_common(folder, image_size=224)

  check = _action(
      actions, 'check', _check, 'read every prepared record; report what is '
      'unreadable, mislabelled, repeated or shared by two splits')
  _add_data_dir(check)


def run(args: argparse.Namespace) -> int | None:
  return args.action(args)


def _demo(args):
  from painformer_jax.data.builders.base import store
  from painformer_jax.data.demo import fetch, split, tasks
  cache = fetch.fetch(args.cache, progress=_say)
  found = tasks.demo_tasks(cache, image_size=args.image_size)
  split.check_disjoint(found, gap=_DEMO_GAP)
  _say(f'checked: what the {len(found)} demo tasks test on is apart from all that '
       f'they train on, by {_DEMO_GAP} s or more within a recording')
  for task in found:
    store(task, args.data_dir, progress=_say)


def _prepare_folder(args):
  from painformer_jax.data.builders.base import store
  from painformer_jax.data.builders.folder import folder_task
  task = folder_task(
      args.source, args.name, image_size=args.image_size,
      encoding=args.encoding, test_fraction=args.test_fraction,
      split_seed=args.split_seed, modality=args.modality, licence=args.licence,
      report=_say)
  store(task, args.data_dir, progress=_say)


def _check(args):
  from painformer_jax.data import check
  from painformer_jax.errors import InputError
  reports = check.check_tasks(args.data_dir, progress=_say)
  print(check.table(reports))
  wrong = [f'{r.task} {r.split}' for r in reports if r.problems]
  if wrong:
    raise InputError(
        f"{len(wrong)} of {len(reports)} splits are unsound: {', '.join(wrong)}")


def _say(line: str) -> None:
  print(line, file=sys.stderr, flush=True)


def _choices(parser, metavar):
  return parser.add_subparsers(metavar=metavar, required=True)


def _action(choices, name, action, summary):
  parser = choices.add_parser(
      name, help=summary, description=summary[0].upper() + summary[1:] + '.',
      epilog=f'example:\n  {_EXAMPLES[name]}',
      formatter_class=argparse.RawDescriptionHelpFormatter)
  # As on `painformer data` itself, so that it may stand at the end of the line.
  parser.add_argument(
      '--traceback', action='store_true', default=argparse.SUPPRESS,
      help='on an error, show where in the code it arose')
  if action:
    parser.set_defaults(action=action)
  return parser


def _add_common(parser, *, image_size):
  _add_data_dir(parser)
  parser.add_argument(
      '--image-size', type=_image_size, default=image_size, metavar='N',
      help='side of the stored square images, pixels, at most '
      f'{_MAX_IMAGE_SIZE} (default: %(default)s)')


def _add_data_dir(parser):
  parser.add_argument(
      '--data-dir', default='runs/data', metavar='DIR',
      help='where prepared tasks are kept (default: %(default)s)')


def _image_size(text: str) -> int:
  try:
    value = int(text)
  except ValueError:
    value = 0
  if not 1 <= value <= _MAX_IMAGE_SIZE:
    raise argparse.ArgumentTypeError(
        f'{text} is not a whole number from 1 to {_MAX_IMAGE_SIZE}')
  return value
