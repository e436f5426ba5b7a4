"""The folder of a run: what it records, and what may change when the run goes on."""

import dataclasses
import functools
import json

import pytest
from test_training_config import changed, valid

from painformer_jax.core import config_fields
from painformer_jax.core.errors import InputError
from painformer_jax.training import workdir as workdir_lib
from painformer_jax.training.config import (
  TrainConfig,
  changed_fields,
  from_config_dict,
  from_record,
)

open_workdir = functools.partial(workdir_lib.open_workdir, changed_fields=changed_fields)


# What may change when a run goes on.


def test_every_field_is_decided_upon():
  """A new field must be put on one side: it decides the result, or it does not."""
  decisive = {
    'model',
    'tasks',
    'steps',
    'optimizer',
    'seed',
    'weighting',
    'label_smoothing',
    'initial_weights',
    'batch_size',
    'shares',
    'temperature',
    'batch_size_multiple',
    'ema_decay',
    'non_finite',
  }
  assert decisive | TrainConfig.RESUMABLE == {f.name for f in dataclasses.fields(TrainConfig)}
  assert not decisive & TrainConfig.RESUMABLE


@pytest.mark.parametrize(
  'path,value,difference',
  [
    ('steps', 200, 'steps: 100 -> 200'),
    ('seed', 1, 'seed: 0 -> 1'),
    ('optimizer.learning_rate', 2e-3, 'optimizer.learning_rate: 0.001 -> 0.002'),
    ('tasks.a.batch_size', 16, 'tasks.a.batch_size: 8 -> 16'),
    ('tasks.a.augment', 'none', 'tasks.a.augment: "face" -> "none"'),
    ('model.drop_path_rate', 0.2, 'model.drop_path_rate: 0.1 -> 0.2'),
    ('model.gate', 'dft', 'model.gate: not there -> "dft"'),
    ('label_smoothing', 0.1, 'label_smoothing: 0.0 -> 0.1'),
    ('weighting', 'fixed', 'weighting: "uncertainty" -> "fixed"'),
  ],
)
def test_what_changed_is_named(path, value, difference, tmp_path):
  open_workdir(tmp_path / 'run', from_config_dict(valid()))
  with pytest.raises(InputError) as error:
    open_workdir(tmp_path / 'run', from_config_dict(changed(path, value)))
  assert str(error.value) == (
    f'{tmp_path}/run holds a run of another configuration ({difference}): take another '
    '--workdir, or the first configuration'
  )


def test_fields_that_leave_the_result_alone_may_change(tmp_path):
  open_workdir(tmp_path / 'run', from_config_dict(valid()))
  values = {
    'data_dir': 'elsewhere',
    'log_every': 3,
    'eval_every': 5,
    'checkpoint_every': 7,
    'keep_checkpoints': 9,
    'threads': 4,
    'workers': 2,
    'eval_batch_size': 6,
    'profile_at': 2,
    'profile_steps': 4,
    'wandb': 'pain',
    'max_skipped': 3,
    'grad_accum_steps': 2,
    'remat': 'full',
    'sharding': {'state': 'fsdp', 'model_parallelism': 2, 'dcn_parallelism': 1},
  }
  assert values.keys() == TrainConfig.RESUMABLE
  open_workdir(tmp_path / 'run', from_config_dict(valid() | values))
  record = json.loads((tmp_path / 'run' / 'config.json').read_text())
  assert {name: record[name] for name in values} == values


# config.json as written before fields were renamed: two runs, one of a batch divided among
# its tasks.
OLD_RECORD = {
  'accumulate': 2,
  'batch': 24,
  'checkpoint_every': 200,
  'data_dir': 'data',
  'ema_decay': 0.0,
  'eval_batch': 6,
  'eval_every': 0,
  'initial_weights': '',
  'keep_checkpoints': 2,
  'label_smoothing': 0.0,
  'log_every': 20,
  'max_skipped': 10,
  'model': {'drop_path_rate': 0.1, 'name': 'painformer_nano'},
  'non_finite': 'stop',
  'optimizer': {
    'b1': 0.9,
    'b2': 0.999,
    'clip_norm': 1.0,
    'final_ratio': 0.1,
    'frozen': [],
    'head_factor': 2.0,
    'layer_decay': 1.0,
    'learning_rate': 0.001,
    'warmup_steps': 0,
    'weight_decay': 0.1,
  },
  'profile_at': 0,
  'profile_steps': 5,
  'remat': 'inputs-products-all-all',
  'rows_multiple': 2,
  'seed': 0,
  'sharding': {'class_devices': 2, 'slices': 1, 'state': 'fsdp'},
  'shares': 'equal',
  'steps': 100,
  'tasks': {
    name: {
      'augment': augment,
      'cutmix': 0.0,
      'epochs': 0,
      'mixup': 0.0,
      'rows': 12,
      'share': 1.0,
      'weight': 1.0,
    }
    for name, augment in (('a', 'face'), ('b', 'none'))
  },
  'temperature': 2.0,
  'threads': 2,
  'wandb': '',
  'weighting': 'uncertainty',
  'workers': 0,
}
SIZES = {'a': 100, 'b': 300}


@pytest.mark.parametrize('batch_size', [24, 0])
def test_a_run_recorded_under_old_names_is_read_and_resumed(batch_size, tmp_path, capsys):
  (tmp_path / 'run').mkdir()
  path = tmp_path / 'run' / 'config.json'
  path.write_text(json.dumps(OLD_RECORD | {'batch': batch_size}))
  config = from_record(json.loads(path.read_text())).with_batch_sizes(SIZES)
  assert config == from_config_dict(
    {
      'model': {'name': 'painformer_nano', 'drop_path_rate': 0.1},
      'tasks': {'a': {'augment': 'face'}, 'b': {}}
      if batch_size
      else {'a': {'augment': 'face', 'batch_size': 12}, 'b': {'batch_size': 12}},
      'data_dir': 'data',
      'steps': 100,
      'batch_size': batch_size,
      'batch_size_multiple': 2,
      'eval_batch_size': 6,
      'grad_accum_steps': 2,
      'remat': 'full-dots-none-none',
      'sharding': {'state': 'fsdp', 'model_parallelism': 2, 'dcn_parallelism': 1},
      'optimizer': {
        'learning_rate': 1e-3,
        'end_learning_rate_ratio': 0.1,
        'head_learning_rate_multiplier': 2.0,
      },
    }
  ).with_batch_sizes(SIZES)
  assert changed_fields(config, OLD_RECORD | {'batch': batch_size}) == []
  assert changed_fields(config, OLD_RECORD | {'batch': 48}) == [f'batch_size: 48 -> {batch_size}']
  assert capsys.readouterr().err == ''  # Nobody can do anything about a record.
  open_workdir(tmp_path / 'run', config)
  record = json.loads(path.read_text())  # Written anew, under the names of today.
  assert record == json.loads(config.to_json())


def test_old_names_in_a_config_give_the_same_run(monkeypatch, capsys):
  monkeypatch.setattr(config_fields, '_WARNED', set())
  config = from_config_dict(OLD_RECORD | {'batch': 0})
  assert config == from_record(OLD_RECORD | {'batch': 0})
  lines = capsys.readouterr().err.splitlines()
  assert 'config.accumulate is now called config.grad_accum_steps' in lines
  assert 'config.tasks.a.rows is now called config.tasks.a.batch_size' in lines
  assert len(lines) == len(set(lines)) == 10


def test_the_order_of_tasks_changes_nothing():
  tree = valid()
  tree['tasks'] = dict(reversed(tree['tasks'].items()))
  config = from_config_dict(tree)
  assert config.to_json() == from_config_dict(valid()).to_json()
  assert list(config.tasks) == ['a', 'b']


# Folders.


def test_a_folder_that_holds_something_else(tmp_path):
  (tmp_path / 'thesis.tex').write_text('')
  with pytest.raises(InputError, match='is not empty and holds no run: take another --workdir'):
    open_workdir(tmp_path, from_config_dict(valid()))
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_a_run_killed_while_it_made_its_folder_can_begin_again(tmp_path):
  for name in ('.0123.partial', 'config.json.tmp'):  # Of this release and of older ones.
    (tmp_path / name).write_text('{"mod')
  open_workdir(tmp_path, from_config_dict(valid()))
  assert json.loads((tmp_path / 'config.json').read_text())['model']


@pytest.mark.parametrize('content', ['', '{"mod', '[]', '3'])
def test_a_damaged_record(tmp_path, content):
  (tmp_path / 'config.json').write_text(content)
  with pytest.raises(InputError, match='config.json is damaged: take another --workdir'):
    open_workdir(tmp_path, from_config_dict(valid()))


def test_a_folder_that_cannot_be_made(tmp_path):
  (tmp_path / 'file').write_text('')
  for workdir in (tmp_path / 'file', tmp_path / 'file' / 'run'):
    with pytest.raises(InputError, match='cannot be used: Not a directory'):
      open_workdir(workdir, from_config_dict(valid()))


def test_a_folder_must_be_one(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(InputError, match='--workdir gs://bucket/run is no folder'):
    open_workdir('gs://bucket/run', from_config_dict(valid()))
  assert not list(tmp_path.iterdir())


def test_processes_with_folders_of_their_own(tmp_path, monkeypatch):
  """The one that does not write waits for what the first wrote, which may come late."""
  monkeypatch.setattr(workdir_lib, 'is_main', lambda: False)
  monkeypatch.setattr(workdir_lib.jax, 'process_index', lambda: 1)
  slept = []
  monkeypatch.setattr(workdir_lib.time, 'sleep', lambda seconds: slept.append(seconds))
  monkeypatch.setattr(workdir_lib.time, 'monotonic', lambda: 10.0 * len(slept))
  with pytest.raises(
    InputError,
    match=(
      'config.json, which the first process wrote, is not there for process 1: --workdir '
      'must be a folder that all processes share'
    ),
  ):
    open_workdir(tmp_path / 'own', from_config_dict(valid()))
  assert len(slept) == 7

  (tmp_path / 'shared').mkdir()
  monkeypatch.setattr(
    workdir_lib.time, 'sleep', lambda _: (tmp_path / 'shared/config.json').touch()
  )
  open_workdir(tmp_path / 'shared', from_config_dict(valid()))


@pytest.mark.parametrize(
  'path',
  ['batch_size', 'shares', 'tasks.a.epochs', 'tasks.b.mixup', 'optimizer.b1', 'label_smoothing'],
)
def test_a_record_from_before_a_field_was_there(path):
  config = from_config_dict(changed('steps', 100))
  stored = json.loads(config.to_json())
  *parents, name = path.split('.')
  tree = stored
  for parent in parents:
    tree = tree[parent]
  default = tree.pop(name)
  assert changed_fields(config, stored) == []
  tree[name] = 'other'
  assert changed_fields(config, stored) == [f'{path}: "other" -> {json.dumps(default)}']
