"""One ArrayRecord file of a task, written whole or not at all.

A shard is the unit of work: finished ones survive a kill, and different machines may
write different shards. NAME.json, written after NAME.array_record, says what the shard
holds.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from array_record.python import array_record_module
from tensorflow_datasets.proto import tf_example_pb2

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_json
from painformer_jax.core.read_ahead import read_ahead
from painformer_jax.data.decode import decode_strictly
from painformer_jax.data.prepared import record_digest
from painformer_jax.data.task_source import Item

# Groups of one record, so that a record can be read alone. JPEG and PNG are compressed
# already: compressing them again took most of the writing thread's time and saved nothing.
_WRITER_OPTIONS = 'group_size:1,uncompressed'
_IMAGES_AHEAD = 16  # Of each thread that reads.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
  """A part of a split that becomes one file.

  Attributes:
    split: name of the split.
    index: of the shard within the split.
    items: of the shard, in the order they are stored.
    listing: `task_source.listing_sha256` of its items.
  """

  split: str
  index: int
  items: Sequence[Item]
  listing: str

  @property
  def name(self) -> str:
    return f'{self.split}-{self.index:05}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class WrittenShard:
  """What is in a finished shard.

  Attributes:
    listing: of the items it was made from.
    records: how many images it holds.
    bytes: their size, encoded.
    sha256: of the digests of its records (key, label, image) in order.
    skipped: key -> reason, of each item that could not be read.
  """

  listing: str
  records: int
  bytes: int
  sha256: str
  skipped: Mapping[str, str]


def write_shard(
  shard: Shard,
  folder: Path,
  images: Iterable[tuple[Item, bytes | Exception]],
  *,
  wrote: Callable[[int], None] = lambda images: None,
  skip: Callable[[Item, str], None] = lambda item, reason: None,
) -> WrittenShard:
  """Writes a shard's images.

  Args:
    shard: what to write.
    folder: gets SHARD.array_record and SHARD.json.
    images: of the shard's items in order, such as from `read_images`; what could not
      be read is left out.
    wrote: called after each image, with 1.
    skip: called for each item that is left out; may raise to give up.

  Raises:
    InputError: the folder cannot be written.
  """
  target = folder / f'{shard.name}.array_record'
  # A name of its own: Beam may start a shard again while a lost worker still writes it.
  temporary = folder / f'{shard.name}.{secrets.token_hex(4)}.tmp'
  digest, records, size, skipped = hashlib.sha256(), 0, 0, {}
  with written(folder.parent):
    writer = array_record_module.ArrayRecordWriter(str(temporary), _WRITER_OPTIONS)
  try:
    for item, image in images:
      if isinstance(image, Exception):
        reason = getattr(image, 'strerror', None) or str(image) or type(image).__name__
        skip(item, reason)
        skipped[item.key] = reason
        continue
      with written(folder.parent):
        writer.write(_record(item, image))
      digest.update(record_digest(key=item.key, label=item.label, image=image))
      records += 1
      size += len(image)
      wrote(1)
    with written(folder.parent):
      writer.close()
  except BaseException:
    # A writer left open prints an error when it is garbage-collected.
    try:
      writer.close()
    except RuntimeError:
      pass
    temporary.unlink(missing_ok=True)
    raise
  result = WrittenShard(
    listing=shard.listing, records=records, bytes=size, sha256=digest.hexdigest(), skipped=skipped
  )
  with written(folder.parent):
    os.replace(temporary, target)
    write_json(folder / f'{shard.name}.json', dataclasses.asdict(result))
  return result


def finished_shard(shard: Shard, folder: Path) -> WrittenShard | None:
  """What an earlier run wrote of this shard; None if it must be written."""
  try:
    result = WrittenShard(**json.loads((folder / f'{shard.name}.json').read_text()))
  except (OSError, ValueError, TypeError):
    return None
  there = (folder / f'{shard.name}.array_record').is_file()
  return result if there and result.listing == shard.listing else None


@contextlib.contextmanager
def written(home: Path):
  """A context that turns errors of writing to a folder into InputError."""
  try:
    yield
  # ArrayRecord reports a full disk as a RuntimeError of several clauses.
  except (OSError, RuntimeError) as error:
    reason = getattr(error, 'strerror', None) or str(error).split(';')[0]
    raise InputError(
      f'{home} cannot be written: {reason}; free some space, fix its '
      'permissions or choose another data folder'
    ) from error


def _record(item: Item, image: bytes) -> bytes:
  """The record as TFDS writes it: a serialized tf.train.Example."""
  example = tf_example_pb2.Example()
  feature = example.features.feature
  feature['image'].bytes_list.value.append(image)
  feature['label'].int64_list.value.append(item.label)
  feature['key'].bytes_list.value.append(item.key.encode())
  feature['source'].bytes_list.value.append((item.source or item.key).encode())
  feature['identity'].bytes_list.value.append(item.identity.encode())
  return example.SerializeToString(deterministic=True)


def read_images(
  items: Sequence[Item], read: Callable[[Item], bytes], *, threads: int, checked: bool = False
) -> Iterator[tuple[Item, bytes | Exception]]:
  """Reads items in several threads, with every image decoded once, strictly.

  Args:
    items: what to read.
    read: reads one item.
    threads: that read, decode and encode.
    checked: whether `read` decodes them, so that it is not done here.

  Yields:
    Items in order, with their images or what is wrong with them.
  """

  def read_one(item: Item) -> list[tuple[Item, bytes | Exception]]:
    try:
      image = read(item)
      if not checked:
        decode_strictly(image)
      return [(item, image)]
    except (OSError, ValueError, InputError) as error:
      return [(item, error)]

  return read_ahead(items, lambda: read_one, threads=threads, ahead=_IMAGES_AHEAD)
