"""What may be written to: nothing that is read, nothing that this program did not write."""

import os

import pytest

from painformer_jax.core.errors import InputError
from painformer_jax.core.targets import check_file_target, check_folder_target, check_suffix

MARK = b'our mark'


def contents(folder):
  return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


@pytest.mark.parametrize(
  'content, replaceable',
  [
    (b'', True),
    (b'begins with our mark', True),
    (b'x' * 8000 + MARK, True),
    (b'x' * 9000 + MARK, False),
    (b'anything', False),
  ],
)
def test_only_own_and_empty_files_are_replaced(tmp_path, content, replaceable):
  path = tmp_path / 'out'
  path.write_bytes(content)
  if replaceable:
    assert check_file_target(path, mark=MARK) == path
  else:
    with pytest.raises(InputError, match=f'{path} exists'):
      check_file_target(path, mark=MARK)
  assert contents(tmp_path) == {path.relative_to(tmp_path): content}


@pytest.mark.parametrize('link', [None, os.link, os.symlink])
def test_an_input_is_no_target_under_any_name(tmp_path, link):
  read, out = tmp_path / 'in', tmp_path / 'out'
  read.write_bytes(MARK)
  if link:
    link(read, out)
  else:
    out = read
  with pytest.raises(InputError, match='is read as'):
    check_file_target(out, mark=MARK, inputs=[tmp_path / 'absent', read])


def test_folders(tmp_path):
  own = tmp_path / 'own'
  own.mkdir()
  assert check_folder_target(own, own=['a']) == own
  (own / 'a').mkdir()
  (own / 'a' / 'source').write_bytes(b'1')
  assert check_folder_target(own, own=['a']) == own
  for inputs in ([own], [own / 'a' / 'source'], [tmp_path / 'absent', own / 'a']):
    with pytest.raises(InputError, match='which is read'):
      check_folder_target(own, own=['a'], inputs=inputs)
  (own / 'notes.txt').write_bytes(b'2')
  with pytest.raises(InputError, match="'notes.txt'"):
    check_folder_target(own, own=['a'])
  assert len(contents(own)) == 2


def test_suffixes(tmp_path):
  check_suffix(tmp_path / 'x.NPZ', ['.npz'])
  check_suffix('/dev/stdout', ['.npz'])
  for name in ('x.csv', 'x', 'npz'):
    with pytest.raises(InputError, match='must end in .npz, .npy or .txt'):
      check_suffix(tmp_path / name, ['.npz', '.npy', '.txt'])
