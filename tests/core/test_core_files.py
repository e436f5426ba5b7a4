"""Files that are whole or absent, and targets that no file may replace."""

import os
import re
import socket
import stat
import subprocess
import sys
import threading

import pytest
from repository import environment

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import (
  is_partial,
  new_folder,
  write_atomically,
  write_json,
  write_text,
)
from painformer_jax.core.targets import FileKind, begins, check_file_target

KIND = FileKind(suffixes=('',), is_own=begins(b'our mark|old'))


def write(path, content=b'new'):
  write_atomically(path, lambda file: file.write(content))


def refusal(path) -> str:
  """What both functions say of a path that cannot be."""
  with pytest.raises(InputError) as checked:
    check_file_target(path, KIND)
  with pytest.raises(InputError) as written:
    write(path)
  for error in checked, written:
    assert str(path) in str(error.value) and '\n' not in str(error.value)
    assert 'free some space' not in str(error.value)
  return str(checked.value)


def test_a_file_is_replaced_and_links_are_followed(tmp_path):
  (tmp_path / 'file').write_bytes(b'old')
  (tmp_path / 'link').symlink_to('file')
  (tmp_path / 'dangling').symlink_to('absent')
  for name in ('link', 'dangling'):
    check_file_target(tmp_path / name, KIND)
    write(tmp_path / name)
    assert (tmp_path / name).is_symlink()
  assert (tmp_path / 'file').read_bytes() == (tmp_path / 'absent').read_bytes() == b'new'
  assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize(
  'name, message',
  [
    ('absent/x', 'there is no folder .*absent; make it first'),
    ('file/x', 'there is no folder .*file; make it first'),
    ('folder', 'is a folder; name a file'),
    ('socket', 'is a socket or a disk'),
    ('x' * 300, 'File name too long'),
    ('loop', 'Too many levels of symbolic links'),
  ],
)
def test_places_that_cannot_be(tmp_path, name, message, monkeypatch):
  (tmp_path / 'file').write_bytes(b'')
  (tmp_path / 'folder').mkdir()
  (tmp_path / 'loop').symlink_to('loop')
  monkeypatch.chdir(tmp_path)  # Names of sockets are short.
  with socket.socket(socket.AF_UNIX) as bound:
    bound.bind('socket')
    before = sorted(os.listdir(tmp_path))
    assert re.search(message, refusal(tmp_path / name))
    assert stat.S_ISSOCK(os.stat('socket').st_mode)
  assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.skipif(sys.platform != 'linux', reason='/proc takes no files, even from root')
def test_a_folder_that_takes_no_files_is_known_before_any_work():
  assert 'no file can be made in /proc (' in refusal('/proc/x')


def test_a_pipe_stays_a_pipe(tmp_path):
  pipe, found = tmp_path / 'pipe', []
  os.mkfifo(pipe)
  reader = threading.Thread(target=lambda: found.append(pipe.read_bytes()))
  reader.start()
  check_file_target(pipe, KIND)
  write(pipe, b'x' * 300_000)
  reader.join(20)
  assert found == [b'x' * 300_000]
  assert stat.S_ISFIFO(pipe.stat().st_mode) and list(tmp_path.iterdir()) == [pipe]


@pytest.mark.parametrize('minor, message', [(3, ''), (7, 'No space left on device; free some')])
def test_a_device_stays_a_device(tmp_path, minor, message):
  """Copies of /dev/null and /dev/full, which takes nothing."""
  device = tmp_path / 'device'
  try:
    os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
    device.open('rb').close()
  except OSError:
    pytest.skip('devices cannot be made here')
  check_file_target(device, KIND)
  if message:
    with pytest.raises(InputError, match=message):
      write(device)
  else:
    write(device)
  assert stat.S_ISCHR(device.stat().st_mode) and list(tmp_path.iterdir()) == [device]


@pytest.mark.parametrize('to_a_file', [True, False])
def test_standard_output_is_written_to(tmp_path, to_a_file):
  """Wherever it goes: a file that the shell has opened is not replaced."""
  script = (
    'from painformer_jax.core.files import write_atomically\n'
    'print("before")\n'
    'write_atomically("/dev/stdout", lambda file: file.write(b"content\\n"))\n'
    'print("after")\n'
  )
  with (tmp_path / 'out').open('wb') as out:
    done = subprocess.run(
      [sys.executable, '-c', script],
      stdout=out if to_a_file else subprocess.PIPE,
      stderr=subprocess.PIPE,
      env=environment(),
      check=False,
    )
  assert (done.returncode, done.stderr) == (0, b'')
  printed = (tmp_path / 'out').read_bytes() if to_a_file else done.stdout
  assert printed == b'before\ncontent\nafter\n'


def test_text_ends_in_one_line_break(tmp_path):
  write_text(tmp_path / 'text', 'über')
  write_json(tmp_path / 'json', {'b': [1], 'a': None})
  assert (tmp_path / 'text').read_bytes() == 'über\n'.encode()
  assert (tmp_path / 'json').read_text() == '{\n  "b": [\n    1\n  ],\n  "a": null\n}\n'


def test_a_folder_appears_when_it_is_complete_and_replaces_the_one_there(tmp_path):
  target = tmp_path / 'folder'
  for content in ('old', 'new'):
    with new_folder(target) as folder:
      (folder / 'file').write_text(content)
      assert is_partial(folder) and (content == 'old') != target.exists()
    assert (target / 'file').read_text() == content
  with pytest.raises(KeyError), new_folder(target) as folder:
    (folder / 'file').write_text('half')
    raise KeyError
  assert (target / 'file').read_text() == 'new' and list(tmp_path.iterdir()) == [target]
