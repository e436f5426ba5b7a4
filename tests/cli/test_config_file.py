"""Config files and overrides: loading, and the names of older releases."""

import dataclasses
import typing
import warnings
from collections.abc import Mapping

import pytest

from painformer_jax.cli.config_file import load_config
from painformer_jax.core import config_fields
from painformer_jax.core.config_fields import Renamed, build
from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
  """A table in a table."""

  RENAMED: typing.ClassVar = Renamed(fields={'rows': 'batch_size'})

  batch_size: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config:
  """What the file describes."""

  RENAMED: typing.ClassVar = Renamed(
    fields={'accumulate': 'grad_accum_steps'}, values={'remat': {'inputs': 'full'}}
  )

  grad_accum_steps: int = 1
  remat: str = 'none'
  tasks: Mapping[str, Task] = dataclasses.field(default_factory=dict)


# As a config file starts from a table of defaults and sets some of them.
FILE = """
from ml_collections import ConfigDict
def get_config(extra=''):
  config = ConfigDict({{'grad_accum_steps': 1, 'remat': 'none'}})
  config.tasks = {{'pain': {{'{rows}': 8}}}}
  {line}
  return config
"""


@pytest.fixture
def load(tmp_path, monkeypatch, capsys):
  """Writes a file, loads it, and returns the config with the lines on stderr."""
  monkeypatch.setattr(config_fields, '_WARNED', set())

  def call(*overrides, line='', rows='batch_size'):
    path = tmp_path / 'config.py'
    path.write_text(FILE.format(line=line, rows=rows))
    config = load_config(str(path), overrides=overrides, kind=Config)
    assert config.remat in ('none', 'full')
    return build(Config, config.to_dict(), where='config'), capsys.readouterr().err.splitlines()

  return call


ACCUMULATE = 'config.accumulate is now called config.grad_accum_steps'


@pytest.mark.parametrize('line', ['', 'config.accumulate = 2', 'config.grad_accum_steps = 2'])
@pytest.mark.parametrize('override', ['accumulate', 'grad_accum_steps'])
def test_old_and_new_names_in_file_and_override(load, line, override):
  config, lines = load(f'--config.{override}=4', line=line)
  assert config.grad_accum_steps == 4
  assert lines == ([ACCUMULATE] if 'config.accumulate' in line or override == 'accumulate' else [])


def test_an_old_name_in_the_file_alone(load):
  config, lines = load(line='config.accumulate = 2')
  assert config.grad_accum_steps == 2 and lines == [ACCUMULATE]


def test_an_old_name_in_a_nested_table(load):
  config, lines = load(rows='rows')
  assert config.tasks['pain'].batch_size == 8
  assert lines == ['config.tasks.pain.rows is now called config.tasks.pain.batch_size']
  config, lines = load('--config.tasks.pain.rows=16')
  assert config.tasks['pain'].batch_size == 16 and lines == []  # Once a process.


def test_an_old_value(load):
  config, lines = load('--config.remat=inputs')
  assert config.remat == 'full' and lines == ["config.remat: 'inputs' is now called 'full'"]


def test_old_and_new_names_that_disagree(load):
  with pytest.raises(InputError, match='accumulate is 2 and config.grad_accum_steps is 3'):
    load(line='config.grad_accum_steps, config.accumulate = 3, 2')
  with pytest.raises(InputError, match='are the same field'):
    load('--config.accumulate=4', '--config.grad_accum_steps=2')
  config, _ = load('--config.accumulate=4', '--config.grad_accum_steps=4')
  assert config.grad_accum_steps == 4


def test_a_file_is_run_without_a_warning_of_python(load):
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    load('--config.grad_accum_steps=4')
