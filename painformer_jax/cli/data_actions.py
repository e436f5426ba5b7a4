"""What the actions of `painformer data` do."""

import argparse

# Modality -> the policy that is shown if none is named.
_POLICIES = {
  'face': 'face',
  'thermal': 'thermal',
  'waveform': 'signal',
  'fnirs': 'signal',
  'spectrogram': 'spectrogram',
}


def demo(args: argparse.Namespace) -> None:
  from painformer_jax.core.progress import log
  from painformer_jax.data.builders.base import store
  from painformer_jax.data.demo import fetch, tasks

  cache = fetch.fetch(args.cache, progress=log)
  for task in tasks.demo_tasks(cache, image_size=args.image_size):
    store(task, args.data_dir, progress=log)


def prepare(args: argparse.Namespace) -> None:
  import os
  import pathlib
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
    written, read = (
      pathlib.Path(os.path.realpath(path))
      for path in (os.path.join(args.data_dir, args.name), source)
    )
    if written.is_relative_to(read) or read.is_relative_to(written):
      raise InputError(f'{written} would be written into what is read: name another --data-dir')
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


def page(args: argparse.Namespace) -> None:
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


def list_tasks(args: argparse.Namespace) -> None:
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
    print(f'not finished; run the same command again to continue: {", ".join(unfinished)}')
  print()
  print(corpus.table(corpus.compare(tasks)))
  if damaged:
    raise damaged[0]


def check(args: argparse.Namespace) -> None:
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


def preview(args: argparse.Namespace) -> None:
  from painformer_jax.data import corpus, preview
  from painformer_jax.data.prepared import list_tasks, open_task

  tasks = args.tasks or list_tasks(args.data_dir)
  trained = {task.name: task.augment for task in corpus.CORPUS}
  augment = args.augment or {
    name: trained.get(name) or _POLICIES.get(open_task(args.data_dir, name).modality, 'none')
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
