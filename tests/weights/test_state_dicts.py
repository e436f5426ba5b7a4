"""The model is found in what trainers save, and what was taken is known."""

import forge
import numpy as np
import pytest
from command_line import run_command

import painformer_jax as pj
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.registry import make_config
from painformer_jax.weights.convert import convert, export
from painformer_jax.weights.options import FileOptions
from painformer_jax.weights.report import choices
from painformer_jax.weights.torch.read import read

COUNTS = [f'patch_embed1.conv.{i}.num_batches_tracked' for i in (1, 4, 7)]
OTHER = np.ones(3, np.float32)


def variables(value: float) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  abstract = functional.abstract_variables(make_config('painformer_nano'))
  return {path: (rng.random(a.shape) + value).astype(a.dtype) for path, a in abstract.items()}


RAW, AVERAGE = export(variables(1)), export(variables(2))


def prefixed(prefix: str, tensors=RAW) -> dict[str, np.ndarray]:
  return {prefix + name: array for name, array in tensors.items()}


def wrapped(wrapper: str) -> dict[str, np.ndarray]:
  """A wrapper around each block, as FSDP and checkpointing put it."""
  return {name.replace('.attn.', f'.{wrapper}.attn.'): array for name, array in RAW.items()}


def taken(tmp_path, tree, **options):
  path = tmp_path / 'w.pth'
  path.write_bytes(forge.saved(tree))
  return read(path, FileOptions(**options))


def assert_holds(checkpoint, expected=RAW):
  assert list(checkpoint.tensors) == list(expected)
  assert all(np.array_equal(checkpoint.tensors[name], expected[name]) for name in expected)


@pytest.mark.parametrize(
  'raw,average',
  [
    ('state_dict', 'state_dict_ema'),
    ('model', 'model_ema'),
    ('model', 'ema'),
    ('model_state_dict', 'ema_state_dict'),
    ('state_dict', 'swa_model'),
    ('model', 'ema_state'),
    ('model_state_dict', 'ema_params'),
    ('model', 'avg_model'),
    ('model', 'model_avg'),
    ('model', 'average_model_state'),
    ('params', 'params_ema'),
    ('net', 'net_ema'),
    ('weights', 'weights_ema'),
    ('model_without_ema', 'EMA'),
  ],
)
def test_the_average_is_taken_as_timm_takes_it(tmp_path, raw, average):
  tree = {'epoch': 1, raw: RAW, average: AVERAGE, 'optimizer': {'state': {0: {'step': OTHER}}}}
  found = taken(tmp_path, tree)
  assert (found.container, found.averaged, found.alternatives) == (average, True, [raw])
  assert found.ignored == ['epoch', 'optimizer']
  assert_holds(found, AVERAGE)
  found = taken(tmp_path, tree, key=raw)
  assert (found.container, found.averaged, found.alternatives) == (raw, False, [average])
  assert_holds(found)


def test_of_two_averages_the_one_that_timm_takes(tmp_path):
  tree = {'ema': RAW, 'model_ema': RAW, 'state_dict_ema': AVERAGE, 'model': RAW}
  assert_holds(taken(tmp_path, tree), AVERAGE)
  del tree['state_dict_ema']
  assert taken(tmp_path, tree).container == 'model_ema'


@pytest.mark.parametrize(
  'tree,container',
  [
    ({'ema': {'module': RAW, 'updates': 3}}, 'ema.module'),
    ({'module': RAW, 'ds_version': '0.1', 'optimizer': None}, 'module'),
    ({'backbone': RAW, 'head': {'1.weight': OTHER}}, 'backbone'),
    ({'checkpoint': {'networks': {'video': RAW}}}, 'checkpoint.networks.video'),
    ({'models': [RAW, {'other': OTHER}]}, 'models.0'),
    ({'model': {'other': OTHER}, 'encoder': RAW}, 'encoder'),
    ({'n_averaged': np.ones((), np.int64), **prefixed('module.')}, ''),
  ],
)
def test_a_state_dict_anywhere_is_found(tmp_path, tree, container):
  found = taken(tmp_path, tree)
  assert found.container == container
  assert found.averaged == ('n_averaged' in tree or 'ema' in tree)
  assert_holds(found)


def test_an_average_by_its_counter(tmp_path):
  tree = {'model': RAW, 'best': {'n_averaged': np.ones((), np.int64), **AVERAGE}}
  found = taken(tmp_path, tree)
  assert (found.container, found.averaged) == ('best', True)
  assert 'best.n_averaged' in found.ignored
  assert_holds(found, AVERAGE)


def test_an_average_below_another_key(tmp_path):
  found = taken(tmp_path, {'model': RAW, 'extra_state': {'ema_fp32_params': AVERAGE}})
  assert (found.container, found.averaged) == ('extra_state.ema_fp32_params', True)
  assert_holds(found, AVERAGE)


NONE = {'n_averaged': np.zeros((), np.int64)}


@pytest.mark.parametrize(
  'tree,container,prefix',
  [
    ({'model': RAW, 'swa_model': {**NONE, **prefixed('module.', AVERAGE)}}, 'model', ''),
    ({'student': RAW, 'ema': {**NONE, **AVERAGE}}, 'student', ''),
    ({'model': RAW, 'n_averaged': 0, 'swa_model': AVERAGE}, 'model', ''),
    ({'model': RAW, 'swa': {'n_averaged': 0, 'average': AVERAGE}}, 'model', ''),
    ({'current_model_state': RAW, 'averaging_state': NONE, 'state_dict': AVERAGE},
     'current_model_state', ''),
    ({'state_dict': {**prefixed('model.'), **prefixed('swa_model.module.', AVERAGE),
      'swa_model.n_averaged': NONE['n_averaged']}}, 'state_dict', 'model.'),
    ({**NONE, **prefixed('module.')}, '', ''),
  ],
)  # fmt: skip
def test_an_average_of_nothing_is_not_preferred(tmp_path, tree, container, prefix):
  found = taken(tmp_path, tree)
  assert (found.container, found.prefix, found.averaged) == (container, prefix, False)
  assert_holds(found)
  assert any('n_averaged is 0' in line for line in choices(found))
  (counter,) = found.averaged_nothing
  assert counter.endswith('n_averaged') and counter not in found.ignored


def test_the_state_that_pytorch_saves_of_an_optimizer(tmp_path):
  state = {i: {'exp_avg': array} for i, array in enumerate(RAW.values())}
  with pytest.raises(InputError, match='no weights but .* --key optimizer.state.0'):
    taken(tmp_path, {'epoch': 1, 'optimizer': {'state': state}})
  state = {n: {'exp_avg': a, 'exp_avg_sq': a, 'step': OTHER} for n, a in RAW.items()}
  with pytest.raises(InputError, match='no weights but .* --key state.patch_embed1'):
    taken(tmp_path, {'state': state, 'param_groups': []})


def test_a_momentum_encoder_is_a_model(tmp_path):
  assert taken(tmp_path, {'momentum_encoder': RAW}).container == 'momentum_encoder'
  assert taken(tmp_path, prefixed('momentum_encoder.')).prefix == 'momentum_encoder.'


@pytest.mark.parametrize('key', ['exp_avg', 'grads', 'optimizer.exp_avg', 'optimizer_state.a'])
def test_the_state_of_an_optimizer_is_no_model(tmp_path, key):
  tree = RAW
  for part in reversed(key.split('.')):
    tree = {part: tree}
  with pytest.raises(InputError, match=f'no weights but .* --key {key}'):
    taken(tmp_path, tree)
  assert_holds(taken(tmp_path, tree, key=key))
  # Beside weights it is no choice.
  found = taken(tmp_path, {'net': AVERAGE, **tree})
  assert (found.container, found.alternatives) == ('net', [])
  assert_holds(found, AVERAGE)
  with pytest.raises(InputError, match=f'no weights but .* --prefix {key}.'):
    taken(tmp_path, prefixed(f'{key}.'))
  assert_holds(taken(tmp_path, prefixed(f'{key}.'), prefix=f'{key}.'))


@pytest.mark.parametrize(
  'raw,beside',
  [
    ('current_model_state', {'averaging_state': {'n_averaged': np.ones((), np.int64)}}),
    ('ema_state_dict', {'meta': {'mmengine_version': '0.10.7'}}),
  ],
)
def test_trainers_that_save_the_average_as_the_state_dict(tmp_path, raw, beside):
  """Lightning's WeightAveraging, and mmengine's EMAHook, which swaps the two."""
  tensors = {'steps': np.zeros((), np.int64), **prefixed('module.')} if 'ema' in raw else RAW
  found = taken(tmp_path, {'state_dict': AVERAGE, raw: tensors, **beside})
  assert (found.container, found.averaged, found.alternatives) == ('state_dict', True, [raw])
  assert_holds(found, AVERAGE)
  found = taken(tmp_path, {'state_dict': AVERAGE, raw: tensors, **beside}, key=raw)
  assert not found.averaged
  assert_holds(found)


def test_dicts_within_dicts_are_one_state_dict(tmp_path):
  tree = {}
  for name, array in RAW.items():
    *parents, last = name.split('.')
    node = tree
    for parent in parents:
      node = node.setdefault(parent, {})
    node[last] = array
  found = taken(tmp_path, {'epoch': 3, **tree})
  assert found.ignored == ['epoch']
  assert sorted(found.tensors) == sorted(RAW)


def test_a_module_that_was_pickled_whole(tmp_path):
  """As torch.save(model) writes it: classes, parameters, buffers, modules."""
  storages = []

  def module(prefix: str) -> bytes:
    inner = [name.removeprefix(prefix) for name in RAW if name.startswith(prefix)]
    own = {n: RAW[prefix + n] for n in inner if '.' not in n}
    children = dict.fromkeys(n.split('.')[0] for n in inner if '.' in n)
    state = {
      'training': 1,
      '_parameters': {n: a for n, a in own.items() if 'running' not in n and 'num' not in n},
      '_buffers': {n: a for n, a in own.items() if 'running' in n or 'num' in n},
      '_modules': {child: module(f'{prefix}{child}.') for child in children},
    }
    return forge.instance('my.models', 'PainFormer', forge._saved(state, storages))

  path = tmp_path / 'whole.pth'
  path.write_bytes(forge.archive(module(''), storages))
  found = read(path)
  assert sorted(found.tensors) == sorted(RAW)
  assert all(np.array_equal(found.tensors[n], RAW[n]) for n in RAW)


def test_several_state_dicts_under_unknown_keys_are_a_question(tmp_path):
  tree = {'student': RAW, 'teacher': AVERAGE}
  with pytest.raises(InputError, match='--key student or --key teacher'):
    taken(tmp_path, tree)
  assert_holds(taken(tmp_path, tree, key='teacher'), AVERAGE)
  with pytest.raises(InputError, match='no state dict under the key x; it has .*student, teacher'):
    taken(tmp_path, tree, key='x')


@pytest.mark.parametrize(
  'prefix', ['model.', 'backbone.', 'encoder.', 'net.', '0.', 'a.b.c.', '_forward_module.model.']
)
def test_a_common_prefix_is_taken_off_and_known(tmp_path, prefix):
  found = taken(tmp_path, {'state_dict': prefixed(prefix)})
  assert (found.prefix, found.left_out) == (prefix, [])
  assert_holds(found)


@pytest.mark.parametrize(
  'wrapper', ['module', '_orig_mod', '_fsdp_wrapped_module', '_checkpoint_wrapped_module']
)
def test_wrappers_are_left_out_of_names(tmp_path, wrapper):
  assert_holds(taken(tmp_path, {'state_dict': wrapped(wrapper)}))
  assert_holds(taken(tmp_path, {'state_dict': prefixed(f'{wrapper}.model.')}))


def test_what_has_another_prefix_is_left_out_and_known(tmp_path):
  tree = {'state_dict': {**prefixed('0.'), '1.weight': OTHER, 'loss.scale': OTHER}}
  found = taken(tmp_path, tree)
  assert (found.prefix, found.left_out) == ('0.', ['1.weight', 'loss.scale'])
  assert_holds(found)


def test_two_models_under_two_prefixes(tmp_path):
  tree = {**prefixed('student.'), **prefixed('teacher.', AVERAGE)}
  with pytest.raises(InputError, match='--prefix student. or --prefix teacher.'):
    taken(tmp_path, tree)
  assert_holds(taken(tmp_path, tree, prefix='teacher.'), AVERAGE)
  tree = {**prefixed('online_model.'), **prefixed('ema_model.', AVERAGE)}
  found = taken(tmp_path, tree)
  assert (found.prefix, found.averaged) == ('ema_model.', True)
  assert_holds(found, AVERAGE)
  with pytest.raises(InputError, match='no name that begins with x'):
    taken(tmp_path, tree, prefix='x')


def test_names_are_changed_by_regular_expressions(tmp_path):
  tree = {'net.' + n.replace('block', 'stage').replace('norm', 'ln'): a for n, a in RAW.items()}
  assert_holds(
    taken(tmp_path, tree, rename=(r'stage(?=\d)=block', r'\bln(?=[\d.])=norm', 'ln=norm'))
  )
  for entry, message in (('x', 'is not REGEX='), ('(=x', 'no regular'), (r'(s)=\2', 'fails')):
    with pytest.raises(InputError, match=message):
      taken(tmp_path, tree, rename=(entry,))
  with pytest.raises(InputError, match='holds both'):
    taken(tmp_path, tree, rename=('^.*$=same',))


def test_older_and_other_forms_of_arrays(tmp_path):
  filters = [name for name in RAW if name.endswith('complex_weight')]
  tensors = {n: a for n, a in RAW.items() if n not in COUNTS[1:]}
  tensors |= {n: RAW[n].astype('f4').view('c8')[..., 0] for n in filters}
  tensors[COUNTS[0]] = np.full(1, 6.6, np.float32)  # averaged, with a dimension
  path = tmp_path / 'w.pth'
  path.write_bytes(forge.saved(tensors))
  result = convert(read(path), source='w')
  assert result.report.restarted == COUNTS[1:]
  assert result.report.complex == filters
  back = export(result.variables)
  assert [int(back[name]) for name in COUNTS] == [7, 0, 0]
  assert all(np.array_equal(back[name], RAW[name]) for name in RAW if name not in COUNTS)


def unread(why: str) -> bytes:
  """A tensor of a kind that is not read."""
  ordered = forge.ORDERED_DICT
  where = forge.tuple_(
    forge.text('storage'), forge.name('torch', 'UntypedStorage'), forge.text('0'),
    forge.text('cpu'), forge.number(4),
  ) + b'Q'  # fmt: skip
  if why == 'float8':
    return (
      forge.name('torch._utils', '_rebuild_tensor_v3')
      + forge.tuple_(where, b'K\0', forge.tuple_(b'K\4'), forge.tuple_(b'K\1'), b'\x89', ordered,
                     forge.name('torch', 'float8_e4m3fn'))
      + b'R'
    )  # fmt: skip
  function = {'quantised': '_rebuild_qtensor', 'sparse': '_rebuild_sparse_tensor'}.get(why)
  if function:
    return forge.name('torch._utils', function) + forge.tuple_(where) + b'R'
  return forge.instance('torch.distributed.tensor', 'DTensor', b'}')


@pytest.mark.parametrize(
  'why,advice',
  [
    ('float8', 'float8_e4m3fn, which is not read; save the model in float32'),
    ('quantised', 'save the weights from before it was quantised'),
    ('sparse', 'to_dense'),
    ('distributed', 'full_state_dict=True'),
  ],
)
def test_tensors_of_other_kinds_are_refused_with_what_to_do(tmp_path, why, advice):
  with pytest.raises(InputError) as caught:
    taken(tmp_path, {'model': {**RAW, 'norm4.bias': unread(why)}})
  assert "'norm4.bias'" in str(caught.value) and advice in str(caught.value)
  # Beside the weights they do no harm.
  assert_holds(taken(tmp_path, {'model': RAW, 'other': unread(why)}))


def test_int8_weights_of_a_quantised_model_say_so(tmp_path):
  checkpoint = taken(tmp_path, RAW)
  small = {n: a.astype(np.int8) for n, a in RAW.items() if a.ndim == 2}
  checkpoint.tensors.update(small)
  with pytest.raises(InputError, match='quantised weights are not read'):
    convert(checkpoint, source='w')


def test_empty_tensors_of_deepspeed_say_so(tmp_path):
  empty = {n: a[:0].ravel() if a.ndim else a for n, a in RAW.items()}
  checkpoint = taken(tmp_path, {'module': empty, 'ds_version': '0.1'})
  with pytest.raises(InputError, match='run the zero_to_fp32.py'):
    convert(checkpoint, source='w')


def test_the_commands_say_what_was_taken(tmp_path):
  path, folder = tmp_path / 'w.pth', tmp_path / 'w'
  tree = {'state_dict': RAW, 'state_dict_ema': prefixed('model.', AVERAGE)}
  path.write_bytes(forge.saved(tree))
  done = run_command('convert', path, folder)
  assert done.returncode == 0, done.stderr
  assert 'takes state_dict_ema, an average' in done.stdout
  assert '--key state_dict' in done.stdout and 'names begin with model.' in done.stdout
  with pytest.warns(UserWarning, match='takes state_dict_ema, an average'):
    model = pj.load(path)
  assert np.array_equal(functional.variables(model)['norm4/bias'], AVERAGE['norm4.bias'])
  with pytest.warns(UserWarning, match='takes state_dict;'):
    model = pj.load(path, key='state_dict')
  assert np.array_equal(functional.variables(model)['norm4/bias'], RAW['norm4.bias'])
  with pytest.raises(InputError, match='--key is for files'):
    pj.load(folder, key='state_dict')
