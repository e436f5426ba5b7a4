"""The table of released names and layouts."""

import numpy as np
import pytest
import reference
import torch_names

from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.config import PRESETS
from painformer_jax.weights import key_map

MANIFEST = reference.manifest()


@pytest.mark.parametrize('key', MANIFEST)
def test_each_released_name_falls_under_one_rule_and_comes_back(key):
  [match] = key_map.matches(key)
  assert match.name == torch_names.path(key, len(MANIFEST[key]))
  back = key_map.to_torch(match.name)
  assert (back.name, back.rule) == (key, match.rule)


@pytest.mark.parametrize('rule', key_map.RULES, ids=lambda rule: rule.torch)
def test_each_rule_is_used_by_the_release(rule):
  assert any(key_map.matches(key)[0].rule is rule for key in MANIFEST)


def test_rules_are_distinct():
  for side in ('torch', 'ours'):
    names = [getattr(rule, side) for rule in key_map.RULES]
    assert len(set(names)) == len(names)


def test_targets_are_filled_once():
  targets = [key_map.matches(key)[0].name for key in MANIFEST]
  assert len(set(targets)) == len(MANIFEST) == 375


def test_order_is_that_of_the_release():
  found = [key_map.to_torch(key_map.matches(key)[0].name) for key in MANIFEST]
  for shuffled in (found[::-1], sorted(found, key=lambda match: match.name)):
    ordered = sorted(shuffled, key=key_map.torch_order)
    assert [match.name for match in ordered] == list(MANIFEST)


# The SpectFormers differ from the release in sizes alone, and are slow to trace.
@pytest.mark.parametrize('preset', [name for name in PRESETS if not name.startswith('spect')])
def test_rules_cover_every_preset(preset):
  """Both ways, and one to one."""
  paths = list(functional.abstract_variables(PRESETS[preset].config))
  names = [key_map.to_torch(path).name for path in paths]
  assert len(set(names)) == len(paths)
  assert [[m.name for m in key_map.matches(name)] for name in names] == [[path] for path in paths]


@pytest.mark.parametrize(
  'key',
  [
    '',
    'head',
    'head.weight.x',
    'xhead.weight',
    'block1.attn.q.weight',
    'block1.x.norm1.weight',
    'block.0.norm1.weight',
    'norm.weight',
    'block1.0.mlp.dwconv.weight',
    'patch_embed1xproj.weight',
    'block1.\u0661.norm1.weight',
    'head.weight\n',
  ],
)
def test_other_names_fall_under_none(key):
  assert key_map.matches(key) == []


def test_other_paths_have_no_counterpart():
  with pytest.raises(InputError, match='task/kernel has no counterpart'):
    key_map.to_torch('task/kernel')


@pytest.mark.parametrize(
  'layout,torch_shape,index,ours_index',
  [
    ('as_is', (5,), (3,), (3,)),
    ('linear', (5, 7), (3, 6), (6, 3)),
    ('conv', (5, 7, 3, 2), (4, 6, 2, 1), (2, 1, 6, 4)),
    ('depthwise', (5, 1, 3, 2), (4, 0, 2, 1), (2, 1, 4)),
    ('counter', (), (), ()),
  ],
)
def test_layouts(layout, torch_shape, index, ours_index):
  """One marked element lands where it must, and comes back."""
  array = np.zeros(torch_shape)
  array[index] = 1
  ours = key_map.LAYOUTS[layout].ours(array)
  assert ours[ours_index] == 1 and ours.size == array.size
  np.testing.assert_array_equal(key_map.LAYOUTS[layout].torch(ours), array)


def test_every_layout_is_tested():
  tested = {'as_is', 'linear', 'conv', 'depthwise', 'counter'}
  assert {rule.layout for rule in key_map.RULES} == tested
  assert set(key_map.LAYOUTS) == tested


@pytest.mark.parametrize('key', MANIFEST)
def test_shapes(key):
  [match] = key_map.matches(key)
  shape = torch_names.array(key, np.zeros(MANIFEST[key])).shape
  assert key_map.torch_shape(match, shape) == MANIFEST[key]
