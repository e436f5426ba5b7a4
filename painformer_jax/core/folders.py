"""The files below a folder that are wanted, and what of the others was left out."""

import dataclasses
import os
import stat
from collections import Counter
from collections.abc import Collection


@dataclasses.dataclass(frozen=True, kw_only=True)
class Listing:
  """What a folder holds.

  Attributes:
    files: sorted paths relative to the folder, with '/'.
    left_out: kind -> how many; see `left_out_line`.
    errors: what could not be opened or is no regular file; `filename` and `strerror` say
      which and why. Only of wanted files, and of folders.
  """

  files: list[str] = dataclasses.field(default_factory=list)
  left_out: Counter[str] = dataclasses.field(default_factory=Counter)
  errors: list[OSError] = dataclasses.field(default_factory=list)


def list_folder(folder: str | os.PathLike, *, suffixes: Collection[str]) -> Listing:
  """Finds files at any depth.

  Hidden files and folders (names that begin with a dot, such as the `._` files of macOS) are
  left out. A folder that is linked is entered once, and not where it is below anyway: links
  that lead back end there.

  Args:
    folder: its own name may be hidden.
    suffixes: lower-case, with the dot, of the files that are wanted; '' for all files.
  """
  listing, entered = Listing(), set()
  # Folders that are below without a link come first, so that files have their plain names.
  links = _walk(str(folder), '', tuple(suffixes), listing, entered)
  while links:
    below = links.pop(0)
    links += _walk(str(folder), below, tuple(suffixes), listing, entered)
  listing.files.sort()
  listing.errors.sort(key=lambda error: str(error.filename))
  return listing


def left_out_line(left_out: Counter[str]) -> str:
  """Such as '12 .txt, 3 hidden, 1 without a suffix'; '' for nothing."""
  return ', '.join(f'{count:,} {kind}' for kind, count in sorted(left_out.items()))


def _walk(
  root: str, below: str, suffixes: tuple[str, ...], listing: Listing, entered: set[tuple[int, int]]
) -> list[str]:
  """Adds what is below without a link; returns the folders that are linked, sorted."""
  links, waiting = [], [below]
  while waiting:
    below = waiting.pop()
    path = os.path.join(root, below) if below else root
    try:
      place = os.stat(path)
      if (place.st_dev, place.st_ino) in entered:
        continue
      entered.add((place.st_dev, place.st_ino))
      with os.scandir(path) as entries:
        for entry in entries:
          _sort(entry, below, suffixes, listing, waiting, links)
    except OSError as error:
      error.filename = path
      listing.errors.append(error)
  return sorted(links)


def _sort(
  entry: os.DirEntry,
  below: str,
  suffixes: tuple[str, ...],
  listing: Listing,
  waiting: list[str],
  links: list[str],
) -> None:
  """Puts an entry of a folder where it belongs."""
  path = f'{below}/{entry.name}' if below else entry.name
  if entry.name.startswith('.'):
    listing.left_out['hidden'] += 1
  elif entry.is_dir(follow_symlinks=False):
    waiting.append(path)
  elif entry.is_symlink() and _leads_to_folder(entry):
    links.append(path)
  elif not entry.name.lower().endswith(suffixes):
    suffix = os.path.splitext(entry.name)[1].lower()
    listing.left_out[suffix if _printable(suffix) else 'without a suffix'] += 1
  elif entry.is_file(follow_symlinks=False):
    listing.files.append(path)
  else:
    try:
      if stat.S_ISREG(os.stat(entry.path).st_mode):
        listing.files.append(path)
      else:
        listing.errors.append(OSError(0, 'no regular file', entry.path))
    except OSError as error:
      error.filename = entry.path
      listing.errors.append(error)


def _leads_to_folder(entry: os.DirEntry) -> bool:
  try:
    return entry.is_dir()
  except OSError:  # A link to itself.
    return False


def _printable(suffix: str) -> bool:
  return 1 < len(suffix) <= 12 and suffix.isascii() and suffix.isprintable()
