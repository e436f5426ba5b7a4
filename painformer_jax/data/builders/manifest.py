"""Images or signals that a table lists, as a task.

SOURCE is a table (.csv, .tsv or .parquet), or a folder with manifest.csv,
manifest.tsv or manifest.parquet. Files are relative to the table's folder.

    path         an image file; or
    signal       a .csv, .tsv, .npy, .npz or .parquet file, with
      key          array of an .npz file
      column       the channel: a column's name, or its number from 0
      row          instead: number of the row, in files with one signal a row
      rate         samples a second, Hz
      time_column  the column of times, by name or number, where it is not found by its name;
                   its times must be even and agree with the rate; none to read no times
      start, stop  seconds; the whole file where they are empty
    label        name of the class
    split        train, test, validation or other; without it, a share is held out
    identity     the person, animal or recording; never in two splits

Other columns are ignored. Signals become images as in the paper: a waveform, black on
white, or a viridis spectrogram; one task for each representation.
"""

import dataclasses
import math
from collections import Counter
from pathlib import Path
from typing import Literal, get_args

from painformer_jax.core.errors import InputError
from painformer_jax.data.builders.image_files import (
  MAX_MISSING,
  ImageReader,
  Missing,
  Report,
  StoredAs,
  check_fraction,
  hold_out,
  key_of,
  split_by,
)
from painformer_jax.data.builders.manifest_table import Listing, find_table, read_listing
from painformer_jax.data.task_source import Item, TaskSource
from painformer_jax.modalities import signal_files

Representation = Literal['waveform', 'psd', 'angle', 'phase']
REPRESENTATIONS: tuple[str, ...] = get_args(Representation)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ManifestSignals:
  """Reads the signal that an item's detail, a `signal_files.SignalSpan`, names, as an image.

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
    from painformer_jax.modalities import spectrogram, waveform

    signal = signal_files.read_span(self.root, item.detail)
    size = {'height': self.stored.image_size, 'width': self.stored.image_size}
    try:
      if self.representation == 'waveform':
        image = waveform.waveform_image(signal, waveform.WaveformConfig(**size))
      else:
        image = spectrogram.spectrogram_image(
          signal,
          item.detail.rate,
          spectrogram.SpectrogramConfig(segment=self.segment, overlap=self.segment // 2, **size),
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
  table = find_table(source)
  given = tuple(c.strip() for c in classes.split(',')) if classes else ()
  listing = read_listing(
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
      ManifestSignals(root=root, stored=stored, representation=representation, segment=segment)
      if listing.signals
      else ImageReader(root=root, stored=stored)
    ),
    checked=True,
    settings=f'{drawn}{stored}',
  )


def _split(
  table: Path, listing: Listing, *, test_fraction: float, split_seed: int
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
    label = min(labels, key=lambda number: (-labels[number], number))
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
