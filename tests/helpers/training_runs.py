"""Training in small: a model that compiles quickly, and runs of the command line.

The compiler takes most of the time of a short run. Runs share the compiled programs of
the tests, which changes no result (`test_training_resume` compares).
"""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
from command_line import run_command
from repository import ROOT, environment
from tiny_tasks import store_tiny

from painformer_jax.parallel.mesh import put_batch
from painformer_jax.training.config import OptimizerConfig, defaults, from_config_dict
from painformer_jax.training.setup import assemble
from painformer_jax.training.speed import MFU, RATE, RATE_PER_CHIP, SECONDS

# Two stages of painformer_nano, with everything that it is made of.
SMALL_MODEL = dict(
  widths=(8, 16), mixers=('s', 'a'), heads=(1, 2), mlp_ratios=(2, 2), image_size=16, stem_width=4
)

# Code that is made quickly and runs slowly.
QUICK_COMPILE = '--xla_backend_optimization_level=0'

# The same for the command line.
SMALL_OVERRIDES = {
  f'model.{name}': str(value).replace(' ', '') for name, value in SMALL_MODEL.items()
}

TASKS = {'alpha': 3, 'beta': 2}


def shared_folder(tmp_path_factory) -> pathlib.Path:
  """The prepared tiny tasks of a test session, in data/."""
  folder = tmp_path_factory.getbasetemp() / 'training'
  if not folder.exists():
    folder.mkdir()
    for name, classes in TASKS.items():
      store_tiny(folder / 'data', name, train=24, test=7, classes=classes, image_size=32)
  return folder


def small_config(data_dir, **fields):
  """A ConfigDict for a run of the small model on the tiny tasks."""
  config = defaults('painformer_nano')
  config.model.update(SMALL_MODEL)
  config.data_dir = str(data_dir)
  config.tasks = {name: dict(batch_size=8, augment='face') for name in TASKS}
  config.steps = 6
  config.optimizer.learning_rate = 1e-3
  config.log_every = 2
  config.checkpoint_every = 3
  config.eval_batch_size = 8
  config.update(fields)
  return config


class SmallStep:
  """A compiled training step of the small model: 8 rows of alpha, 16 of beta.

  Attributes:
    plan: what it was made from.
    state: first state, on the host: values at random, quicker than the model's.
  """

  rows = {'alpha': 8, 'beta': 16}

  def __init__(
    self, *, devices=None, weights=None, optimizer=None, config=None, classes=None, **model
  ):
    self.classes = classes or TASKS
    tasks = {
      task: dict(batch_size=rows, weight=(weights or {}).get(task, 1.0))
      for task, rows in self.rows.items()
    }
    checked = from_config_dict(
      {
        'model': {'name': 'painformer_nano', **SMALL_MODEL, **model},
        'tasks': tasks,
        'data_dir': '',
        'steps': 10,
        'label_smoothing': 0.1,
        'weighting': 'uncertainty' if weights is None else 'fixed',
        **(config or {}),
      }
    )
    checked = dataclasses.replace(
      checked, optimizer=optimizer or OptimizerConfig(learning_rate=1e-3)
    )
    self.setup = assemble(checked, self.classes, devices=devices)
    self.plan, self._mesh = self.setup.plan, self.setup.mesh
    self.state = jax.tree_util.tree_map_with_path(_fill, self.setup.abstract)
    self._shardings = self.setup.shardings
    self._step = (
      self.setup.train_step()
      .lower(self.state, self._placed(self.batch(0)))
      .compile(compiler_options={'xla_backend_optimization_level': 0})
    )

  def batch(self, number: int) -> dict:
    """A batch on the host: noise, and labels at random."""
    rng, size = np.random.default_rng(number), self.plan.model.image_size
    return {
      task: {
        'image': rng.integers(0, 256, (rows, size, size, 3), np.uint8),
        'label': rng.integers(0, self.classes[task], rows, np.int32),
      }
      for task, rows in self.rows.items()
    }

  def __call__(self, state, batch):
    """Makes a step; returns the new state and the metrics' values."""
    state, metrics = self._step(jax.device_put(state, self._shardings), self._placed(batch))
    return state, {name: float(metric.compute()) for name, metric in metrics.items()}

  def program(self) -> str:
    return self._step.as_text()

  def _placed(self, batch):
    return put_batch(self._mesh, batch)


def _fill(path, leaf):
  name = jax.tree_util.keystr(path)
  if not name.startswith(('.params', '.stats')):
    return np.zeros(leaf.shape, leaf.dtype)
  value = np.random.default_rng(list(name.encode())).normal(scale=0.1, size=leaf.shape)
  if name.endswith(("scale']", "var']")):
    value = 1 + abs(value)
  return value.astype(leaf.dtype)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommandLine:
  """`painformer pretrain` on configs/tiny.py and the tiny tasks.

  Attributes:
    folder: from `shared_folder`.
    devices: that a CPU pretends to be.
    overrides: of the configuration, by key.
    flags: XLA_FLAGS.
    cache: whether compiled programs are shared.
  """

  folder: pathlib.Path
  devices: int = 1
  overrides: dict = dataclasses.field(default_factory=dict)
  flags: str = ''
  cache: bool = True

  def arguments(self, workdir, *more) -> list[str]:
    return [
      sys.executable,
      '-m',
      'painformer_jax',
      'pretrain',
      '--config',
      f'{ROOT}/configs/tiny.py:{",".join(TASKS)}',
      '--workdir',
      str(workdir),
      f'--config.data_dir={self.folder / "data"}',
      *(f'--config.{key}={value}' for key, value in self.overrides.items()),
      *more,
    ]

  def environment(self) -> dict[str, str]:
    cache = {} if self.cache else {'JAX_ENABLE_COMPILATION_CACHE': 'false'}
    return environment(
      JAX_PLATFORMS='cpu',
      PYTHONUNBUFFERED='1',
      XLA_FLAGS=f'--xla_force_host_platform_device_count={self.devices} {self.flags}',
      JAX_DISABLE_MOST_OPTIMIZATIONS='false',  # As users compile, unless the flags say else.
      **cache,
    )

  def run(self, workdir, *more) -> subprocess.CompletedProcess:
    return subprocess.run(
      self.arguments(workdir, *more),
      env=self.environment(),
      capture_output=True,
      text=True,
      timeout=600,
      check=False,
    )

  def run_here(self, workdir, *more) -> subprocess.CompletedProcess[str]:
    """In this process, with its devices: enough where the command is refused."""
    return run_command(*self.arguments(workdir, *more)[3:])

  def start(self, workdir, *more) -> subprocess.Popen:
    return subprocess.Popen(
      self.arguments(workdir, *more),
      env=self.environment(),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.PIPE,
      text=True,
    )


def depends_on_speed(name: str) -> bool:
  """Whether a figure of metrics.jsonl differs between two runs of one configuration."""
  return name in (RATE, RATE_PER_CHIP, MFU) or name.startswith(SECONDS)


def rows(workdir) -> list[dict]:
  """The rows of metrics.jsonl without what differs between runs of one configuration."""
  found = [json.loads(line) for line in (workdir / 'metrics.jsonl').read_text().splitlines()]
  return [{k: v for k, v in row.items() if not depends_on_speed(k)} for row in found]
