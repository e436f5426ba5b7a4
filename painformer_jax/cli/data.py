"""`painformer data`: fetch the demo corpus; prepare, list, check and look at datasets."""

import argparse

_MAX_IMAGE_SIZE = 4096
_DEMO_GAP = 10  # Seconds between training and test windows of a recording.

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

  demo = _action(actions, 'demo', _demo, 'fetch the demo corpus and prepare its tasks')
  demo.add_argument(
    '--cache',
    metavar='DIR',
    help='where downloads are kept (default: $PAINFORMER_CACHE, or '
    'painformer_jax in your cache folder)',
  )
  demo.add_argument(
    '--image-size',
    type=_image_size,
    default=96,
    metavar='N',
    help='side of the stored square images, pixels (default: %(default)s)',
  )
  _add_data_dir(demo)

  _add_readers(_action(actions, 'prepare', None, 'turn a dataset folder into ArrayRecord files'))

  page = _action(
    actions, 'page', _page, 'how to get a dataset, how it must lie, what preparing it costs'
  )
  page.add_argument(
    'name',
    nargs='?',
    metavar='NAME',
    help='a page, reader or task; all pages are listed without it',
  )

  _add_data_dir(
    _action(
      actions,
      'list',
      _list,
      'what is prepared, and what is there of the 14-task corpus; no record is read',
    )
  )

  check = _action(
    actions,
    'check',
    _check,
    'read every prepared record; report what is '
    'unreadable, mislabelled, repeated or shared by two splits, and what is there '
    'of the 14-task corpus',
  )
  check.add_argument('tasks', nargs='*', metavar='TASK', help='prepared tasks (default: all)')
  check.add_argument(
    '--max-leaked',
    type=float,
    default=0.0,
    metavar='X',
    help="share of a split whose images may equal another split's, as "
    'photographs from the web do (default: %(default)s)',
  )
  check.add_argument('--threads', type=int, metavar='N', help=_THREADS)
  _add_data_dir(check)

  preview = _action(actions, 'preview', _preview, 'draw a sheet of images as training sees them')
  preview.add_argument('tasks', nargs='*', metavar='TASK', help='prepared tasks (default: all)')
  preview.add_argument(
    '--augment',
    metavar='POLICY',
    help="policy or chain of operations (default: the 14-task run's for "
    'tasks of that corpus, else by modality)',
  )
  preview.add_argument(
    '--images', type=int, default=4, metavar='N', help='images of each task (default: %(default)s)'
  )
  preview.add_argument(
    '--seed', type=int, default=0, metavar='N', help='of the choice and the augmentation'
  )
  preview.add_argument(
    '--image-size',
    type=_image_size,
    default=224,
    metavar='N',
    help='side of the images in training, pixels (default: %(default)s)',
  )
  preview.add_argument(
    '--out', default='preview.png', metavar='FILE.png', help='.png or .jpg (default: %(default)s)'
  )
  _add_data_dir(preview)


def run(args: argparse.Namespace) -> int | None:
  return args.action(args)


# Policies shown where none is named.
_USUAL = {
  'face': 'face',
  'thermal': 'thermal',
  'waveform': 'signal',
  'fnirs': 'signal',
  'spectrogram': 'spectrogram',
}

_THREADS = 'that read and decode (default: one a core)'


def _add_readers(prepare) -> None:
  from painformer_jax.data.builders.catalog import READERS

  readers = _choices(prepare, 'READER')
  for name, reader in READERS.items():
    parser = _action(
      readers,
      name,
      _prepare,
      reader.summary,
      example=(
        f'painformer data prepare {name} --source DIR --data-dir runs/data'
        + ('' if reader.task else ' --name my_task')
        + f'\n\nhow to get the data, expected tree, time and disk:\n'
        f'  painformer data page {reader.page}'
      ),
    )
    parser.set_defaults(reader=name)
    parser.add_argument(
      '--source',
      required=True,
      metavar='PATH',
      help="the dataset's folder" if name != 'manifest' else 'the list: .csv, .tsv or .parquet',
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
      help='share of a split that may be unreadable and is left out (default: %(default)s)',
    )
    parser.add_argument('--threads', type=int, metavar='N', help=_THREADS)
    parser.add_argument(
      '--beam',
      nargs='?',
      const='',
      metavar='OPTIONS',
      help='write shards with Apache Beam, with its options in one text after =, such as '
      "--beam='--runner=FlinkRunner --flink_master=host:8081'; source and data folder "
      'must be shared by all workers',
    )
    _add_data_dir(parser)


def _demo(args):
  from painformer_jax.core.progress import log
  from painformer_jax.data.builders.base import store
  from painformer_jax.data.demo import fetch, split, tasks

  cache = fetch.fetch(args.cache, progress=log)
  found = tasks.demo_tasks(cache, image_size=args.image_size)
  split.check_disjoint(found, gap=_DEMO_GAP)
  log(
    f'checked: what the {len(found)} demo tasks test on is apart from all that '
    f'they train on, by {_DEMO_GAP} s or more within a recording'
  )
  for task in found:
    store(task, args.data_dir, progress=log)


def _prepare(args):
  import os
  import shlex

  from painformer_jax.core.errors import InputError
  from painformer_jax.core.progress import log, waiting
  from painformer_jax.data.augment.modalities import MODALITIES
  from painformer_jax.data.builders.base import check_settings, store
  from painformer_jax.data.builders.beam import store_with_beam
  from painformer_jax.data.builders.catalog import READERS

  reader = READERS[args.reader]
  if args.threads is not None and args.threads < 1:
    raise InputError('--threads must be at least 1')
  check_settings(args.name, max_unreadable=args.max_unreadable)
  source = args.source
  if os.path.exists(source):
    log(f'{args.name}: lists {source}')
    # Workers of Beam may be in another folder.
    source = source if args.beam is None else os.path.abspath(source)
  with waiting(f'{args.name}: lists {source}', log):
    task = reader.build(
      source,
      name=args.name,
      report=log,
      **{option.name: getattr(args, option.name) for option in reader.options},
    )
  if task.modality not in (*MODALITIES, 'face', 'image'):
    log(
      f"{args.name}: modality '{task.modality}' is augmented as any image; with rules of "
      f'their own: {", ".join(MODALITIES)}'
    )
  settings = dict(progress=log, max_unreadable=args.max_unreadable)
  if args.beam is None:
    store(task, args.data_dir, threads=args.threads, **settings)
  else:
    store_with_beam(
      task, args.data_dir, options=shlex.split(args.beam), threads=args.threads or 1, **settings
    )


def _page(args):
  from painformer_jax.core.errors import InputError
  from painformer_jax.core.tables import aligned
  from painformer_jax.data.builders.catalog import PAGES, READERS
  from painformer_jax.data.corpus import CORPUS

  pages = {path.stem: path for path in sorted(PAGES.glob('*.md'))}
  # Readers and tasks have pages too.
  names = (
    {reader: row.page for reader, row in READERS.items()}
    | {task.name: task.page for task in CORPUS}
    | {name: name for name in pages}
  )
  if args.name is None:
    titles = [(name, path.read_text().splitlines()[0].lstrip('# ')) for name, path in pages.items()]
    print('\n'.join(aligned(titles)))
  elif args.name in names:
    print(pages[names[args.name]].read_text(), end='')
  else:
    raise InputError(f"no page '{args.name}', only {', '.join(pages)}")


def _list(args):
  from painformer_jax.core.errors import InputError
  from painformer_jax.data import corpus, prepared

  names = prepared.list_tasks(args.data_dir)
  unfinished = prepared.unfinished_tasks(args.data_dir)
  if not names and not unfinished:
    raise InputError(f'no prepared task in {args.data_dir}; {prepared.HOW_TO_PREPARE}')
  tasks, damaged = {}, []
  for name in names:
    try:
      tasks[name] = prepared.open_task(args.data_dir, name)
    except InputError as error:
      damaged.append(error)
  print(prepared.table(list(tasks.values())))
  if unfinished:
    print(f'not finished, the same command goes on: {", ".join(unfinished)}')
  print()
  print(corpus.table(corpus.compare(tasks)))
  if damaged:
    raise damaged[0]


def _check(args):
  from painformer_jax.core.errors import InputError
  from painformer_jax.core.progress import log
  from painformer_jax.data import check, corpus
  from painformer_jax.data.prepared import list_tasks, open_task

  if args.threads is not None and args.threads < 1:
    raise InputError('--threads must be at least 1')
  reports = check.check_tasks(
    args.data_dir, names=args.tasks, progress=log, threads=args.threads, max_leaked=args.max_leaked
  )
  print(check.table(reports))
  unopened = {r.task for r in reports if r.split == '-'}
  names = {task.name for task in corpus.CORPUS} & set(list_tasks(args.data_dir)) - unopened
  if names:
    print()
    print(corpus.table(corpus.compare({name: open_task(args.data_dir, name) for name in names})))
  wrong = [f'{r.task} {r.split}' for r in reports if r.problems]
  if wrong:
    raise InputError(f'{len(wrong)} of {len(reports)} splits are unsound: {", ".join(wrong)}')


def _preview(args):
  from painformer_jax.data import corpus, preview
  from painformer_jax.data.prepared import list_tasks, open_task

  tasks = args.tasks or list_tasks(args.data_dir)
  trained = {task.name: task.augment for task in corpus.CORPUS}
  augment = args.augment or {
    name: trained.get(name) or _USUAL.get(open_task(args.data_dir, name).modality, 'none')
    for name in tasks
  }
  preview.write_contact_sheet(
    args.out,
    args.data_dir,
    tasks,
    augment=augment,
    images=args.images,
    seed=args.seed,
    image_size=args.image_size,
  )
  print(args.out)


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
    help='on an error, show where in the code it arose',
  )
  if action:
    parser.set_defaults(action=action)
  return parser


def _add_data_dir(parser):
  parser.add_argument(
    '--data-dir',
    default='runs/data',
    metavar='DIR',
    help='where prepared tasks are kept (default: %(default)s)',
  )


def _image_size(text: str) -> int:
  try:
    value = int(text)
  except ValueError:
    value = 0
  if not 1 <= value <= _MAX_IMAGE_SIZE:
    raise argparse.ArgumentTypeError(f'{text} is not a whole number from 1 to {_MAX_IMAGE_SIZE}')
  return value
