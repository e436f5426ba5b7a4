"""`painformer data`: fetch the demo corpus; prepare, list, check and look at datasets."""

import argparse

from painformer_jax.cli import data_actions

_MAX_IMAGE_SIZE = 4096

EXAMPLE = 'painformer data check --data-dir runs/data'

_EXAMPLES = {
  'demo': 'painformer data demo --data-dir runs/data',
  'prepare': 'painformer data prepare vggface2 --source VGGFace2 --data-dir runs/data',
  'page': 'painformer data page vggface2',
  'list': 'painformer data list --data-dir runs/data',
  'check': EXAMPLE,
  'preview': 'painformer data preview my_task --augment paper --out my_task.png',
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
  actions = _choices(parser, 'ACTION')

  demo = _action(
    actions, 'demo', data_actions.demo, 'download the demo corpus and prepare its tasks'
  )
  demo.add_argument(
    '--cache',
    metavar='DIR',
    help='folder for downloads (default: $PAINFORMER_CACHE, or painformer_jax in your cache '
    'folder)',
  )
  demo.add_argument(
    '--image-size',
    type=_image_size,
    default=96,
    metavar='N',
    help='side of the stored square images, pixels (default: %(default)s)',
  )
  _add_data_dir(demo)

  _add_readers(
    _action(actions, 'prepare', None, 'write a dataset folder as ArrayRecord files for training')
  )

  page = _action(
    actions,
    'page',
    data_actions.page,
    'show how to get a dataset, which files it has, what preparing it costs',
  )
  page.add_argument(
    'name', nargs='?', metavar='NAME', help='page, reader or task (default: list all pages)'
  )

  _add_data_dir(
    _action(
      actions,
      'list',
      data_actions.list_tasks,
      'list the prepared tasks, and which of the 14-task corpus are there; reads no record',
    )
  )

  check = _action(
    actions,
    'check',
    data_actions.check,
    'read every prepared record; report what is unreadable, mislabelled, repeated or shared '
    'by two splits',
  )
  check.add_argument('tasks', nargs='*', metavar='TASK', help='prepared tasks (default: all)')
  check.add_argument(
    '--max-leaked',
    type=float,
    default=0.0,
    metavar='X',
    help='share of a split whose images may also be in another split, which happens with '
    'photographs from the web (default: %(default)s)',
  )
  check.add_argument('--threads', type=int, metavar='N', help=_THREADS)
  _add_data_dir(check)

  preview = _action(
    actions, 'preview', data_actions.preview, 'draw a sheet of images as training sees them'
  )
  preview.add_argument('tasks', nargs='*', metavar='TASK', help='prepared tasks (default: all)')
  preview.add_argument(
    '--augment',
    metavar='POLICY',
    help='augmentation: a policy or a chain of operations (default: for tasks of the 14-task '
    'corpus that of its run, else by modality)',
  )
  preview.add_argument(
    '--images', type=int, default=4, metavar='N', help='images of each task (default: %(default)s)'
  )
  preview.add_argument(
    '--seed',
    type=int,
    default=0,
    metavar='N',
    help='seed of which images are chosen and of their augmentation (default: %(default)s)',
  )
  preview.add_argument(
    '--image-size',
    type=_image_size,
    default=224,
    metavar='N',
    help='side of the images in training, pixels (default: %(default)s)',
  )
  preview.add_argument(
    '--out',
    default='preview.png',
    metavar='FILE.png',
    help='.png or .jpg file to write, an older sheet is replaced (default: %(default)s)',
  )
  _add_data_dir(preview)


def run(args: argparse.Namespace) -> int | None:
  return args.action(args)


_THREADS = 'threads that read and decode (default: one a core)'


def _add_readers(prepare) -> None:
  from painformer_jax.data.builders.catalog import READERS

  readers = _choices(prepare, 'READER')
  for name, reader in READERS.items():
    parser = _action(
      readers,
      name,
      data_actions.prepare,
      reader.summary,
      example=(
        f'painformer data prepare {name} --source DIR --data-dir runs/data'
        + ('' if reader.task else ' --name my_task')
        + f'\n\nhow to get the data, its files, time and disk:\n'
        f'  painformer data page {reader.page}'
      ),
    )
    parser.set_defaults(reader=name)
    parser.add_argument(
      '--source',
      required=True,
      metavar='PATH',
      help="the dataset's folder" if name != 'manifest' else 'the manifest: .csv, .tsv or .parquet',
    )
    parser.add_argument(
      '--name',
      required=reader.task is None,
      default=reader.task,
      help='name of the task' + (f' (default: {reader.task})' if reader.task else ''),
    )
    for option in reader.options:
      kind = _image_size if option.name == 'image_size' else option.type
      text = option.help.replace('%', '%%')
      if option.default != '':
        text += ' (default: %(default)s)'
      parser.add_argument(
        option.flag,
        dest=option.name,
        type=kind,
        default=option.default,
        choices=option.choices,
        help=text,
        metavar=None if option.choices else {int: 'N', float: 'X'}.get(option.type, 'TEXT'),
      )
    parser.add_argument(
      '--max-unreadable',
      type=float,
      default=0.01,
      metavar='X',
      help='share of a split that may be unreadable; such images are left out (default: '
      '%(default)s)',
    )
    parser.add_argument('--threads', type=int, metavar='N', help=_THREADS)
    parser.add_argument(
      '--beam',
      nargs='?',
      const='',
      metavar='OPTIONS',
      help='write with Apache Beam; its options follow = as one text, such as '
      "--beam='--runner=FlinkRunner --flink_master=host:8081'. All workers need the source and "
      'the data folder',
    )
    _add_data_dir(parser)


def _choices(parser, metavar):
  return parser.add_subparsers(metavar=metavar, required=True)


def _action(choices, name, action, summary, *, example=None):
  parser = choices.add_parser(
    name,
    help=summary,
    description=summary[0].upper() + summary[1:] + '.',
    epilog=f'example:\n  {example or _EXAMPLES[name]}',
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  # As on `painformer data` itself, so that it may stand at the end of the line.
  parser.add_argument(
    '--traceback',
    action='store_true',
    default=argparse.SUPPRESS,
    help='on an error, also print the Python traceback',
  )
  if action:
    parser.set_defaults(action=action)
  return parser


def _add_data_dir(parser):
  parser.add_argument(
    '--data-dir',
    default='runs/data',
    metavar='DIR',
    help='folder of the prepared tasks (default: %(default)s)',
  )


def _image_size(text: str) -> int:
  try:
    value = int(text)
  except ValueError:
    value = 0
  if not 1 <= value <= _MAX_IMAGE_SIZE:
    raise argparse.ArgumentTypeError(f'{text} is not a whole number from 1 to {_MAX_IMAGE_SIZE}')
  return value
