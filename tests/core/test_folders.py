"""What a folder holds: links, cycles, hidden files, what was left out."""

import os

from painformer_jax.core.folders import left_out_line, list_folder

WANTED = ('.png', '.jpg')


def make(root, *names):
  for name in names:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).touch()


def test_what_is_left_out_is_counted_by_kind(tmp_path):
  make(
    tmp_path, 'a.PNG', 'b/c.jpg', 'b/._c.jpg', '.DS_Store', '.git/x.jpg', 'notes.txt', 'b/n.TXT',
    'README', 'odd.jpg backup of 2024-01-01',
  )  # fmt: skip
  listing = list_folder(tmp_path, suffixes=WANTED)
  assert listing.files == ['a.PNG', 'b/c.jpg'] and listing.errors == []
  assert listing.left_out == {'.txt': 2, 'hidden': 3, 'without a suffix': 2}
  assert left_out_line(listing.left_out) == '2 .txt, 3 hidden, 2 without a suffix'
  assert list_folder(tmp_path / 'b', suffixes=('',)).files == ['c.jpg', 'n.TXT']


def test_linked_folders_are_entered_once(tmp_path):
  make(tmp_path, 'in/z/a.png', 'away/b.png', 'away/deep/c.png')
  inside = tmp_path / 'in'
  (inside / 'a_link_to_z').symlink_to('z')
  (inside / 'linked').symlink_to('../away')
  (inside / 'twice').symlink_to('../away/deep')
  (inside / 'z/up').symlink_to('..')
  (tmp_path / 'away/back').symlink_to('../in')
  (inside / 'self').symlink_to('self')
  (inside / 'file.png').symlink_to('z/a.png')
  listing = list_folder(inside, suffixes=WANTED)
  # By its plain name where it has one, else by the first link.
  assert listing.files == ['file.png', 'linked/b.png', 'linked/deep/c.png', 'z/a.png']
  assert listing.errors == []


def test_names_of_any_bytes(tmp_path):
  name = os.fsdecode(b'M\374ller.png')
  make(tmp_path, name)
  assert list_folder(tmp_path, suffixes=WANTED).files == [name]
