"""The weights folder."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from repository import environment

from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.registry import make_config
from painformer_jax.weights import folder as weights
from painformer_jax.weights.folder import WeightsSource

CONFIG = make_config('painformer_nano', num_classes=3)
SOURCE = WeightsSource(name='painformer.pth', sha256='ab' * 32, model='painformer_nano')


@pytest.fixture(scope='module')
def variables() -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  return {
    path: (10 * rng.random(a.shape)).astype(a.dtype)
    for path, a in functional.abstract_variables(CONFIG).items()
  }


@pytest.fixture
def folder(tmp_path, variables):
  weights.save_weights(tmp_path / 'w', variables, config=CONFIG, source=SOURCE)
  return tmp_path / 'w'


def test_round_trip_is_bit_exact(folder, variables):
  loaded = weights.load_weights(folder)
  assert (loaded.config, loaded.source) == (CONFIG, SOURCE)
  assert loaded.variables.keys() == variables.keys()
  for path, array in variables.items():
    assert loaded.variables[path].dtype == array.dtype
    assert loaded.variables[path].tobytes() == array.tobytes()
  assert [p.name for p in folder.parent.iterdir()] == ['w']


def test_description_can_be_read_by_people(folder):
  description = json.loads((folder / 'painformer.json').read_text())
  assert description['format'] == 'painformer weights'
  assert description['classes'] == 3
  assert description['config']['widths'] == [8, 16, 24, 32]
  assert description['source'] == 'painformer.pth'


def test_replaces_weights_and_empty_folders(folder, variables, tmp_path):
  (tmp_path / 'empty').mkdir()
  for target in (folder, tmp_path / 'empty'):
    changed = variables | {'norm1/scale': np.zeros(8, np.float32)}
    weights.save_weights(target, changed, config=CONFIG, source=SOURCE)
    assert not weights.load_weights(target).variables['norm1/scale'].any()
  assert sorted(p.name for p in tmp_path.iterdir()) == ['empty', 'w']


@pytest.mark.parametrize('error', [KeyboardInterrupt, OSError(28, 'No space left')])
@pytest.mark.parametrize('call', [1, 2])
def test_an_interruption_between_the_replacements(folder, variables, monkeypatch, error, call):
  """Before each of the two, the old folder stays or comes back whole."""
  calls, replace = [], os.replace

  def interrupted(source, target):
    calls.append(target)
    if len(calls) == call:
      raise error
    replace(source, target)

  monkeypatch.setattr(os, 'replace', interrupted)
  with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else InputError):
    weights.save_weights(
      folder, {path: 0 * a for path, a in variables.items()}, config=CONFIG, source=SOURCE
    )
  monkeypatch.setattr(os, 'replace', replace)
  assert len(calls) >= call
  assert [p.name for p in folder.parent.iterdir()] == ['w']
  loaded = weights.load_weights(folder).variables
  for path, array in variables.items():
    np.testing.assert_array_equal(loaded[path], array)


def test_never_overwrites_other_things(tmp_path, variables):
  (tmp_path / 'thesis').mkdir()
  (tmp_path / 'thesis' / 'chapter1').write_text('words')
  (tmp_path / 'file').write_text('words')
  targets = [
    ('thesis', 'chapter1'),
    ('file', 'is a file'),
    ('absent/w', 'absent'),
    ('file/w', 'file'),
    ('w' * 300, 'File name too long'),
  ]
  if sys.platform == 'linux':  # Where not even root makes files.
    targets.append(('/proc/w', r'no file can be made in /proc \('))
  for target, message in targets:
    with pytest.raises(InputError, match=message):
      weights.save_weights(tmp_path / target, variables, config=CONFIG, source=SOURCE)
  assert (tmp_path / 'thesis' / 'chapter1').read_text() == 'words'
  assert sorted(p.name for p in tmp_path.iterdir()) == ['file', 'thesis']


def test_full_disk_leaves_the_old_weights(folder, variables):
  """A limit on file sizes stands in for a full disk: a real error."""
  script = (
    'import resource, sys, numpy as np\n'
    'from painformer_jax.weights import folder as weights\n'
    'from painformer_jax.core.errors import InputError\n'
    'from painformer_jax.models.registry import make_config\n'
    'loaded = weights.load_weights(sys.argv[1])\n'
    'resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))\n'
    'try:\n'
    '  weights.save_weights(sys.argv[1], loaded.variables,\n'
    '                       config=loaded.config, source=loaded.source)\n'
    'except InputError as error:\n'
    '  print(error)\n'
  )
  result = subprocess.run(
    [sys.executable, '-c', script, str(folder)], capture_output=True, text=True, env=environment()
  )
  assert result.stdout.startswith(f'{folder} ') and 'File too large' in result.stdout
  assert result.stdout.count('\n') == 1
  assert result.stderr == ''  # Orbax, which prints pages, was not even asked.
  loaded = weights.load_weights(folder)
  assert loaded.variables['norm1/scale'].tobytes() == (variables['norm1/scale'].tobytes())
  assert [p.name for p in folder.parent.iterdir()] == ['w']


def rewrite(folder, **changes):
  path = folder / 'painformer.json'
  description = json.loads(path.read_text())
  for key, value in changes.items():
    if value is None:
      del description[key]
    else:
      description[key] = value
  path.write_text(json.dumps(description))


@pytest.mark.parametrize(
  'changes,message',
  [
    ({'format': 'something else'}, 'its format is unknown'),
    ({'version': 99}, r'newer painformer_jax .format 99.; upgrade painformer_jax$'),
    ({'version': 'x'}, 'is damaged'),
    ({'config': None}, 'is damaged'),
    ({'config': 3}, 'config is no dict'),
    ({'config': {'colour': 1}}, 'does not know .colour'),
    ({'config': {'widths': [1]}}, 'a config that cannot be'),
    ({'config': {'widths': 'wide'}}, 'a config that cannot be'),
    ({'config': {'num_classes': 'many'}}, 'a config that cannot be'),
    ({'config': {'num_classes': -1}}, 'a config that cannot be'),
    ({'config': {'num_classes': 10**30}}, 'its arrays are not those'),
    ({'config': {}}, 'its arrays are not those of its config'),
    ({'checksums': {}}, 'checksum of .* does not match'),
  ],
)
def test_descriptions_that_lie(folder, changes, message):
  rewrite(folder, **changes)
  with pytest.raises(InputError, match=message) as caught:
    weights.load_weights(folder)
  assert '\n' not in str(caught.value)


def test_damaged_folders(folder, tmp_path):
  with pytest.raises(InputError, match='is no weights folder'):
    weights.load_weights(tmp_path)
  (folder / 'painformer.json').write_text('[1, ')
  with pytest.raises(InputError, match='is damaged'):
    weights.load_weights(folder)


def test_missing_arrays(folder):
  for path in (folder / 'arrays').glob('*METADATA'):
    path.unlink()
  with pytest.raises(InputError, match='is damaged'):
    weights.load_weights(folder)


def test_flipped_bits_are_noticed(folder):
  """Orbax itself does not notice a bit that flips in an array's data."""
  largest = max((folder / 'arrays').rglob('*'), key=lambda p: p.stat().st_size)
  content = bytearray(largest.read_bytes())
  content[len(content) // 2] ^= 1
  largest.write_bytes(content)
  with pytest.raises(InputError, match='is damaged'):
    weights.load_weights(folder)
