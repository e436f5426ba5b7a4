"""`painformer inspect`, `painformer diff`, and what `embed` says about weights."""

import json

import cv2
import forge
import numpy as np
import pytest
from command_line import assert_refused, run_command
from test_state_dicts import AVERAGE, RAW, prefixed

import painformer_jax as pj
from painformer_jax.core.errors import InputError
from painformer_jax.weights import folder as weights
from painformer_jax.weights.safetensors_file import write_safetensors


@pytest.fixture(scope='module')
def files(tmp_path_factory):
  """The same weights in several forms, and others."""
  folder = tmp_path_factory.mktemp('files')
  write_safetensors(folder / 'raw.safetensors', RAW)
  two = {'state_dict': prefixed('model.'), 'state_dict_ema': AVERAGE, 'args': {'lr': 1}}
  (folder / 'two.pth').write_bytes(forge.saved(two))
  half = {name: a.astype('f2') if a.dtype == 'f4' else a for name, a in RAW.items()}
  write_safetensors(folder / 'half.safetensors', half)
  write_safetensors(folder / 'other.safetensors', {'0.weight': np.ones((3, 2), np.float32)})
  assert run_command('convert', folder / 'raw.safetensors', folder / 'w').returncode == 0
  cv2.imwrite(str(folder / 'image.png'), np.full((32, 32, 3), 90, np.uint8))
  return folder


def inspected(path, *options) -> dict:
  done = run_command('inspect', path, '--json', *options)
  assert (done.returncode, done.stderr) == (0, '')
  return json.loads(done.stdout)


def test_inspect_of_a_checkpoint(files):
  found = inspected(files / 'two.pth')
  assert found['kind'] == 'PyTorch zip file'
  assert found['keys'] == ['state_dict', 'state_dict_ema', 'args']
  assert [(s['key'], s['averaged'], s['taken']) for s in found['state_dicts']] == [
    ('state_dict', False, False),
    ('state_dict_ema', True, True),
  ]
  assert (found['prefix'], found['converts'], found['model']) == ('', True, 'painformer_nano')
  assert found['parameters'] == 40_904
  assert [t['name'] for t in found['tensors']] == list(RAW)
  raw = inspected(files / 'two.pth', '--key', 'state_dict')
  assert (raw['prefix'], raw['converts']) == ('model.', True)


def test_the_page_of_inspect(files):
  done = run_command('inspect', files / 'two.pth')
  assert done.returncode == 0, done.stderr
  for text in ('state_dict_ema', 'an average, taken', '40,904 parameters', 'NaN or infinity: none',
               'nearest preset: painformer_nano, 32 pixels, no head',
               'painformer convert: takes it'):  # fmt: skip
    assert text in done.stdout, text


def test_inspect_of_what_does_not_convert(files, tmp_path):
  found = inspected(files / 'other.safetensors')
  assert (found['converts'], found['model'], found['config']) == (False, '', None)
  assert found['parameters'] == 6 and found['tensors'][0]['shape'] == [3, 2]
  assert 'does not hold the weights' in found['remarks'][-1]
  (tmp_path / 'two.pth').write_bytes(forge.saved({'a': RAW, 'b': RAW}))
  found = inspected(tmp_path / 'two.pth')
  assert len(found['state_dicts']) == 2 and '--key a or --key b' in found['remarks'][0]
  assert_refused(run_command('inspect', tmp_path / 'absent'), tmp_path / 'absent')


def test_inspect_tells_zeros_and_numbers_that_are_none(tmp_path):
  bad = {**RAW, 'norm1.weight': np.zeros(8, 'f4'), 'norm2.bias': np.full(16, np.nan, 'f4')}
  write_safetensors(tmp_path / 'w.safetensors', bad)
  found = {t['name']: t for t in inspected(tmp_path / 'w.safetensors')['tensors']}
  assert found['norm1.weight']['all_zero'] and not found['norm2.weight']['all_zero']
  assert found['norm2.bias']['non_finite'] == 16


@pytest.mark.parametrize('name', ['w', 'raw.safetensors'])
def test_diff_of_equal_weights(files, name):
  done = run_command('diff', files / 'raw.safetensors', files / name)
  assert (done.returncode, done.stderr) == (0, '')
  assert f'{len(RAW)} tensors are equal, no difference' in done.stdout


def difference(a, b, *options) -> dict:
  done = run_command('diff', a, b, '--json', *options)
  found = json.loads(done.stdout)
  assert done.returncode == (0 if found['equal'] else 1), done.stderr
  return found


def test_diff_says_what_differs(files, tmp_path):
  changed = {name: a.copy() for name, a in RAW.items() if name != 'norm4.bias'}
  changed['norm1.weight'][3] += 0.5
  changed['norm2.weight'][0] = np.nan
  changed['norm3.bias'] = np.ones(5, np.float32)
  changed['more'] = np.ones(2, np.float32)
  write_safetensors(tmp_path / 'b.safetensors', changed)
  found = difference(files / 'raw.safetensors', tmp_path / 'b.safetensors')
  assert (found['only_a'], found['only_b']) == (['norm4.bias'], ['more'])
  assert found['shapes'] == {'norm3.bias': [list(RAW['norm3.bias'].shape), [5]]}
  assert [(t['name'], t['elements'], t['largest']) for t in found['values']] == [
    ('norm2.weight', 1, None),  # JSON has no infinity.
    ('norm1.weight', 1, pytest.approx(0.5)),
  ]
  assert found['same'] == len(RAW) - 4
  done = run_command('diff', files / 'raw.safetensors', tmp_path / 'b.safetensors')
  assert done.returncode == 1
  assert 'only in A, 1: norm4.bias' in done.stdout and 'other shapes, 1: norm3.bias' in done.stdout
  # What is no number is the same as what is none.
  assert difference(tmp_path / 'b.safetensors', tmp_path / 'b.safetensors')['equal']


def test_diff_of_two_state_dicts_of_one_file(files):
  path = files / 'two.pth'
  assert difference(path, path)['equal']
  found = difference(path, path, '--key', 'state_dict', '--key-b', 'state_dict_ema')
  assert len(found['values']) == len(RAW)
  assert all(t['largest'] == pytest.approx(1) for t in found['values'])


def test_diff_of_types_and_within_a_tolerance(files):
  found = difference(files / 'raw.safetensors', files / 'half.safetensors')
  assert found['types']['norm4.bias'] == ['float32', 'float16'] and found['values']
  near = difference(files / 'raw.safetensors', files / 'half.safetensors', '--tolerance', '0.01')
  assert near['equal'] and near['types'] == found['types']


@pytest.mark.parametrize('options', [('absent',), ('two.pth', '--tolerance', '-1')])
def test_diff_of_what_is_not_there_is_2(files, options):
  assert_refused(run_command('diff', files / 'two.pth', files / options[0], *options[1:]))


@pytest.fixture(scope='module')
def lacking(files, tmp_path_factory):
  """A file without one tensor and with another, and its weights folder."""
  folder = tmp_path_factory.mktemp('lacking')
  tensors = {name: a for name, a in RAW.items() if name != 'norm4.bias'}
  write_safetensors(folder / 'lacking.safetensors', {**tensors, 'extra': np.ones(2, 'f4')})
  done = run_command(
    'convert', folder / 'lacking.safetensors', folder / 'w', '--allow-missing', 'norm4.bias|extra'
  )
  assert done.returncode == 0, done.stderr
  assert 'WARNING: not in the file, initial values instead: norm4.bias' in done.stdout
  assert 'left out: extra' in done.stdout
  return folder


def test_what_was_missing_is_stored_and_said_again(files, lacking, tmp_path):
  source = weights.load_weights(lacking / 'w').source
  assert (source.initialised, source.left_out) == (('norm4.bias',), ('extra',))
  image = files / 'image.png'
  done = run_command('embed', image, '--weights', lacking / 'w', '--out', tmp_path / 'e.npz')
  assert done.returncode == 0, done.stderr
  lines = [line for line in done.stderr.splitlines() if 'initial values' in line]
  assert len(lines) == 1 and 'norm4.bias' in lines[0] and 'WARNING' in lines[0]
  with pytest.warns(UserWarning, match='initial values instead: norm4.bias'):
    pj.load(lacking / 'w')


def test_embed_and_load_have_the_option_that_messages_name(files, lacking, tmp_path):
  path, image = lacking / 'lacking.safetensors', files / 'image.png'
  line = assert_refused(
    run_command('embed', image, '--weights', path, '--out', tmp_path / 'e.npz'), 'norm4.bias'
  )
  assert '--allow-missing' in line
  done = run_command(
    'embed', image, '--weights', path, '--out', tmp_path / 'e.npz',
    '--allow-missing', 'norm4.bias|extra',
  )  # fmt: skip
  assert done.returncode == 0 and 'initial values instead: norm4.bias' in done.stderr
  with pytest.warns(UserWarning, match='norm4.bias'):
    pj.load(path, allow_missing='norm4.bias|extra')


@pytest.mark.parametrize('option', ['--key', '--weights-key'])
def test_embed_takes_the_key_of_a_state_dict(files, tmp_path, option):
  done = run_command(
    'embed', files / 'image.png', '--weights', files / 'two.pth', '--out', tmp_path / 'e.npz',
    option, 'state_dict',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert 'takes state_dict; the file also holds weights under --key state_dict_ema' in done.stderr
  assert 'names begin with model.' in done.stderr


@pytest.mark.parametrize('kept', [0, 1, 20])
def test_an_untrained_model_is_never_made(tmp_path, kept):
  """Whatever may be missing, half of the model must be there."""
  few = {**dict(list(RAW.items())[:kept]), 'x': np.ones(1, np.float32)}
  path = tmp_path / 'w.safetensors'
  write_safetensors(path, few)
  done = run_command('convert', path, tmp_path / 'out', '--allow-missing', '.')
  line = assert_refused(done, path, 'at least half')
  assert f'({sum("num" not in name for name in list(RAW)[:kept])} of ' in line
  assert not (tmp_path / 'out').exists()
  with pytest.raises(InputError, match='at least half'):
    pj.load(path, allow_missing='.')


def test_load_warns_of_values_that_are_useless(tmp_path):
  write_safetensors(tmp_path / 'zeros.safetensors', {n: a * 0 for n, a in RAW.items()})
  with pytest.warns(UserWarning, match='nothing but 0 in .* more; was the file saved without'):
    pj.load(tmp_path / 'zeros.safetensors')
  bad = {**RAW, 'norm1.weight': np.full(8, np.inf, 'f4')}
  write_safetensors(tmp_path / 'inf.safetensors', bad)
  with pytest.warns(UserWarning, match='NaN or infinity in norm1.weight'):
    pj.load(tmp_path / 'inf.safetensors')
