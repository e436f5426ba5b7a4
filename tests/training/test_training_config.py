import copy
import dataclasses
import functools
import json

import ml_collections
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.core.errors import InputError
from painformer_jax.models import registry
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.training import workdir as workdir_lib
from painformer_jax.training.config import (
  OptimizerConfig,
  TaskConfig,
  TrainConfig,
  changed_fields,
  defaults,
  from_config_dict,
)

open_workdir = functools.partial(workdir_lib.open_workdir, changed_fields=changed_fields)


def valid() -> dict:
  return {
    'model': {'name': 'painformer_nano', 'drop_path_rate': 0.1},
    'tasks': {'a': {'batch_size': 8, 'augment': 'face'}, 'b': {'batch_size': 16}},
    'data_dir': 'data',
    'steps': 100,
    'optimizer': {'learning_rate': 1e-3},
  }


def changed(path, value):
  """The valid configuration with one field set, or left out where it is `...`."""
  tree = valid()
  *parents, name = path.split('.')
  node = tree
  for parent in parents:
    node = node.setdefault(parent, {})
  if value is ...:
    del node[name]
  else:
    node[name] = value
  return tree


def refusal(tree) -> str:
  with pytest.raises(InputError) as error:
    from_config_dict(tree)
  assert len(str(error.value).splitlines()) == 1
  return str(error.value)


def test_a_valid_configuration_becomes_dataclasses():
  config = from_config_dict(ml_collections.ConfigDict(valid()))
  assert config == from_config_dict(valid())
  assert config.tasks == {
    'a': TaskConfig(batch_size=8, augment='face'),
    'b': TaskConfig(batch_size=16),
  }
  assert config.optimizer == OptimizerConfig(learning_rate=1e-3)
  assert config.batch_sizes == {'a': 8, 'b': 16}
  assert config.model_config() == registry.make_config('painformer_nano', drop_path_rate=0.1)


def test_the_record_on_disk_is_the_configuration():
  """Lists in place of tuples, as in JSON, are the same."""
  tree = valid()
  tree['model'] |= {'widths': (8, 16), 'mixers': ('s', 'a'), 'heads': (1, 2), 'mlp_ratios': (2, 2)}
  config = from_config_dict(tree)
  again = from_config_dict(json.loads(config.to_json()))
  assert again == config and again.model_config() == config.model_config()
  assert hash(again.model_config())
  assert changed_fields(config, json.loads(config.to_json())) == []


@pytest.mark.parametrize('name', registry.list_models())
def test_defaults_are_a_configuration_for_every_model(name):
  config = defaults(name)
  config.steps, config.tasks = 10, {'a': {'batch_size': 8}}
  checked = from_config_dict(config)
  assert checked.model_config() == registry.make_config(name, num_classes=0)
  assert checked.optimizer == OptimizerConfig()


@pytest.mark.parametrize(
  'path,message',
  [
    ('stepz', "config has no field 'stepz'; did you mean steps? (known: model, tasks, "),
    ('log_evry', "config has no field 'log_evry'; did you mean log_every?"),
    ('zzz', "config has no field 'zzz' (known: "),
    ('model.imagesize', "config.model has no field 'imagesize'; did you mean image_size?"),
    ('model.num_classes', "config.model has no field 'num_classes'"),
    ('tasks.a.batch_siz', "config.tasks.a has no field 'batch_siz'; did you mean batch_size?"),
    (
      'optimizer.learning_rat',
      "config.optimizer has no field 'learning_rat'; did you mean learning_rate?",
    ),
    ('optimizer.zzz', "config.optimizer has no field 'zzz' (known: learning_rate, "),
  ],
)
def test_an_unknown_field_is_named(path, message):
  assert message in refusal(changed(path, 1))


@pytest.mark.parametrize(
  'path,message',
  [
    ('steps', 'config.steps is missing'),
    ('data_dir', 'config.data_dir is missing'),
    ('tasks', 'config.tasks is missing'),
    ('model', 'config.model is missing'),
    ('model.name', "config.model needs a 'name', one of: painformer, "),
    ('tasks.b.batch_size', 'config.tasks.b.batch_size is 0, below 1: give every task a batch'),
  ],
)
def test_a_missing_field_is_named(path, message):
  assert message in refusal(changed(path, ...))


WRONG = {
  int: [1.5, '3', None, True, [1]],
  float: ['1', None, False, [1.0]],
  str: [1, None, ['a']],
  dict: [1, 'a', None, ['a']],
}


def wrong_types():
  """Every field of every table with values of all wrong types."""
  for prefix, kind in (
    ('', TrainConfig),
    ('optimizer.', OptimizerConfig),
    ('tasks.b.', TaskConfig),
    ('model.', PainFormerConfig),
  ):
    for field in dataclasses.fields(kind):
      if field.type in WRONG and field.name != 'num_classes':
        yield from ((prefix + field.name, value) for value in WRONG[field.type])
  for path in ('model', 'tasks', 'optimizer', 'tasks.a'):
    yield from ((path, value) for value in WRONG[dict])
  yield from (
    ('model.widths', 8),
    ('model.widths', (8, 'x')),
    ('model.mixers', ('s', 1)),
    ('model.heads', (1, 2.0, 3, 4)),
    ('model.name', 5),
    ('weighting', 3),
  )


@pytest.mark.parametrize('path,value', list(wrong_types()))
def test_a_value_of_another_type_is_named(path, value):
  message = refusal(changed(path, value))
  assert message.startswith(f'config.{path} is ')


def test_numbers_of_either_kind_serve_as_floats():
  config = from_config_dict(changed('optimizer.learning_rate', 1))
  assert type(config.optimizer.learning_rate) is float


@pytest.mark.parametrize(
  'path,value,message',
  [
    ('steps', 0, 'config.steps is 0, below 1'),
    ('seed', -1, 'config.seed is -1, below 0'),
    ('log_every', 0, 'config.log_every is 0, below 1'),
    ('checkpoint_every', 0, 'config.checkpoint_every is 0, below 1'),
    ('keep_checkpoints', 0, 'config.keep_checkpoints is 0, below 1'),
    ('eval_every', -1, 'config.eval_every is -1, below 0'),
    ('eval_batch_size', 0, 'config.eval_batch_size is 0, below 1'),
    ('threads', 0, 'config.threads is 0, below 1'),
    ('workers', -1, 'config.workers is -1, below 0'),
    ('label_smoothing', 1.0, 'config.label_smoothing is 1.0, not in [0, 1)'),
    ('label_smoothing', float('nan'), 'config.label_smoothing is nan'),
    (
      'weighting',
      'uncertain',
      "config.weighting is 'uncertain'; did you mean uncertainty? (known: uncertainty, fixed)",
    ),
    ('tasks', {}, 'config.tasks is empty'),
    ('tasks.a.batch_size', 0, 'config.tasks.a.batch_size is 0, below 1'),
    ('tasks.a.augment', 'faces', 'config.tasks.a.augment: '),
    ('tasks.a.epochs', -1, 'config.tasks.a.epochs is -1, below 0'),
    ('tasks.a.share', 2.0, "config.tasks.a.share is 2.0: set config.shares to 'explicit'"),
    (
      'batch_size',
      24,
      'config.tasks.a.batch_size is 8, but config.batch_size is divided among the tasks',
    ),
    ('batch_size', -1, 'config.batch_size is -1, below 0'),
    ('batch_size_multiple', 0, 'config.batch_size_multiple is 0, below 1'),
    ('shares', 'fair', "config.shares is 'fair' (known: equal, proportional, "),
    ('optimizer.warmup_steps', 100, 'config.optimizer.warmup_steps is 100, not in [0, 100)'),
    ('optimizer.warmup_steps', -1, 'config.optimizer.warmup_steps is -1'),
    ('optimizer.learning_rate', -1e-3, 'config.optimizer.learning_rate is -0.001, below 0'),
    ('optimizer.learning_rate', float('inf'), 'config.optimizer.learning_rate is inf'),
    ('optimizer.weight_decay', float('nan'), 'config.optimizer.weight_decay is nan'),
    ('optimizer.clip_norm', -1.0, 'config.optimizer.clip_norm is -1.0'),
    ('optimizer.end_learning_rate_ratio', -0.1, 'config.optimizer.end_learning_rate_ratio is -0.1'),
    ('optimizer.b1', 1.0, 'config.optimizer.b1 is 1.0, not in [0, 1)'),
    ('optimizer.b2', -0.5, 'config.optimizer.b2 is -0.5, not in [0, 1)'),
    ('optimizer.layer_decay', 0.0, 'config.optimizer.layer_decay is 0.0, not in (0, 1]'),
    (
      'optimizer.head_learning_rate_multiplier',
      -1.0,
      'config.optimizer.head_learning_rate_multiplier is -1.0',
    ),
    ('optimizer.frozen', ['('], "config.optimizer.frozen: '(' is no regular expression"),
    ('grad_accum_steps', 0, 'config.grad_accum_steps is 0, below 1'),
    ('max_skipped', 0, 'config.max_skipped is 0, below 1'),
    ('ema_decay', 1.0, 'config.ema_decay is 1.0, not in [0, 1)'),
    ('non_finite', 'skp', "config.non_finite is 'skp'; did you mean skip?"),
    ('remat', 'fulll', "config.remat is 'fulll'; did you mean full? (known: none, dots,"),
    ('remat', 'none-full', "config.remat names 2 stages of 4: 'none-full'"),
    ('sharding', {'state': 'zero'}, "config.sharding.state is 'zero' (known: replicated, fsdp)"),
    (
      'sharding',
      {'model_parallelism': 3},
      'config.sharding.model_parallelism is 3, not a power of two',
    ),
    ('sharding', {'dcn_parallelism': -1}, 'config.sharding.dcn_parallelism is -1, below 0'),
    ('sharding', {'stat': 1}, "config.sharding has no field 'stat'; did you mean state?"),
    (
      'model.name',
      'painformer_nan',
      "config.model: no model 'painformer_nan'; did you mean painformer_nano?",
    ),
    ('model.image_size', 8, 'config.model: model painformer_nano: image_size 8 is below 32'),
    ('model.drop_path_rate', 1.0, 'config.model: model painformer_nano: drop_path_rate 1.0'),
    ('model.dtype', 'bfloat61', "config.model.dtype is 'bfloat61'; did you mean bfloat16?"),
    ('model.gate', 'ftt', "config.model.gate is 'ftt'; did you mean fft? (known: fft, dft)"),
    ('model.heads', (1, 2, 0, 4), 'config.model.heads is (1, 2, 0, 4), below 1'),
    ('model.stem_width', -8, 'config.model.stem_width is -8, below 1'),
    ('model.widths', (8, 16), 'config.model: model painformer_nano: mixers has 4 entries for 2'),
  ],
)
def test_a_value_out_of_range_is_named(path, value, message):
  assert message in refusal(changed(path, value))


def test_a_weight_is_for_fixed_weighting():
  tree = changed('tasks.a.weight', 0.5)
  assert 'config.tasks.a.weight is 0.5, but weights are learned: set config.weighting to' in (
    refusal(tree)
  )
  assert from_config_dict(tree | {'weighting': 'fixed'}).tasks['a'].weight == 0.5
  tree['tasks']['a']['weight'] = -1.0
  assert 'config.tasks.a.weight is -1.0' in refusal(tree | {'weighting': 'fixed'})


TEXT = st.text('aé."', max_size=3)
JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
  lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
  max_leaves=4,
)
PATHS = [
  'model',
  'tasks',
  'steps',
  'optimizer',
  'weighting',
  'tasks.a',
  'tasks.a.batch_size',
  'model.name',
  'model.widths',
  'model.dtype',
  'optimizer.b1',
  'data_dir',
  'threads',
]


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(PATHS), JSON)
def test_anything_else_is_one_line_or_fits(path, value):
  try:
    from_config_dict(changed(path, copy.deepcopy(value)))
  except InputError as error:
    assert str(error).startswith('config') and len(str(error).splitlines()) == 1


def divided(**changes):
  return from_config_dict(changed('tasks', {'a': {}, 'b': {}}) | {'batch_size': 24, **changes})


@pytest.mark.parametrize(
  'changes,rows',
  [
    ({}, {'a': 12, 'b': 12}),
    ({'shares': 'proportional'}, {'a': 6, 'b': 18}),
    ({'shares': 'proportional', 'batch_size_multiple': 4}, {'a': 8, 'b': 16}),
    ({'shares': 'temperature', 'temperature': 2.0}, {'a': 9, 'b': 15}),
    (
      {'shares': 'explicit', 'tasks': {'a': {'share': 0.5}, 'b': {'share': 2.5}}},
      {'a': 4, 'b': 20},
    ),
  ],
)
def test_a_batch_is_divided(changes, rows):
  config = divided(**changes)
  assert config.batch_sizes == {'a': 0, 'b': 0}
  assert config.with_batch_sizes({'a': 100, 'b': 300}).batch_sizes == rows


def test_a_batch_that_cannot_be_divided():
  with pytest.raises(InputError, match='config.batch_size: a batch size of 24 cannot be divided'):
    divided(batch_size_multiple=16).with_batch_sizes({'a': 1, 'b': 1})


def test_rows_that_are_named_stay():
  config = from_config_dict(changed('steps', 100))
  assert config.with_batch_sizes({}) is config
