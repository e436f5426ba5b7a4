"""Released state dict to variables and back, in memory."""

import re

import ml_dtypes
import numpy as np
import pytest
import reference
import torch_names

from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.registry import make_config
from painformer_jax.weights import key_map
from painformer_jax.weights.convert import ConversionError, convert, export
from painformer_jax.weights.torch.read import TorchCheckpoint

COUNT = 'patch_embed1.conv.1.num_batches_tracked'


@pytest.fixture(scope='module')
def released() -> dict[str, np.ndarray]:
  state = reference.state_dict()
  state[COUNT] = np.asarray(123_456, np.int64)
  return state


@pytest.fixture(scope='module')
def nano() -> dict[str, np.ndarray]:
  """A small model with a head of 3, in the released names."""
  return export(random_variables('painformer_nano', num_classes=3))


def random_variables(name: str, **overrides) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  abstract = functional.abstract_variables(make_config(name, **overrides))
  return {path: (10 * rng.random(a.shape)).astype(a.dtype) for path, a in abstract.items()}


def checkpoint(tensors) -> TorchCheckpoint:
  return TorchCheckpoint(
    tensors=dict(tensors), container='model', ignored=['epoch'], sha256='ab' * 32
  )


def without(tensors, *names):
  return {name: a for name, a in tensors.items() if name not in names}


def assert_equal(left, right):
  assert list(left) == list(right)
  for name in left:
    assert left[name].dtype == right[name].dtype, name
    assert left[name].shape == right[name].shape, name
    assert left[name].tobytes() == right[name].tobytes(), name


def test_released_checkpoint(released):
  result = convert(checkpoint(released), source='x.pth')
  expected = torch_names.variables(released)
  assert_equal(result.variables, {k: expected[k] for k in result.variables})
  assert len(result.variables) == len(expected)
  report = result.report
  assert (report.model, report.classes, report.has_head) == ('painformer', 1000, True)
  assert (report.tensors, report.converted) == (375, 375)
  assert report.parameters == 19_757_704
  assert report.dtypes == {'float32': 372, 'int64': 3}
  assert (report.source, report.sha256) == ('x.pth', 'ab' * 32)
  assert (report.container, report.ignored) == ('model', ['epoch'])
  for name in ('missing', 'unexpected', 'initialised', 'skipped', 'non_finite'):
    assert getattr(report, name) == []
  assert report.misshapen == {}


def test_a_name_under_two_rules_is_refused(nano, monkeypatch):
  monkeypatch.setattr(
    key_map, 'RULES', (*key_map.RULES, key_map.Rule('norm{n}.weight', 'other{n}/scale', 'as_is'))
  )
  with pytest.raises(
    InputError,
    match=(
      r'^norm1\.weight falls under 2 rules of the conversion: '
      r'norm\{n\}\.weight, norm\{n\}\.weight$'
    ),
  ):
    convert(checkpoint(nano), source='x')


def test_a_name_under_no_rule_is_refused(nano, monkeypatch):
  """What the table does not know has no place, even where the model has one."""
  rules = [r for r in key_map.RULES if r.torch != 'norm{n}.weight']
  monkeypatch.setattr(
    key_map,
    'matches',
    lambda key, matches=key_map.matches: [m for m in matches(key) if m.rule in rules],
  )
  with pytest.raises(ConversionError, match='norm1.weight') as caught:
    convert(checkpoint(nano), source='x')
  assert caught.value.report.unexpected == [f'norm{n}.weight' for n in (1, 2, 3, 4)]


def test_order_in_the_file_does_not_matter(released):
  shuffled = dict(sorted(released.items(), reverse=True))
  assert_equal(
    convert(checkpoint(shuffled), source='x').variables,
    convert(checkpoint(released), source='x').variables,
  )


def test_export_is_bit_exact(released):
  result = convert(checkpoint(released), source='x')
  assert_equal(export(result.variables), released)


def test_no_head_is_no_fault(released):
  bare = without(released, 'head.weight', 'head.bias')
  result = convert(checkpoint(bare), source='x')
  report = result.report
  assert (report.has_head, report.classes, report.tensors) == (False, 0, 373)
  assert report.parameters == 19_596_704
  assert_equal(export(result.variables), bare)


@pytest.mark.parametrize('classes', [1, 7, 110_000])
def test_any_head(nano, classes):
  tensors = nano | {
    'head.weight': np.ones((classes, 32), np.float32),
    'head.bias': np.ones(classes, np.float32),
  }
  result = convert(checkpoint(tensors), source='x')
  assert result.config.num_classes == result.report.classes == classes
  assert result.variables['head/kernel'].shape == (32, classes)


def test_other_float_types_are_cast(nano):
  tensors = nano | {
    'norm1.weight': nano['norm1.weight'].astype(np.float16),
    'norm1.bias': nano['norm1.bias'].astype(ml_dtypes.bfloat16),
    'norm2.bias': nano['norm2.bias'].astype(np.float64),
    COUNT: np.asarray(7, np.int32),
  }
  result = convert(checkpoint(tensors), source='x')
  for path in ('norm1/scale', 'norm1/bias', 'norm2/bias'):
    assert result.variables[path].dtype == np.float32
  np.testing.assert_array_equal(
    result.variables['norm1/bias'], tensors['norm1.bias'].astype(np.float32)
  )
  assert result.report.dtypes['bfloat16'] == 1
  assert result.variables['patch_embed1/bn1/count'] == 7


def test_values_that_are_not_finite_are_reported(nano):
  tensors = nano | {
    'norm1.weight': np.full(8, 1e300),
    'norm2.bias': np.full(16, np.nan, np.float32),
  }
  report = convert(checkpoint(tensors), source='x').report
  assert report.non_finite == ['norm1.weight', 'norm2.bias']


def refused(tensors, **options) -> ConversionError:
  with pytest.raises(ConversionError) as caught:
    convert(checkpoint(tensors), source='x.pth', **options)
  assert '\n' not in str(caught.value)
  return caught.value


def test_faults_are_all_listed(nano):
  tensors = without(nano, 'norm1.weight', 'block3.0.attn.q.bias') | {
    'extra.weight': np.ones(1, np.float32),
    'more': np.ones(1, np.float32),
    'norm2.weight': np.ones(5, np.float32),
    'norm2.bias': np.ones(16, np.int8),
    COUNT: np.asarray(2**40),
  }
  error = refused(tensors)
  assert error.report.missing == ['norm1.weight', 'block3.0.attn.q.bias']
  assert error.report.unexpected == ['extra.weight', 'more']
  assert error.report.misshapen == {
    'norm2.weight': 'shape [5] instead of [16]',
    'norm2.bias': 'int8 instead of float32',
    COUNT: 'count 1099511627776 instead of 0 to 2147483647',
  }
  for text in (
    '2 missing: norm1.weight, block3.0.attn.q.bias;',
    '2 unexpected: extra.weight, more;',
    'norm2.weight (shape [5] instead',
    'norm2.bias (int8 instead',
    COUNT,
    'nearest',
    'painformer_nano',
  ):
    assert text in str(error)


def test_keys_of_another_model(released):
  names = {f'layer{i}.0.conv1.weight': np.ones((4, 4), np.float32) for i in range(50)}
  error = refused(names)
  assert error.report.model == 'painformer'
  assert list(names) == error.report.unexpected
  counts = [name for name in released if name.endswith('num_batches_tracked')]
  assert error.report.missing == list(without(released, 'head.weight', 'head.bias', *counts))
  # Ten names of each kind and a count.
  assert '370 missing: patch_embed1.conv.0.weight, ' in str(error) and '360 more' in str(error)
  assert '50 unexpected: layer0.0.conv1.weight, ' in str(error) and '40 more' in str(error)
  assert 'layer10.' not in str(error) and len(str(error)) < 1500


@pytest.mark.parametrize(
  'shape,faults',
  [
    ((), ['head.weight']),
    ((3,), ['head.weight']),
    ((3, 31), ['head.weight']),
    ((4, 32), ['head.bias']),
  ],
)
def test_head_that_does_not_fit(nano, shape, faults):
  error = refused(nano | {'head.weight': np.ones(shape, np.float32)})
  assert list(error.report.misshapen) == faults


def test_head_that_claims_much_and_holds_nothing(nano):
  head = np.zeros((2**50, 0), np.float32)
  error = refused(without(nano, 'head.bias') | {'head.weight': head})
  assert error.report.unexpected == ['head.weight']


@pytest.mark.parametrize('lost', ['head.weight', 'head.bias'])
def test_half_a_head(nano, lost):
  assert refused(without(nano, lost)).report.missing == [lost]


def test_spectral_filter_of_an_absurd_size(nano):
  tensors = nano | {'block1.0.attn.complex_weight': np.zeros((2**20, 2, 2, 2), np.float32)}
  error = refused(tensors)
  assert list(error.report.misshapen) == ['block1.0.attn.complex_weight']


def test_what_is_allowed_gets_initial_values_or_is_left_out(nano):
  tensors = without(nano, 'norm1.weight', 'norm1.bias') | {
    'extra.weight': np.ones(1, np.float32),
    'norm2.bias': np.ones(5, np.float32),
  }
  result = convert(checkpoint(tensors), source='x', allow_missing=r'^norm1\.|^extra|^norm2\.bias$')
  report = result.report
  assert report.initialised == ['norm1.weight', 'norm1.bias', 'norm2.bias']
  assert report.skipped == ['extra.weight']
  assert report.converted == len(nano) - 3
  np.testing.assert_array_equal(result.variables['norm1/scale'], np.ones(8))
  np.testing.assert_array_equal(result.variables['norm2/bias'], np.zeros(16))
  assert list(export(result.variables)) == list(nano)
  functional.from_variables(result.config, result.variables)


def test_what_is_not_allowed_is_still_refused(nano):
  tensors = without(nano, 'norm1.weight', 'norm1.bias')
  error = refused(tensors, allow_missing='weight')
  assert '1 missing: norm1.bias (' in str(error)


def test_allow_missing_must_be_a_regular_expression(nano):
  with pytest.raises(InputError, match=re.escape("'(' is no regular")):
    convert(checkpoint(nano), source='x', allow_missing='(')


@pytest.mark.parametrize('pattern', ['', 'x*', 'norm1|', '.*', '^'])
def test_allow_missing_must_not_let_everything_pass(nano, pattern):
  with pytest.raises(InputError, match='also matches the empty string'):
    convert(checkpoint(without(nano, 'norm1.bias')), source='x', allow_missing=pattern)


def test_export_refuses_what_the_release_has_no_place_for():
  with pytest.raises(InputError, match='heads/task/kernel has no counterpart'):
    export({'heads/task/kernel': np.ones(3)})
