"""Trains the backbone with the Mixers, resuming from the newest checkpoint."""

import contextlib
import pathlib
import time
from collections.abc import Callable

import jax
import numpy as np

from painformer_jax.assessment.finetune.tuning import Tuning
from painformer_jax.assessment.folds.batches import class_weights, minibatches
from painformer_jax.assessment.mixers import finetune_config, finetune_program
from painformer_jax.assessment.mixers.finetune_batches import FinetuneBatches
from painformer_jax.assessment.mixers.finetune_program import TuneState, mixer_name
from painformer_jax.checkpoints.store import CheckpointStore
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log, duration
from painformer_jax.models import embedding_mixer, functional
from painformer_jax.parallel.mesh import put_batch, replicated, with_shardings
from painformer_jax.training.interrupt import Interrupt
from painformer_jax.training.state import BACKBONE

_SECONDS_A_LINE = 10.0
_SECONDS_A_CHECKPOINT = 120.0  # About what a killed run loses.
_MOST_IN_FLIGHT = 2  # Steps under way on the devices while the host prepares the next.


def train(
  tuning: Tuning, *, mesh: jax.sharding.Mesh, images: pathlib.Path | None, log: Log
) -> TuneState:
  """Trains to the last step.

  A run that was killed and resumed on the same number of devices ends bit-identical to
  one that was not.

  Args:
    tuning: what to train.
    mesh: of the devices.
    images: folder that keeps images of videos; None keeps none.
    log: gets lines of progress.

  Returns:
    The state after the last step.

  Raises:
    InputError: the checkpoints are of another configuration, or the loss is not finite.
    KeyboardInterrupt: after SIGINT or SIGTERM, once the state is saved.
  """
  plan, variables = tuning.plan, tuning.weights.variables
  whole = replicated(mesh)
  optimizer = finetune_program.make_optimizer(plan.fits[0], _rates(tuning), steps=tuning.steps)
  start = {path: variables[path] for path in tuning.rates}

  def make(backbone, key):
    return finetune_program.initial_state(plan, optimizer, backbone=backbone, key=key)

  with contextlib.ExitStack() as closing:
    checkpoints = CheckpointStore(tuning.folder / 'checkpoints', keep=2)
    closing.callback(checkpoints.close)
    abstract = jax.eval_shape(make, start, tuning.run.key)
    restored = checkpoints.restore_newest(
      with_shardings(abstract, jax.tree.map(lambda _: whole, abstract))
    )
    if restored is None:
      step, state = 0, jax.jit(make, out_shardings=whole)(start, tuning.run.key)
    else:
      tuning.check_fingerprint(restored.record['fingerprint'])
      step, state = restored.step, restored.state
      log(f'resumes from step {step} of {tuning.steps}')
    if step == tuning.steps:
      return state
    log(
      finetune_config.describe(tuning.rates, plan.backbone)
      + f'; {tuning.images_a_step:,} images a step, {tuning.steps:,} steps'
    )
    fixed = {
      path: variables[path]
      for path in functional.abstract_variables(plan.backbone)
      if path not in tuning.rates
    }
    batches = closing.enter_context(_batches(tuning, start=step, images=images))
    return _run_steps(
      tuning,
      state,
      step,
      mesh=mesh,
      fixed=jax.device_put(fixed, whole),
      batches=batches,
      checkpoints=checkpoints,
      advance=finetune_program.make_step(plan, optimizer, mesh),
      interrupt=closing.enter_context(Interrupt()),
      log=log,
    )


def _rates(tuning: Tuning) -> dict[str, float]:
  """Path in `TuneState.params` -> highest learning rate."""
  rates = {f'{BACKBONE}/{path}': rate for path, rate in tuning.rates.items()}
  for number, fit in enumerate(tuning.plan.fits):
    rates |= {
      f'{mixer_name(number)}/{path}': fit.learning_rate
      for path in embedding_mixer.abstract_parameters(fit.model)
    }
  return rates


def _batches(tuning: Tuning, *, start: int, images: pathlib.Path | None) -> FinetuneBatches:
  """The batches of all steps from `start`."""
  config, fit = tuning.config, tuning.plan.fits[0]
  chosen = minibatches(tuning.run, steps=tuning.steps, batch=config.batch)
  return FinetuneBatches(
    tuning.study,
    tuning.settings,
    tokens=tuning.tokens,
    rows=tuning.job.positions[chosen],
    label=tuning.label,
    weights=class_weights(
      tuning.run,
      tuning.job.label,
      classes=fit.model.outputs,
      balanced=fit.class_weights == 'balanced',
    ),
    frames=tuning.frames,
    entropy=tuning.run.entropy.tolist(),
    start=start,
    image_size=tuning.plan.backbone.image_size,
    readers=config.readers,
    images=images,
  )


def _run_steps(
  tuning: Tuning,
  state: TuneState,
  step: int,
  *,
  mesh: jax.sharding.Mesh,
  fixed: dict[str, jax.Array],
  batches: FinetuneBatches,
  checkpoints: CheckpointStore,
  advance: Callable,
  interrupt: Interrupt,
  log: Log,
) -> TuneState:
  """Runs the steps that are left, and saves the state from time to time."""
  in_flight, losses = [], []
  first, logged = None, time.monotonic()
  saved_at = time.monotonic()

  def wait(most: int) -> None:
    """Waits until no more than `most` steps are in flight, and checks their losses."""
    while len(in_flight) > most:
      values = {name: float(value) for name, value in in_flight.pop(0).items()}
      if not all(map(np.isfinite, values.values())):
        raise InputError(
          f'{tuning.job.row}, seed {tuning.run.seed}: the loss is not finite; take '
          'a lower config.finetune.learning_rate or config.fit.learning_rate'
        )
      losses.append(values['loss'])

  log('compiles the step of fine-tuning')
  while step < tuning.steps:
    compiles = first is None
    with interrupt.at_once() if compiles else contextlib.nullcontext():
      state, found = advance(state, fixed, put_batch(mesh, next(batches)))
      in_flight.append(found)
      wait(0 if compiles else _MOST_IN_FLIGHT)
    step += 1
    now = time.monotonic()
    if compiles:
      first, begun = step, now
    elif now - logged >= _SECONDS_A_LINE and step > first:
      logged, rate = now, (step - first) / (now - begun)
      log(
        f'step {step:,} of {tuning.steps:,}, {rate * tuning.images_a_step:.3g} images/s, loss '
        f'{np.mean(losses):.3f}, {duration((tuning.steps - step) / rate)} left'
      )
      del losses[:-1]
    if step == tuning.steps or interrupt.asked or now - saved_at >= _SECONDS_A_CHECKPOINT:
      wait(0)
      checkpoints.save(step, state, {'fingerprint': tuning.fingerprint})
      saved_at = time.monotonic()
    if interrupt.asked and step < tuning.steps:
      checkpoints.finish()
      log(f'saved step {step}; run the same command again to resume')
      raise KeyboardInterrupt
  checkpoints.finish()
  return state
