"""`painformer convert` and `painformer export`, as commands."""

import hashlib
import io
import json
import tarfile
import zipfile

import forge
import numpy as np
import pytest
import reference
from command_line import assert_refused, run_command

from painformer_jax.cli.main import main
from painformer_jax.models import functional
from painformer_jax.models.registry import make_config
from painformer_jax.weights.convert import export
from painformer_jax.weights.torch.read import read
from painformer_jax.weights.torch.write import write_pth

COUNT = 'patch_embed1.conv.4.num_batches_tracked'


@pytest.fixture(scope='module')
def released() -> dict[str, np.ndarray]:
  state = reference.state_dict()
  state[COUNT] = np.asarray(2_000_000_000, np.int64)
  return state


def assert_bit_exact(result, expected):
  assert result.keys() == expected.keys()
  for name, array in expected.items():
    assert result[name].dtype == array.dtype, name
    assert result[name].shape == array.shape, name
    assert result[name].tobytes() == array.tobytes(), name


@pytest.mark.parametrize('head', [True, False])
def test_convert_and_export_are_bit_exact(tmp_path, painformer, released, head):
  """In processes of their own with a head, here without."""
  run = painformer if head else run_command
  tensors = {k: a for k, a in released.items() if head or not k.startswith('head.')}
  source = tmp_path / 'painformer.pth'
  write_pth(source, tensors)
  folder, report_file = tmp_path / 'weights', tmp_path / 'report.json'
  done = run('convert', source, folder, '--report', report_file)
  assert (done.returncode, done.stderr) == (0, '')
  assert '19,757,704 parameters, a head of 1,000' in done.stdout or not head
  assert '19,596,704 parameters, no head' in done.stdout or head
  report = json.loads(report_file.read_text())
  assert report['done'] is True
  assert report['sha256'] == hashlib.sha256(source.read_bytes()).hexdigest()
  assert report['tensors'] == report['converted'] == (375 if head else 373)
  assert report['has_head'] is head
  assert report['parameters'] == (19_757_704 if head else 19_596_704)
  assert not any(report[k] for k in ('missing', 'unexpected', 'misshapen'))

  out = tmp_path / 'again.pth'
  done = run('export', folder, out)
  assert (done.returncode, done.stderr) == (0, '')
  assert 'cannot load' not in done.stdout
  assert_bit_exact(read(out).tensors, tensors)
  # Names in the released order as well; the config is beside them.
  assert list(read(out).tensors) == list(tensors)
  assert read(out).record.config == make_config('painformer', num_classes=1000 if head else 0)
  assert read(out).ignored == []

  assert main(['export', str(source), str(tmp_path / 'again.safetensors')]) == 0
  assert_bit_exact(read(tmp_path / 'again.safetensors').tensors, tensors)


@pytest.mark.torch
def test_torch_finds_the_released_manifest(tmp_path, released):
  torch = pytest.importorskip('torch')
  source, out = tmp_path / 'painformer.pth', tmp_path / 'again.pth'
  torch.save(
    {'model_state_dict': {f'module.{k}': torch.from_numpy(a.copy()) for k, a in released.items()}},
    source,
  )
  assert main(['convert', str(source), str(tmp_path / 'w')]) == 0
  assert main(['export', str(tmp_path / 'w'), str(out)]) == 0
  loaded = torch.load(out, weights_only=True)
  assert list(loaded) == ['model_state_dict', 'painformer_config']
  assert loaded['painformer_config']['config']['heads'] == [2, 4, 10, 16]
  state = loaded['model_state_dict']
  assert {k: tuple(t.shape) for k, t in state.items()} == reference.manifest()
  assert list(state) == list(reference.manifest())
  for name, tensor in state.items():
    counter = name.endswith('num_batches_tracked')
    assert tensor.dtype == (torch.int64 if counter else torch.float32)
    assert torch.equal(tensor, torch.from_numpy(released[name])), name


def zip_bomb() -> bytes:
  return forge.archive(
    forge.dict_(a=forge.tensor([10**7])), [bytes(4 * 10**7)], compression=zipfile.ZIP_DEFLATED
  )


def legacy_tar() -> bytes:
  buffer = io.BytesIO()
  with tarfile.open(fileobj=buffer, mode='w') as archive:
    archive.addfile(tarfile.TarInfo('pickle'), io.BytesIO())
  return buffer.getvalue()


def attack(marker) -> bytes:
  return forge.archive(
    forge.name('posix', 'system') + forge.tuple_(forge.text(f'touch {marker}')) + b'R'
  )


LIES = {
  'truncated': (
    forge.archive(forge.dict_(a=forge.tensor([1])), [forge.floats(1)])[:-30],
    'cut-off zip',
  ),
  'empty': (b'', 'is empty'),
  'magic': (b'GIF89a', 'is neither a PyTorch (zip) nor a safetensors file'),
  'attack': (None, 'refuses posix.system'),
  'bomb': (zip_bomb(), 'compressed member'),
  'elements': (
    forge.archive(forge.dict_(a=forge.tensor([10**6, 10**6], [0, 0], count=1)), [forge.floats(1)]),
    'claims 1,000,000,000,000 elements',
  ),
  'tar': (legacy_tar(), 'is a tar archive'),
  'other_model': (
    forge.archive(
      forge.dict_(**{'conv1.weight': forge.tensor([1]), 'fc.bias': forge.tensor([1])}),
      [forge.floats(1)],
    ),
    '2 unexpected: conv1.weight, fc.bias',
  ),
}


@pytest.mark.parametrize('lie', LIES)
def test_files_that_lie(tmp_path, lie):
  """One line, status 2, nothing executed, nothing written."""
  content, message = LIES[lie]
  source, marker = tmp_path / 'weights.pth', tmp_path / 'executed'
  source.write_bytes(attack(marker) if content is None else content)
  assert_refused(run_command('convert', source, tmp_path / 'out'), source, message, alone=True)
  assert [p.name for p in tmp_path.iterdir()] == ['weights.pth']


def write_nano(path, value=1.0):
  """Weights of the nano model, all of one value."""
  write_pth(
    path,
    export(
      {
        path: np.full(a.shape, value if a.dtype == np.float32 else 1, a.dtype)
        for path, a in functional.abstract_variables(make_config('painformer_nano')).items()
      }
    ),
  )
  return path


def test_export_of_another_shape_says_that_the_release_cannot_load_it(tmp_path, capsys):
  source = write_nano(tmp_path / 'nano.pth')
  assert main(['export', str(source), str(tmp_path / 'back.pth')]) == 0
  assert (
    'the released code cannot load it, since its model has another image_size, stem_width, widths, '
  ) in capsys.readouterr().out


def test_the_example_of_export_keeps_the_download(capsys):
  with pytest.raises(SystemExit):
    main(['export', '--help'])
  page = ' '.join(capsys.readouterr().out.split())
  assert 'painformer export weights back.pth' in page
  assert 'weights folder, run folder, .pth or .safetensors file' in page


def test_a_full_disk_is_one_line(tmp_path, painformer):
  """Orbax prints pages by itself."""
  source = write_nano(tmp_path / 'nano.pth')
  done = painformer('convert', source, tmp_path / 'w', file_limit=2_000)
  assert_refused(done, tmp_path / 'w', 'File too large', alone=True)
  assert [p.name for p in tmp_path.iterdir()] == ['nano.pth']


def failure(capsys, *arguments) -> str:
  assert main([str(argument) for argument in arguments]) == 2
  captured = capsys.readouterr()
  assert captured.out == '' and captured.err.count('\n') == 1
  assert captured.err.startswith('painformer: ')
  return captured.err


def test_report_of_a_refused_conversion(tmp_path, capsys):
  source, report_file = tmp_path / 'w.pth', tmp_path / 'report.json'
  write_pth(source, {'conv1.weight': np.ones(3, np.float32)})
  failure(capsys, 'convert', source, tmp_path / 'out', '--report', report_file)
  report = json.loads(report_file.read_text())
  assert report['done'] is False
  assert report['unexpected'] == ['conv1.weight']
  assert len(report['missing']) == 370
  assert not (tmp_path / 'out').exists()


def test_allow_missing(tmp_path, capsys, released):
  source = tmp_path / 'w.pth'
  write_pth(source, {k: a for k, a in released.items() if k != 'norm4.bias'})
  line = failure(capsys, 'convert', source, tmp_path / 'out')
  assert '1 missing: norm4.bias (' in line
  assert not (tmp_path / 'out').exists()
  failure(capsys, 'convert', source, tmp_path / 'out', '--allow-missing', '(')
  assert main(['convert', str(source), str(tmp_path / 'out'), '--allow-missing', 'norm4']) == 0
  out = capsys.readouterr().out
  assert 'not in the file, initial values instead: norm4.bias' in out


def test_places_are_checked_before_any_work(tmp_path, capsys, released):
  source = tmp_path / 'w.pth'
  write_pth(source, {'a': np.ones(1, np.float32)})
  (tmp_path / 'thesis').mkdir()
  (tmp_path / 'thesis' / 'chapter').write_text('words')
  assert 'chapter' in failure(capsys, 'convert', source, tmp_path / 'thesis')
  assert 'is a file' in failure(capsys, 'convert', source, source)
  assert str(tmp_path / 'absent') in failure(
    capsys, 'convert', source, tmp_path / 'out', '--report', tmp_path / 'absent' / 'r.json'
  )
  assert 'does not exist' in failure(capsys, 'convert', tmp_path / 'absent.pth', tmp_path / 'out')
  assert 'must end in .pth, .pt, .safetensors' in failure(
    capsys, 'export', source, tmp_path / 'out.onnx'
  )
  assert str(tmp_path / 'absent') in failure(
    capsys, 'export', source, tmp_path / 'absent' / 'out.pth'
  )
  assert 'is a folder without weights' in failure(
    capsys, 'export', tmp_path / 'thesis', tmp_path / 'out.pth'
  )
  assert sorted(p.name for p in tmp_path.iterdir()) == ['thesis', 'w.pth']


def test_failed_export_keeps_the_file_that_was_there(tmp_path, capsys):
  out = tmp_path / 'out.pth'
  source = tmp_path / 'w.pth'
  write_pth(source, {'a': np.ones(1, np.float32)})
  write_pth(out, {'b': np.ones(1, np.float32)})
  before = out.read_bytes()
  failure(capsys, 'export', source, out)
  assert out.read_bytes() == before
  assert sorted(p.name for p in tmp_path.iterdir()) == ['out.pth', 'w.pth']
