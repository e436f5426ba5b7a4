"""Every file in configs/: it is sound, and what it describes can be trained."""

import math

import pytest
from repository import ROOT
from tiny_tasks import store_tiny
from training_runs import SMALL_MODEL, rows

from painformer_jax.cli.config_file import load_config
from painformer_jax.core.errors import InputError
from painformer_jax.training.config import from_config_dict
from painformer_jax.training.loop import pretrain

# Those of assessments are in test_assess_config.
FILES = sorted(
  file for file in (ROOT / 'configs').glob('*.py') if not file.stem.startswith('assess_')
)


@pytest.fixture
def load(monkeypatch):
  monkeypatch.chdir(ROOT)
  return lambda file, *overrides: load_config(str(file), overrides=overrides)


def test_there_are_configs():
  assert {'demo', 'tiny'} <= {file.stem for file in FILES}


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_it_is_sound_as_it_is(file, load):
  config = from_config_dict(load(file))
  assert config.model_config().drop_path_rate == config.model['drop_path_rate']
  assert all(task.batch_size % 4 == 0 for task in config.tasks.values())  # For up to 4 devices.
  assert load(file, '--config.steps=7').steps == 7


def test_only_the_override_that_is_wrong_is_named(load):
  with pytest.raises(InputError) as caught:
    load('configs/demo.py', '--config.data_dir=d', '--config.steps=abc', '--config.log_every=5')
  assert str(caught.value).startswith('--config.steps=abc: ') and "'abc'" in str(caught.value)
  assert 'data_dir' not in str(caught.value) and 'log_every' not in str(caught.value)


@pytest.mark.parametrize('file', FILES, ids=lambda file: file.stem)
def test_its_docstring_says_what_it_is(file):
  first = compile(file.read_text(), file, 'exec').co_consts[0]
  assert isinstance(first, str) and first.splitlines()[0].endswith('.')


# Other tests of training run these as they are.
ELSEWHERE = ('tiny', 'pretrain_tiny_corpus')


@pytest.mark.parametrize(
  'file',
  [
    pytest.param(file, id=file.stem, marks=pytest.mark.slow if file.stem in ELSEWHERE else ())
    for file in FILES
  ],
)
def test_it_trains_two_steps_in_small(file, load, tmp_path, tmp_path_factory):
  """With its own tasks, rows, augmentation, loss and optimizer."""
  config = load(file)
  with config.unlocked():
    config.model = {
      'name': 'painformer_nano',
      **SMALL_MODEL,
      'drop_path_rate': config.model.drop_path_rate,
    }
  for number, name in enumerate(config.tasks):
    store_tiny(tmp_path / 'data', name, train=6, test=4, classes=2 + number % 2)
  config.update(data_dir=str(tmp_path / 'data'), steps=2, eval_batch_size=4)
  config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, 1)
  report = pretrain(from_config_dict(config), tmp_path / 'run')
  assert set(report['tasks']) == set(config.tasks)
  figures, evaluated = rows(tmp_path / 'run')
  assert figures['step'] == evaluated['step'] == 2
  assert all(math.isfinite(value) for value in (figures | evaluated).values())


def test_a_file_may_take_an_argument(load):
  config = from_config_dict(load(f'{ROOT}/configs/tiny.py:one,two,three'))
  assert config.batch_sizes == {'one': 8, 'three': 8, 'two': 8}
  assert load(f'{ROOT}/configs/demo.py:painformer').model.name == 'painformer'
