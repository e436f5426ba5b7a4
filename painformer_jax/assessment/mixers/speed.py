"""Speed of training many Mixers at once on this machine, measured on random embeddings."""

import dataclasses
import time
from collections.abc import Callable

import jax
import numpy as np

from painformer_jax.assessment.folds.batches import Fold, FoldRun, minibatches
from painformer_jax.assessment.mixers import cost, fit_program
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.fit_program import Data, RunInputs
from painformer_jax.parallel.mesh import data_mesh, replicated

# Optimizer steps from the first learning rate to the last one, far more than are measured.
SCHEDULE_STEPS = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """Random embeddings and the minibatches of every fold.

  Attributes:
    config: of the training.
    inputs: float32 [samples, tokens, input width].
    labels: int32 [samples].
    batches: int [folds, steps, batch], sample indices of every step.
    keys: [folds], a JAX key for each fold.
  """

  config: FitConfig
  inputs: np.ndarray
  labels: np.ndarray
  batches: np.ndarray
  keys: np.ndarray


def make_problem(
  config: FitConfig, *, folds: int, samples: int, tokens: int, steps: int
) -> Problem:
  """A problem of the given size; each fold tests on an equal share of the samples.

  Args:
    config: of the training.
    folds: how many train together.
    samples: in all.
    tokens: embeddings of a sample.
    steps: minibatches of each fold.
  """
  rng = np.random.default_rng(0)
  inputs = rng.standard_normal((samples, tokens, config.model.input_width), np.float32)
  labels = rng.integers(0, config.model.outputs, samples).astype(np.int32)
  runs = []
  for number, test in enumerate(np.array_split(np.arange(samples), max(folds, 2))[:folds]):
    train = np.setdiff1d(np.arange(samples), test)
    runs.append(FoldRun(fold=Fold(name=f'fold {number}', train=train, test=test), seed=0))
  batches = np.stack([minibatches(run, steps=steps, batch=config.batch) for run in runs])
  return Problem(
    config=config,
    inputs=inputs,
    labels=labels,
    batches=batches,
    keys=np.stack([run.key for run in runs]),
  )


def microbatch_of(config: FitConfig, *, tokens: int) -> int:
  """Samples of a fold that go through its Mixer at once on this machine's devices."""
  return cost.microbatch_size(
    config.model, tokens=tokens, batch=config.batch, platform=jax.default_backend()
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trainer:
  """The compiled training of a problem.

  Attributes:
    train: trains every fold for all of the problem's steps, each call further.
    compile_seconds: that compilation and the first call took.
    first_parameters: path -> initial array of the first fold.
  """

  train: Callable[[], None]
  compile_seconds: float
  first_parameters: dict[str, np.ndarray]


def compile_trainer(problem: Problem) -> Trainer:
  """Compiles the training of all folds of a problem.

  Raises:
    RuntimeError: from `train`, when the loss is not finite.
  """
  config, (folds, steps, _) = problem.config, problem.batches.shape
  mesh = data_mesh()
  # Every device gets the same number of folds: copies of the first ones fill the last device.
  filled = np.arange(-(-folds // mesh.size) * mesh.size) % folds
  data = jax.device_put(
    Data(inputs=problem.inputs, labels=problem.labels, mask=None), replicated(mesh)
  )
  inputs = fit_program.put_runs(
    mesh,
    RunInputs(
      batches=problem.batches[filled],
      weights=np.ones((len(filled), config.model.outputs), np.float32),
      test=np.zeros((len(filled), 1, 1), np.int32),
    ),
  )
  state = fit_program.make_initial(config, mesh)(fit_program.put_runs(mesh, problem.keys[filled]))
  first = jax.device_get({path: a[0] for path, a in state.params.items()})
  advance = fit_program.make_advance(
    config,
    mesh,
    steps=SCHEDULE_STEPS,
    microbatch_size=microbatch_of(config, tokens=problem.inputs.shape[1]),
  )

  def train():
    nonlocal state
    state, losses, _ = advance(state, data, inputs, np.int32(0), np.int32(steps), False)
    if not np.isfinite(np.asarray(losses)).all():
      raise RuntimeError('the loss is not finite')

  start = time.perf_counter()
  train()
  return Trainer(train=train, compile_seconds=time.perf_counter() - start, first_parameters=first)


def measured_rate(config: FitConfig, *, tokens: int, runs: int, steps: int = 2) -> float:
  """Floating-point operations a second when so many runs train together on this machine.

  Compiles and runs the program on random embeddings; this takes about a minute.
  `cost.TrainingCost.hours` turns the rate into hours.

  Args:
    config: of the training.
    tokens: embeddings of a sample.
    runs: that train together.
    steps: of each run that are timed.
  """
  problem = make_problem(config, folds=runs, samples=max(4 * runs, 8), tokens=tokens, steps=steps)
  trainer = compile_trainer(problem)
  start = time.perf_counter()
  trainer.train()
  seconds = time.perf_counter() - start
  return runs * steps * config.batch * cost.size(config.model, tokens=tokens).train_flops / seconds
