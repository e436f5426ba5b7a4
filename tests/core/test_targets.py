"""What may be written to: nothing that is read, nothing that this program did not write."""

import io
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from repository import ROOT

from painformer_jax.assessment.clips import curve
from painformer_jax.core.errors import InputError
from painformer_jax.core.targets import (
  FileKind,
  begins,
  check_file_target,
  check_folder_target,
  check_lies_apart,
  check_suffix,
  json_fields,
  json_kind,
)
from painformer_jax.embedding.reader import LocatedImage
from painformer_jax.embedding.writer import EmbeddingWriter
from painformer_jax.modalities import canvas
from painformer_jax.planning import picture
from painformer_jax.report import build
from painformer_jax.weights import folder as weights

KIND = FileKind(suffixes=('.out',), is_own=begins(b'our mark'))


def contents(folder):
  return {p.relative_to(folder): p.read_bytes() for p in folder.rglob('*') if p.is_file()}


def refused(path, kind, content: bytes) -> bool:
  path.write_bytes(content)
  try:
    check_file_target(path, kind)
  except InputError as error:
    assert str(path) in str(error)
    assert path.read_bytes() == content
    return True
  return False


@pytest.mark.parametrize(
  'content, replaceable',
  [
    (b'', True),
    (b'our mark and more', True),
    (b'begins without our mark', False),
    (b'anything', False),
  ],
)
def test_only_own_and_empty_files_are_replaced(tmp_path, content, replaceable):
  assert refused(tmp_path / 'x.out', KIND, content) == (not replaceable)


def test_a_reader_that_fails_knows_no_file_of_its_own(tmp_path):
  kind = FileKind(suffixes=('.out',), is_own=lambda file: 1 / 0)
  assert refused(tmp_path / 'x.out', kind, b'1') and not refused(tmp_path / 'x.out', kind, b'')


def test_json_of_another_command_is_no_older_result(tmp_path):
  path, plan = tmp_path / 'x.json', json_kind('plan')
  for written in (json_fields('plan'), [json_fields('plan')] * 2, json_fields('plan') | {'a': 1}):
    for indent in (None, 2):
      assert not refused(path, plan, json.dumps(written, indent=indent).encode())
  package = {'name': 'my-app', 'dependencies': json_fields('plan')}
  for other in (json_fields('benchmark'), package, {'painformer_jax': '0.1.0'}, 5):
    assert refused(path, plan, json.dumps(other).encode())


def test_pictures_that_only_speak_of_this_package(tmp_path):
  """Photos with a comment, drawings with a title."""
  comment, software = PngImagePlugin.PngInfo(), PngImagePlugin.PngInfo()
  comment.add_text('Comment', 'Figure 3 of our painformer_jax paper')
  software.add_text('Software', 'painformer_jax')
  for info, own in ((comment, False), (software, True)):
    file = io.BytesIO()
    Image.new('RGB', (4, 4)).save(file, 'png', pnginfo=info)
    assert refused(tmp_path / 'x.png', canvas.KIND, file.getvalue()) != own
  for said, own in (('by painformer_jax', False), ('painformer_jax', True)):
    file = io.BytesIO()
    Image.new('RGB', (4, 4)).save(file, 'jpeg', comment=said)
    assert refused(tmp_path / 'x.jpg', canvas.KIND, file.getvalue()) != own
  drawing = (ROOT / 'docs' / 'data-flow.svg').read_bytes()
  assert refused(tmp_path / 'x.svg', picture.KIND, drawing)


@pytest.mark.parametrize('suffix', sorted(picture.KIND.suffixes))
def test_plots_are_known_again(tmp_path, suffix):
  pytest.importorskip('matplotlib')
  from matplotlib.figure import Figure

  for metadata, own in (({picture.FIELD[suffix[1:]]: 'painformer_jax'}, True), ({}, False)):
    file = io.BytesIO()
    Figure().savefig(file, format=suffix[1:], metadata=metadata)
    assert refused(tmp_path / f'x{suffix}', picture.KIND, file.getvalue()) != own


def test_tables_and_pages_that_look_alike(tmp_path):
  mine = b'start,stop,level\n0,5.5,3\n'
  assert refused(tmp_path / 'x.csv', curve.KINDS['csv'], mine)
  assert refused(tmp_path / 'x.html', build.KIND, b'<!DOCTYPE html><p>painformer_jax')


def test_embeddings_with_an_array_of_somebody_else(tmp_path):
  path = tmp_path / 'x.npz'
  written = EmbeddingWriter(path, {'frame': np.int64})
  image = LocatedImage(image=np.zeros((4, 4, 3), np.uint8), source='a', location={'frame': 0})
  written.add(np.zeros((1, 3), np.float32), [image])
  facts = dict(weights='w', modality='rgb', settings='{}', stand_in='')
  for _ in range(2):
    written.write(**facts)
  with np.load(path) as arrays:
    np.savez(path, **arrays, my_labels=[1])
  with pytest.raises(InputError, match=f'{path} exists'):
    written.write(**facts)


@pytest.mark.parametrize('link', [None, os.link, os.symlink])
def test_an_input_is_no_target_under_any_name(tmp_path, link):
  read, out = tmp_path / 'in.out', tmp_path / 'out.out'
  read.write_bytes(b'our mark')
  if link:
    link(read, out)
  else:
    out = read
  with pytest.raises(InputError, match='is read as'):
    check_file_target(out, KIND, inputs=[tmp_path / 'absent', read])


def test_nothing_is_written_into_a_folder_that_is_replaced_as_a_whole(tmp_path):
  (tmp_path / 'w').mkdir()
  (tmp_path / 'w' / 'painformer.json').write_text('{}')
  with pytest.raises(InputError, match='weights folder'):
    check_file_target(tmp_path / 'w' / 'x.out', KIND)
  for path in ('new', 'new/report.json', 'new/../new/a/b.json'):
    with pytest.raises(InputError, match='as a whole'):
      check_lies_apart(tmp_path / path, tmp_path / 'new')
  check_lies_apart(tmp_path / 'news.json', tmp_path / 'new')


def test_folders(tmp_path):
  own = tmp_path / 'own'
  own.mkdir()
  assert check_folder_target(own, own=['a']) == own
  (own / 'a').mkdir()
  (own / 'a' / 'source').write_bytes(b'1')
  assert check_folder_target(own, own=['a/source']) == own
  for inputs in ([own], [own / 'a' / 'source'], [tmp_path / 'absent', own / 'a']):
    with pytest.raises(InputError, match='which is read'):
      check_folder_target(own, own=['a/source'], inputs=inputs)
  (own / 'a' / 'notes.txt').write_bytes(b'2')
  with pytest.raises(InputError, match="'a/notes.txt'"):
    check_folder_target(own, own=['a', 'a/source'])
  (own / 'a' / 'notes.txt').unlink()
  (own / 'a' / 'link').symlink_to(own)
  with pytest.raises(InputError, match="'a/link'"):
    check_folder_target(own, own=['a/source'])
  assert len(contents(own)) == 1


@pytest.mark.parametrize('description', ['{}', '[]', '{"format": "painformer weights"}', 'x'])
def test_a_folder_that_only_looks_like_weights(tmp_path, description):
  (tmp_path / 'w' / 'arrays').mkdir(parents=True)
  (tmp_path / 'w' / 'painformer.json').write_text(description)
  (tmp_path / 'w' / 'arrays' / 'precious.txt').write_text('1')
  with pytest.raises(InputError, match='of which is not known that painformer wrote it'):
    weights.check_target(tmp_path / 'w')


def test_a_file_among_the_arrays_of_weights_is_no_part_of_them(stored, tmp_path):
  folder = shutil.copytree(stored, tmp_path / 'w')
  assert weights.check_target(folder) == folder
  (folder / 'arrays' / 'notes.txt').write_text('1')
  with pytest.raises(InputError, match='arrays/notes.txt'):
    weights.check_target(folder)


def test_suffixes(tmp_path):
  check_suffix(tmp_path / 'x.NPZ', ['.npz'])
  check_suffix('/dev/stdout', ['.npz'])
  for name in ('x.csv', 'x', 'npz'):
    with pytest.raises(InputError, match='must end in .npz, .npy or .txt'):
      check_suffix(tmp_path / name, ['.npz', '.npy', '.txt'])
