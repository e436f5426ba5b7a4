"""Images or signals that a table lists, as a task.

SOURCE is a table (.csv, .tsv or .parquet), or a folder with manifest.csv,
manifest.tsv or manifest.parquet. Files are relative to the table's folder.

    path         an image file; or
    signal       a .csv, .tsv, .npy, .npz or .parquet file, with
      key          array of an .npz file
      column       the channel: a column's name, or its number from 0
      row          instead: number of the row, in files with one signal a row
      rate         samples a second, Hz
      start, stop  seconds; the whole file where they are empty
    label        name of the class
    split        train, test, validation or other; held out where there is none
    identity     the person, or animal, or recording; never in two splits

Other columns are passed over. Signals are drawn the paper's way: a waveform,
black on white, or a viridis spectrogram; one task for each representation.
"""

import dataclasses
import math
import os
import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

from painformer_jax.core.delimited import TableRow, read_rows
from painformer_jax.core.errors import InputError
from painformer_jax.data.builders.image_files import (
  MAX_MISSING,
  ImageReader,
  Missing,
  Report,
  StoredAs,
  check_fraction,
  find_child,
  hold_out,
  key_of,
  named,
  split_by,
)
from painformer_jax.data.task_source import Item, TaskSource
from painformer_jax.modalities import signal_files

Representation = Literal['waveform', 'psd', 'angle', 'phase']
REPRESENTATIONS: tuple[str, ...] = get_args(Representation)
_FILES = ('manifest.csv', 'manifest.tsv', 'manifest.parquet')
_IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.pgm', '.ppm')
_SPLITS = {
  'training': 'train',
  'testing': 'test',
  'val': 'validation',
  'valid': 'validation',
  'dev': 'validation',
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SignalReader:
  """Draws the signal that an item's detail, a `signal_files.Span`, names.

  Attributes:
    root: the manifest's folder.
    stored: size and encoding.
    representation: 'waveform', or the kind of spectrogram.
    segment: length of a spectrogram's segments in samples; they overlap by half.
  """

  root: str
  stored: StoredAs
  representation: Representation
  segment: int

  def __call__(self, item: Item) -> bytes:
    """Returns the encoded image.

    Raises:
      InputError: the file cannot be read, is damaged, or does not hold that signal.
    """
    # Imports scipy.
    from painformer_jax.modalities import biosignal

    signal = signal_files.read_span(self.root, item.detail)
    size = {'height': self.stored.image_size, 'width': self.stored.image_size}
    try:
      if self.representation == 'waveform':
        image = biosignal.waveform_image(signal, biosignal.WaveformConfig(**size))
      else:
        image = biosignal.spectrogram_image(
          signal,
          item.detail.rate,
          biosignal.SpectrogramConfig(segment=self.segment, overlap=self.segment // 2, **size),
          kind=self.representation,
        )
    except InputError as error:
      raise ValueError(str(error)) from error
    return self.stored.encode(image)


def manifest_task(
  source: str | Path,
  name: str,
  *,
  representation: Representation = 'waveform',
  segment: int = 256,
  rate: float = 0.0,
  classes: str = '',
  image_size: int = 224,
  short_side: int = 0,
  encoding: str = 'jpeg',
  test_fraction: float = 0.2,
  split_seed: int = 0,
  max_missing: float = MAX_MISSING,
  modality: str = '',
  licence: str = 'not stated',
  report: Report = print,
) -> TaskSource:
  """Lists what a table names.

  Args:
    source: the table, or the folder that has it.
    name: the task's name.
    representation: how signals are drawn; unused for images.
    segment: samples in a spectrogram's segment (see `biosignal`); signals must
      be as long.
    rate: Hz, for rows that state none; 0 where all do.
    classes: names in the order of the labels, separated by commas; '' for the
      names found, sorted (by value where all are whole numbers).
    image_size, short_side, encoding: see `image_files.StoredAs`; signals are
      square.
    test_fraction: share held out where the table has no split: of each class's
      identities, or of its rows where it has no identity.
    split_seed: of that choice.
    max_missing: share of the rows whose file may be missing.
    modality: kind of input, kept with the task; '' for 'image', 'waveform' or
      'spectrogram'.
    licence: terms of the data, kept with the task.
    report: takes a line for what is left out.

  Raises:
    InputError: the table is malformed (names the row), an identity is in two
      splits, too much is missing, or an option is out of range.
  """
  if representation not in REPRESENTATIONS:
    raise InputError(f"no representation '{representation}', only {', '.join(REPRESENTATIONS)}")
  if segment < 2 or not (rate >= 0 and math.isfinite(rate)):
    raise InputError(f'a segment of {segment} samples or a rate of {rate} Hz cannot be')
  check_fraction(test_fraction)
  table = _find_table(source)
  given = tuple(c.strip() for c in classes.split(',')) if classes else ()
  listing = _read_table(
    table,
    given,
    rate=rate,
    report=report,
    missing=Missing(what=table.name, folder=table.parent, limit=max_missing),
  )
  splits, how = _split(table, listing, test_fraction=test_fraction, split_seed=split_seed)
  if not listing.signals:
    representation = 'image'
  drawn = {'image': '', 'waveform': 'Drawn as waveforms. '}.get(
    representation,
    f'Drawn as spectrograms ({representation}, segments of '
    f'{segment} samples, half overlapping; reconstructed). ',
  )
  stored = StoredAs(
    image_size=image_size, short_side=0 if listing.signals else short_side, encoding=encoding
  )
  root = str(table.parent)
  return TaskSource(
    name=name,
    classes=listing.classes,
    modality=modality
    or (representation if representation in ('image', 'waveform') else 'spectrogram'),
    description=(
      f'{len(listing.items)} rows of {table.name} in {len(listing.classes)} '
      f'classes, {how}. {drawn}Images are {stored}.'
    ),
    licence=licence,
    splits=splits,
    read=(
      SignalReader(root=root, stored=stored, representation=representation, segment=segment)
      if listing.signals
      else ImageReader(root=root, stored=stored)
    ),
    checked=True,
    settings=f'{drawn}{stored}',
  )


@dataclasses.dataclass(kw_only=True)
class _Listing:
  """What a table lists.

  Attributes:
    classes: names of the classes.
    signals: whether it lists signals rather than images.
    items: one a row whose file is there; signals sorted by file.
    splits: each item's split; '' where the table has no such column.
  """

  classes: tuple[str, ...]
  signals: bool
  items: list[Item]
  splits: list[str]


def _find_table(source: str | Path) -> Path:
  source = Path(source)
  if source.is_dir():
    found = find_child(source, *_FILES)
    if found is None:
      raise InputError(f'{source} has no {", ".join(_FILES[:-1])} or {_FILES[-1]}')
    return found
  if not source.is_file():
    raise InputError(f'there is no file or folder {source}')
  return source


def _read_table(
  table: Path, given: tuple[str, ...], *, rate: float, missing: Missing, report: Report
) -> _Listing:
  found, labels = [], set()
  there, seen = {}, set()
  signals = None
  rows = 0
  for row in read_rows(table, required=('label',)):
    rows += 1
    if signals is None:
      signals = _lists_signals(row)
    label = row.required('label')
    if given and label not in given:
      raise InputError(f"{row.where}: label '{label}' is not one of the classes {', '.join(given)}")
    span = _span(row, rate) if signals else None
    file = span.file if signals else _image(row)
    key = str(span) if signals else file
    if key in seen:
      raise InputError(f"{row.where}: '{key}' is listed before")
    seen.add(key)
    split = _split_name(row) if 'split' in row.values else ''
    if file not in there:
      there[file] = os.path.isfile(os.path.join(table.parent, file))
    if not there[file]:
      missing.add(file)
      continue
    labels.add(label)
    found.append((key, sys.intern(label), sys.intern(row['identity']), span, split))
  if not rows:
    raise InputError(f'{table} has no row')
  missing.close(rows, report)
  classes = given or tuple(sorted(labels, key=_class_order(labels)))
  if len(classes) < 2:
    raise InputError(
      f"{table} has one class, '{classes[0]}', needs 2 or more"
      if classes
      else f'{table} has no row whose file is there'
    )
  unused = [c for c in given if c not in labels]
  if unused:
    report(f'{table.name}: no row of {named(unused)}')
  numbers = {label: i for i, label in enumerate(classes)}
  if signals:
    # Each file is then parsed once, whatever the order of the rows.
    found.sort(key=lambda row: row[3].file)
  return _Listing(
    classes=classes,
    signals=signals,
    splits=[row[4] for row in found],
    items=[
      Item(key=key, label=numbers[label], identity=identity, detail=span)
      for key, label, identity, span, _ in found
    ],
  )


def _lists_signals(row: TableRow) -> bool:
  """Which of the two kinds of table it is, by its columns."""
  there = {'path', 'signal'} & row.values.keys()
  if len(there) != 1:
    raise InputError(
      f"{row.where.rpartition(', row')[0]} must have one of the columns 'path' "
      f"(images) and 'signal', not {'both' if there else 'neither'}"
    )
  return 'signal' in there


def _image(row: TableRow) -> str:
  path = row.required('path').replace('\\', '/')
  _check_suffix(row, path, _IMAGES)
  return path


def _span(row: TableRow, rate: float) -> signal_files.Span:
  file = row.required('signal').replace('\\', '/')
  _check_suffix(row, file, signal_files.SUFFIXES)
  if row['row'] and row['column']:
    raise InputError(f"{row.where}: 'row' and 'column' exclude each other")
  rate = row.number_of('rate') or rate
  start, stop = row.number_of('start') or 0.0, row.number_of('stop')
  number = row.number_of('row')
  if not (rate > 0 and math.isfinite(rate)):
    raise InputError(
      f"{row.where}: the rate is {rate:g} Hz; give a 'rate' above 0 in the row, "
      'or one for all (--rate)'
    )
  if not (0 <= start < math.inf) or (stop is not None and not start < stop < math.inf):
    raise InputError(
      f'{row.where}: the span from {row["start"] or 0} to '
      f'{row["stop"] or "the end"} s is empty or begins before 0'
    )
  if number is not None and (number < 0 or number != int(number)):
    raise InputError(f"{row.where}: 'row' is {row['row']!r}, not a whole number from 0")
  return signal_files.Span(
    file=sys.intern(file),
    key=sys.intern(row['key']),
    column=sys.intern(row['column']),
    row=None if number is None else int(number),
    rate=rate,
    start=start,
    stop=stop,
  )


def _check_suffix(row: TableRow, file: str, known: tuple[str, ...]) -> None:
  if not file.lower().endswith(known):
    raise InputError(f"{row.where}: '{file}' is not of a known type ({', '.join(known)})")


def _split_name(row: TableRow) -> str:
  name = row.required('split').casefold()
  name = _SPLITS.get(name, name)
  if not re.fullmatch(r'[a-z][a-z0-9_]*', name):
    raise InputError(f"{row.where}: '{row['split']}' is no name for a split")
  return sys.intern(name)


def _class_order(labels: set[str]) -> Callable[[str], int | str]:
  """By value where every label is a whole number, else by name."""
  if all(re.fullmatch(r'-?\d+', label) for label in labels):
    return int
  return str


def _split(
  table: Path, listing: _Listing, *, test_fraction: float, split_seed: int
) -> tuple[dict[str, list[Item]], str]:
  """The items of each split, and how they were made."""
  if any(listing.splits):
    splits = {}
    for item, split in zip(listing.items, listing.splits):
      splits.setdefault(split, []).append(item)
    if 'train' not in splits:
      raise InputError(
        f"{table} has no row of the split 'train' whose file is "
        f'there, only {", ".join(sorted(splits)) or "none"}'
      )
    _check_identities(table, splits)
    order = ['train', *sorted(set(splits) - {'train'})]
    return {s: splits[s] for s in order}, 'split as the table says'
  if any(item.identity for item in listing.items):
    splits = _by_identity(listing.items, test_fraction, split_seed)
    of = 'identities'
  else:
    splits = split_by(listing.items, key_of, fraction=test_fraction, seed=split_seed)
    of = 'rows'
  if not splits['test']:
    raise InputError(
      f'{table}: each class has a single one of its {of}, so that none can be '
      "held out; add a column 'split'"
    )
  return splits, (f'{test_fraction:g} of the {of} of each class held out, by seed {split_seed}')


def _by_identity(items: list[Item], fraction: float, seed: int) -> dict[str, list[Item]]:
  """Holds out whole identities, by the class that each has most of."""
  counts = {}
  for item in items:
    # A row without an identity stands for itself.
    counts.setdefault(item.identity or item.key, Counter())[item.label] += 1
  by_class = {}
  for identity, labels in counts.items():
    label = min(labels, key=lambda l: (-labels[l], l))
    by_class.setdefault(label, []).append(identity)
  held = set()
  for of in by_class.values():
    held |= hold_out(of, fraction=fraction, seed=seed)
  splits = {'train': [], 'test': []}
  for item in items:
    splits['test' if (item.identity or item.key) in held else 'train'].append(item)
  return splits


def _check_identities(table: Path, splits: dict[str, list[Item]]) -> None:
  home = {}
  for split, items in splits.items():
    for item in items:
      if item.identity and home.setdefault(item.identity, split) != split:
        raise InputError(
          f"{table}: identity '{item.identity}' is in the splits "
          f'{home[item.identity]} and {split}; what is tested would have been '
          "trained on: mend the split, or leave the column 'identity' away"
        )
