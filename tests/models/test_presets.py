"""Named models: what they hold, and names and values that are none."""

import dataclasses
import json

import numpy as np
import pytest
import reference
import torch_names

import painformer_jax as pj
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.config import PRESETS, PainFormerConfig
from painformer_jax.models.registry import create, make_config

# Preset -> learned values without a head, and with one of 1000 classes. A
# preset without a row fails.
PARAMETERS = {
  # published with two heads: 22.2 M, 33.1 M, 54.7 M
  'spectformer_s': (21_328_928, 21_777_928),
  'spectformer_b': (32_026_880, 32_539_880),
  'spectformer_l': (53_649_792, 54_162_792),
  'tiny_biomoe': (2_897_856, 2_994_856),
  'painformer': (19_596_704, 19_757_704),  # published: 19.60 M
  'painformer_figure': (19_322_528, 19_483_528),
  'painformer_small': (1_648_240, 1_809_240),
  'painformer_nano': (40_904, 73_904),
}


@pytest.mark.parametrize('name', pj.list_models())
def test_parameter_count(name):
  assert name in PARAMETERS, f'{name} has no row in the table'
  bare, headed = PARAMETERS[name]
  assert functional.count_parameters(make_config(name, num_classes=1000)) == headed
  width = make_config(name).embedding_width
  assert headed == bare + 1000 * (width + 1)
  assert PRESETS[name].parameters == bare
  assert PRESETS[name].config.num_classes == 0
  assert PRESETS[name].evidence


@pytest.mark.parametrize(
  'name, millions', [('spectformer_s', 22.2), ('spectformer_b', 33.1), ('spectformer_l', 54.7)]
)
def test_spectformers_have_the_published_counts(name, millions):
  """With the two heads of 1000 classes that their published code makes."""
  bare, headed = PARAMETERS[name]
  assert round((2 * headed - bare) / 1e6, 1) == millions


def test_table_has_no_stale_rows():
  assert PARAMETERS.keys() == set(pj.list_models())


@pytest.mark.parametrize('classes, tensors', [(0, 373), (1000, 375)])
def test_arrays_are_those_of_the_release(classes, tensors):
  config = make_config('painformer', num_classes=classes)
  wanted = {
    torch_names.path(name, len(shape)): torch_names.array(name, np.empty(shape)).shape
    for name, shape in reference.manifest().items()
    if classes or not name.startswith('head.')
  }
  actual = {path: a.shape for path, a in functional.abstract_variables(config).items()}
  assert actual == wanted and len(actual) == tensors


def test_unknown_names_get_a_hint():
  with pytest.raises(InputError, match='did you mean painformer_small'):
    create('painformer_smal')
  with pytest.raises(InputError, match='known: painformer, painformer_figure'):
    create('zebra')
  with pytest.raises(InputError, match="no field 'images_size'; did you mean image_size"):
    create('painformer_nano', images_size=64)


@pytest.mark.parametrize(
  'field, value',
  [
    ('gate', 'fourier'),
    ('dtype', 'float16'),
    ('depthwise', 'fast'),
    ('gate_precision', 'low'),
    ('drop_path_rate', 1.0),
    ('image_size', 16),
    ('mixers', ('s', 's', 'a')),
    ('mixers', ('s', 's', 'x', 'a')),
    ('mixers', ('s', '', 'a', 'a')),
    ('heads', (1, 2, 5, 4)),
  ],
)
def test_bad_field_is_named(field, value):
  with pytest.raises(InputError, match='painformer_nano') as caught:
    make_config('painformer_nano', **{field: value})
  assert {'heads': 'heads'}.get(field, field) in str(caught.value)
  with pytest.raises(ValueError):
    PainFormerConfig(**{field: value if field != 'heads' else (2, 4, 7, 16)})


@pytest.mark.parametrize(
  'field, value',
  [
    ('num_classes', -1),
    ('num_classes', 'x'),
    ('num_classes', 2.5),
    ('num_classes', True),
    ('image_size', 'a'),
    ('image_size', 40.5),
    ('image_size', None),
    ('widths', 5),
    ('widths', ()),
    ('widths', (8, 16, 24, '32')),
    ('heads', (0, 0, 0, 0)),
    ('heads', 'aaaa'),
    ('mlp_ratios', (2, 2, 2, -2)),
    ('stem_width', 0),
    ('post_heads', 0),
    ('post_heads', 5),
    ('post_blocks', -1),
    ('post_mlp_ratio', 0),
    ('mixers', 'ssaa'),
    ('mixers', ('s', 's', 1, 'a')),
    ('drop_path_rate', 'x'),
    ('drop_path_rate', float('nan')),
    ('dtype', ['float32']),
    ('mean', 0.5),
    ('mean', (0.5, 0.5)),
    ('mean', (0.5, 0.5, float('nan'))),
    ('std', (0.2, 0.2, 0)),
    ('std', (0.2, '0.2', 0.2)),
  ],
)
def test_a_value_of_another_type_or_size_is_one_line(field, value):
  with pytest.raises(InputError, match=f'painformer_nano.*{field}') as caught:
    create('painformer_nano', **{field: value})
  assert '\n' not in str(caught.value)


def test_numbers_of_numpy_and_lists_are_taken():
  config = make_config(
    'painformer_nano',
    num_classes=np.int64(3),
    heads=[1, 2, 3, np.int32(4)],
    mixers=['s', 's', 'a', 'a'],
  )
  assert config == make_config('painformer_nano', num_classes=3)
  assert hash(config) and json.dumps(dataclasses.asdict(config))


def test_a_name_that_is_none():
  for name in 5, None, ['painformer']:
    with pytest.raises(InputError, match='no model'):
      create(name)
