"""Reads a manifest: the table that lists images or signals with their labels."""

import dataclasses
import math
import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

from painformer_jax.core.delimited import TableRow, read_rows
from painformer_jax.core.errors import InputError
from painformer_jax.data.builders.image_files import Missing, Report, find_child, named
from painformer_jax.data.task_source import Item
from painformer_jax.modalities import signal_files

_FILES = ('manifest.csv', 'manifest.tsv', 'manifest.parquet')
_IMAGES = ('.jpg', '.jpeg', '.png', '.bmp', '.webp', '.tif', '.tiff', '.pgm', '.ppm')
_SPLITS = {
  'training': 'train',
  'testing': 'test',
  'val': 'validation',
  'valid': 'validation',
  'dev': 'validation',
}


@dataclasses.dataclass(kw_only=True)
class Listing:
  """What a manifest lists.

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


def find_table(source: str | Path) -> Path:
  """The manifest: `source`, or the table in that folder; InputError where there is none."""
  source = Path(source)
  if source.is_dir():
    found = find_child(source, *_FILES)
    if found is None:
      raise InputError(f'{source} has no {", ".join(_FILES[:-1])} or {_FILES[-1]}')
    return found
  if not source.is_file():
    raise InputError(f'there is no file or folder {source}')
  return source


def read_listing(
  table: Path, classes: tuple[str, ...], *, rate: float, missing: Missing, report: Report
) -> Listing:
  """Reads a manifest.

  Args:
    table: the file; paths in it are relative to its folder.
    classes: names in the order of the labels; () for those found, sorted (by value where
      all are whole numbers).
    rate: samples a second of signals whose row gives no rate, Hz.
    missing: counts rows whose file is not there.
    report: takes a line for what is left out.

  Raises:
    InputError: the table is malformed (names the row), or too much is missing.
  """
  found, labels = [], set()
  there, seen = {}, set()
  signals = None
  rows = 0
  for row in read_rows(table, required=('label',)):
    rows += 1
    if signals is None:
      signals = _lists_signals(row)
    label = row.required('label')
    if classes and label not in classes:
      raise InputError(
        f"{row.where}: label '{label}' is not one of the classes {', '.join(classes)}"
      )
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
  unused = [c for c in classes if c not in labels]
  classes = classes or tuple(sorted(labels, key=_class_order(labels)))
  if len(classes) < 2:
    raise InputError(
      f"{table} has one class, '{classes[0]}', needs 2 or more"
      if classes
      else f'{table} has no row whose file is there'
    )
  if unused:
    report(f'{table.name}: no row of {named(unused)}')
  numbers = {label: i for i, label in enumerate(classes)}
  if signals:
    # Each file is then parsed once, whatever the order of the rows.
    found.sort(key=lambda row: row[3].file)
  return Listing(
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
      f"{row.file} must have one of the columns 'path' "
      f"(images) and 'signal', not {'both' if there else 'neither'}"
    )
  return 'signal' in there


def _image(row: TableRow) -> str:
  path = row.required('path').replace('\\', '/')
  _check_suffix(row, path, _IMAGES)
  return path


def _span(row: TableRow, rate: float) -> signal_files.SignalSpan:
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
  return signal_files.SignalSpan(
    file=sys.intern(file),
    key=sys.intern(row['key']),
    column=sys.intern(row['column']),
    time=sys.intern(row['time_column']),
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
