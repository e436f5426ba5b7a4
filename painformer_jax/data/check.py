"""Checks prepared tasks: every record and image, duplicates, leakage between splits."""

import dataclasses
import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log, Meter
from painformer_jax.core.read_ahead import read_ahead
from painformer_jax.core.tables import aligned
from painformer_jax.data.decode import decode_strictly
from painformer_jax.data.prepared import (
  PreparedTask,
  Records,
  list_tasks,
  open_task,
  record_digest,
  split_sha256,
)

# How many keys a message lists before it says how many more there are.
NAMED = 3
# At most so many records are read for the identities that a message lists.
MAX_NAMED = 1000
# Records that a thread reads at a time.
_BLOCK = 256


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitReport:
  """What was found in one split.

  Attributes:
    task: name of the task.
    split: name of the split.
    images: number of records.
    classes: number of classes that occur.
    of_classes: number of classes of the task.
    identities: number of people (or animals, recordings) that occur, where they
      are stored.
    image_sizes: 'height x width' -> how many images have it, in pixels.
    repeats: images that equal an earlier one of the split, pixel by pixel.
    leaked: images that equal one of an earlier split.
    problems: what is wrong, one line each; empty if the split is sound.
  """

  task: str
  split: str
  images: int
  classes: int
  of_classes: int
  identities: int
  image_sizes: dict[str, int]
  repeats: int
  leaked: int
  problems: tuple[str, ...]


@dataclasses.dataclass(kw_only=True)
class _Scan:
  """What one pass over consecutive records found; hashes of 64 bits, so that millions fit."""

  pixels: np.ndarray
  keys: np.ndarray
  identities: np.ndarray
  labels: Counter
  image_sizes: Counter
  digests: bytes
  broken: list[str]


def check_tasks(
  data_dir: str | Path,
  *,
  names: Sequence[str] = (),
  progress: Log = lambda line: None,
  threads: int | None = None,
  max_leaked: float = 0.0,
) -> list[SplitReport]:
  """Checks tasks in `data_dir`, those named or all; see `check_task`.

  Raises:
    InputError: `data_dir` is no folder, holds no task or not one that is named;
      `max_leaked` is out of range.
  """
  there = list_tasks(data_dir)
  if not there:
    raise InputError(f'no prepared task in {data_dir}')
  absent = [name for name in names if name not in there]
  if absent:
    raise InputError(f"no task '{absent[0]}' in {data_dir} (there: {', '.join(there)})")
  if not 0 <= max_leaked <= 1:
    raise InputError(f'the share of leaked images, {max_leaked}, is not from 0 to 1')
  names = [name for name in there if name in names] if names else there
  reports = []
  for name in names:
    progress(f'checking {name}')
    try:
      reports += check_task(
        open_task(data_dir, name), progress=progress, threads=threads, max_leaked=max_leaked
      )
    except InputError as error:
      reports.append(
        SplitReport(
          task=name,
          split='-',
          images=0,
          classes=0,
          of_classes=0,
          identities=0,
          image_sizes={},
          repeats=0,
          leaked=0,
          problems=(str(error),),
        )
      )
  return reports


def check_task(
  task: PreparedTask,
  *,
  progress: Log = lambda line: None,
  threads: int | None = None,
  max_leaked: float = 0.0,
) -> list[SplitReport]:
  """Reads every record of a task.

  A split is unsound if a record or image cannot be read, a label is out of
  range, a key occurs twice, the records are not those that were stored, or an
  image or an identity of it is in an earlier split too. Repeats inside a split
  are counted but may be honest: two flat windows of a signal look alike.

  Args:
    task: the task.
    progress: takes lines of text to show.
    threads: that read and decode, each a block of records; by default one a core.
    max_leaked: share of a split whose images may equal one of an earlier split:
      photographs collected from the web repeat.
  """
  threads = threads or os.cpu_count() or 1
  with Meter(sum(task.sizes.values()), progress, prefix=f'{task.name}: ') as meter:
    scans = {s: _scan_split(task.records(s), threads, meter) for s in task.sizes}
  return [_report(task, split, scans, max_leaked) for split in scans]


def _scan_split(records: Records, threads: int, meter: Meter) -> _Scan:
  def read(start: int) -> list[_Scan]:
    return [_scan(records, start)]

  blocks = []
  for block in read_ahead(range(0, len(records), _BLOCK), lambda: read, threads=threads):
    meter.add(len(block.keys))
    blocks.append(block)
  return _joined(blocks)


def _scan(records: Records, start: int) -> _Scan:
  stop = min(start + _BLOCK, len(records))
  scan = _Scan(
    pixels=np.zeros(stop - start, np.uint64),
    keys=np.zeros(stop - start, np.uint64),
    identities=np.zeros(stop - start, np.uint64),
    labels=Counter(),
    image_sizes=Counter(),
    digests=b'',
    broken=[],
  )
  digests = []
  for position, i in enumerate(range(start, stop)):
    # Stands for what is broken; equal to nothing else, so that it counts as no duplicate.
    nothing = _hash64(f'{records.split} {i}'.encode())
    try:
      record = records[i]
    except InputError as error:
      scan.broken.append(str(error))
      scan.pixels[position] = scan.keys[position] = nothing
      continue
    digests.append(record_digest(**{k: record[k] for k in ('key', 'label', 'image')}))
    scan.keys[position] = _hash64(record['key'].encode())
    scan.labels[record['label']] += 1
    if record['identity']:
      scan.identities[position] = _hash64(record['identity'].encode())
    try:
      image = decode_strictly(record['image'])
    except ValueError as error:
      scan.broken.append(f"example '{record['key']}': {error}")
      scan.pixels[position] = nothing
      continue
    scan.image_sizes[f'{image.shape[0]} x {image.shape[1]}'] += 1
    scan.pixels[position] = _hash64(str(image.shape).encode() + image.tobytes())
  scan.digests = b''.join(digests)
  return scan


def _joined(parts: Sequence[_Scan]) -> _Scan:
  """The scans of a split's blocks as one."""
  return _Scan(
    pixels=np.concatenate([p.pixels for p in parts]),
    keys=np.concatenate([p.keys for p in parts]),
    identities=np.concatenate([p.identities for p in parts]),
    labels=sum((p.labels for p in parts), Counter()),
    image_sizes=sum((p.image_sizes for p in parts), Counter()),
    digests=b''.join(p.digests for p in parts),
    broken=[line for p in parts for line in p.broken],
  )


def _report(
  task: PreparedTask, split: str, scans: dict[str, _Scan], max_leaked: float
) -> SplitReport:
  scan = scans[split]
  records = task.records(split)
  problems = []

  def keys(positions):
    return [records[i]['key'] for i in positions[:NAMED]]

  def problem(what, count, examples):
    if count:
      more = f' and {count - NAMED:,} more' if count > NAMED else ''
      problems.append(f'{what}: {", ".join(map(str, examples[:NAMED]))}{more}')

  problem('unreadable', len(scan.broken), scan.broken)
  if not scan.broken and _sha256(scan.digests, task.shards[split]) != task.sha256.get(split):
    problems.append('the records are not those that were stored')
  outside = [n for n in scan.labels if not 0 <= n < len(task.classes)]
  problem(f'labels outside 0 to {len(task.classes) - 1}', len(outside), outside)
  repeated = _repeats(scan.keys)
  problem('keys that occur twice', repeated.size, keys(repeated))
  earlier = list(scans)[: list(scans).index(split)]
  leaked = (
    np.flatnonzero(np.isin(scan.pixels, np.concatenate([scans[s].pixels for s in earlier])))
    if earlier
    else np.array([], int)
  )
  share = leaked.size / max(1, len(records))
  if share > max_leaked:
    problem(
      f'leakage, images that are in {" or ".join(earlier)} too ({share:.2%} of the '
      'split; --max-leaked allows some)',
      leaked.size,
      keys(leaked),
    )
  identities = np.setdiff1d(scan.identities, [0])
  shared = (
    np.flatnonzero(
      np.isin(
        scan.identities,
        np.intersect1d(identities, np.concatenate([scans[s].identities for s in earlier])),
      )
    )
    if earlier
    else np.array([], int)
  )
  people = sorted({records[i]['identity'] for i in shared[:MAX_NAMED]})
  problem(
    f'identities that are in {" or ".join(earlier)} too',
    np.unique(scan.identities[shared]).size,
    people,
  )
  return SplitReport(
    task=task.name,
    split=split,
    images=len(records),
    classes=len(scan.labels),
    of_classes=len(task.classes),
    identities=identities.size,
    image_sizes=dict(scan.image_sizes),
    repeats=_repeats(scan.pixels).size,
    leaked=leaked.size,
    problems=tuple(problems),
  )


def table(reports: list[SplitReport]) -> str:
  """The reports as a table, with the problems below it."""
  rows = [
    ('task', 'split', 'images', 'classes', 'identities', 'size', 'repeats', 'leaked', 'verdict')
  ]
  for r in reports:
    sizes = ', '.join(r.image_sizes) if len(r.image_sizes) < 3 else (f'{len(r.image_sizes)} sizes')
    classes = f'{r.classes:,}'
    if r.classes < r.of_classes:
      classes += f' of {r.of_classes:,}'
    identities = f'{r.identities:,}' if r.identities else '-'
    rows.append(
      (
        r.task,
        r.split,
        f'{r.images:,}',
        classes,
        identities,
        sizes,
        f'{r.repeats:,}',
        f'{r.leaked:,}',
        'WRONG' if r.problems else 'ok',
      )
    )
  problems = [f'{r.task} {r.split}: {problem}' for r in reports for problem in r.problems]
  return '\n'.join(aligned(rows) + problems)


def _sha256(digests: bytes, shards: Sequence[int]) -> str:
  """SHA-256 of a split, from the digests of its records, 32 bytes each."""
  ends = np.cumsum(shards)
  return split_sha256(
    [
      hashlib.sha256(digests[32 * start : 32 * stop]).hexdigest()
      for start, stop in zip(ends - shards, ends)
    ]
  )


def _hash64(content: bytes) -> int:
  return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest())


def _repeats(hashes: np.ndarray) -> np.ndarray:
  """Positions of values that occurred before."""
  first = np.unique(hashes, return_index=True)[1]
  return np.setdiff1d(np.arange(hashes.size), first)
