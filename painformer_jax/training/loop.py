"""Multi-task pre-training, read from top to bottom."""

import contextlib
import json
import pathlib
import time

import jax
from clu import parameter_overview

from painformer_jax.checkpoints.read import latest_step
from painformer_jax.checkpoints.store import CheckpointStore
from painformer_jax.core.files import write_text
from painformer_jax.core.progress import duration
from painformer_jax.models import functional
from painformer_jax.parallel.mesh import is_main, put_batch
from painformer_jax.parallel.processes import Stopped
from painformer_jax.training import run
from painformer_jax.training.clock import CHECKPOINT, EVALUATION, PROFILE
from painformer_jax.training.config import TrainConfig, changed_fields
from painformer_jax.training.data import open_training_data
from painformer_jax.training.evaluate import evaluate
from painformer_jax.training.interrupt import Interrupt
from painformer_jax.training.metrics import (
  MetricsWriter,
  NonFiniteLoss,
  log,
  progress_line,
  read_metrics,
)
from painformer_jax.training.profile import Profiler
from painformer_jax.training.resume import start_or_resume
from painformer_jax.training.setup import assemble
from painformer_jax.training.speed import Machine
from painformer_jax.training.tracking import Tracker
from painformer_jax.training.watch import DeviceWatch
from painformer_jax.training.workdir import open_workdir
from painformer_jax.weights.load import load_arrays

# Steps that may be under way on the devices while the host goes ahead.
MAX_IN_FLIGHT = 2


def pretrain(config: TrainConfig, workdir: str | pathlib.Path) -> dict:
  """Trains until `config.steps`, from the newest checkpoint if there is one.

  Where several processes train together, each calls it alike; one writes.

  Args:
    config: from `training.config.from_config_dict`.
    workdir: gets config.json, checkpoints/, metrics.jsonl, tensorboard/ and at
      the end report.json.

  Returns:
    What report.json holds; {} in the processes that do not write.

  Raises:
    InputError: a task, weights or a checkpoint that do not fit.
    NonFiniteLoss: the loss is no number any more.
    KeyboardInterrupt: after SIGINT or SIGTERM, once the state is saved.
  """
  # Everything that can be wrong is looked at before any work starts.
  data = open_training_data(config)
  config, tasks, fingerprint = data.config, data.tasks, data.fingerprint()
  classes = {name: len(task.classes) for name, task in tasks.items()}
  setup = assemble(config, classes)
  model, mesh = setup.model, setup.mesh
  backbone, started = None, latest_step(pathlib.Path(workdir, 'checkpoints'))
  if config.initial_weights and started is None:
    backbone = load_arrays(config.initial_weights, config=model)
  workdir = open_workdir(workdir, config, changed_fields=changed_fields)

  with contextlib.ExitStack() as closing:
    profiler = closing.enter_context(
      Profiler(workdir, at=config.profile_at, steps=config.profile_steps)
    )
    store = CheckpointStore(workdir / 'checkpoints', keep=config.keep_checkpoints)
    closing.callback(store.close)
    progress = start_or_resume(
      store, setup, workdir=workdir, fingerprint=fingerprint, backbone=backbone
    )
    clock, window = progress.clock, progress.window
    writer = MetricsWriter(
      workdir, start_step=progress.step, evaluation_due=progress.evaluation_due, enabled=is_main()
    )
    closing.callback(writer.close)
    if config.wandb and is_main():
      writer.mirror(
        closing.enter_context(
          Tracker(config.wandb, workdir, config=json.loads(config.to_json()), sent=writer.found)
        )
      )

    parameters = functional.count_parameters(model)
    images_per_step = sum(config.batch_sizes.values())
    if is_main():
      write_text(
        workdir / 'parameters.txt',
        parameter_overview.get_parameter_overview(setup.abstract.params, include_stats='sharding'),
      )
    log(
      f'{config.model["name"]}: {parameters:,} parameters in the backbone, '
      f'{sum(a.size for a in progress.state.params.values()):,} in all (parameters.txt); '
      f'{len(tasks)} tasks, {images_per_step} images a step, {mesh.size} '
      f'{jax.devices()[0].platform} device(s)'
    )
    train_step, embed = setup.train_step(), setup.embed_step()
    interrupt = closing.enter_context(Interrupt())
    batches = closing.enter_context(data.batches(start_step=progress.step))
    machine = Machine.of(model, list(mesh.devices.flat))
    watch = DeviceWatch(clock)
    closing.callback(watch.close)
    saved, first_step_began = progress.step, time.perf_counter()

    def log_metrics() -> None:
      values = window.averages()
      watch.settle()
      values |= machine.figures(clock.rate(), clock.split())
      writer.write(progress.step, values)
      log(progress_line(values, clock=clock, steps=config.steps, images_per_step=images_per_step))

    def run_evaluation() -> bool:
      results = evaluate(
        progress.state,
        embed,
        mesh=mesh,
        tasks=classes,
        data_dir=config.data_dir,
        image_size=model.image_size,
        batch_size=config.eval_batch_size,
        threads=config.threads,
        stop=interrupt.stops,
      )
      if results is not None:
        writer.write(progress.step, results)
        log(
          f'step {progress.step}  held-out accuracy: '
          + ' '.join(f'{name} {results[f"eval/{name}/accuracy"]:.1%}' for name in classes)
        )
      return results is not None

    def save() -> None:
      nonlocal saved
      record = progress.record(devices=mesh.size, fingerprint=fingerprint)
      if progress.step != saved:
        writer.sync()
        store.save(progress.step, progress.state, record)
        saved = progress.step

    try:
      if progress.evaluation_due:
        progress.evaluation_due = not run_evaluation()
      if progress.step < config.steps:
        log('compiles the training step')
      while not interrupt.stops() and progress.step < config.steps:
        first = not clock.running
        if not first:
          profiler.starts_at(progress.step + 1)
        with (
          interrupt.at_once() if first else contextlib.nullcontext(),
          profiler.step(progress.step + 1),
        ):
          with watch.fetching():
            batch = next(batches)
          batch = put_batch(mesh, batch)
          with watch.giving() as results:
            with jax.transfer_guard('disallow'):  # Nothing moves but what is put.
              progress.state, metrics = train_step(progress.state, batch)
            results.append(metrics)
          if first:  # It compiles; the clock counts from its end on.
            jax.block_until_ready(metrics)
        progress.step += 1
        store.check()
        window.add(progress.step, metrics, in_flight=MAX_IN_FLIGHT)
        if not first:
          clock.tick(images_per_step)
        else:
          log(f'the first step took {duration(time.perf_counter() - first_step_began)}')
          clock.steps = progress.step
          clock.resume()
        if profiler.ends_at(progress.step):
          watch.settle()
          with clock.during(PROFILE):
            profiler.end(metrics)

        # Evaluated before saved: a checkpoint has its figures on record.
        due_log, due_evaluation, due_save = (
          every and (progress.step % every == 0 or progress.step == config.steps)
          for every in (
            config.log_every,
            config.eval_every or config.steps,
            config.checkpoint_every,
          )
        )
        if due_log:
          log_metrics()
        if due_evaluation or due_save:
          window.check()
          watch.settle()
          if due_evaluation:
            with clock.during(EVALUATION):
              progress.evaluation_due = not run_evaluation()
          if due_save:
            with clock.during(CHECKPOINT):
              save()
      if interrupt.asked:
        save()
        store.finish()
        log(
          f'saved step {progress.step}; run the same command again to resume'
          if progress.step
          else 'stopped before the first step'
        )
        raise Stopped
      store.finish()
    except NonFiniteLoss as error:
      store.finish()
      good = f'checkpoint of step {saved}' if saved else 'start (no checkpoint yet)'
      raise NonFiniteLoss(
        f'{error}; the last good state is the {good} in {workdir}: lower '
        'config.optimizer.learning_rate, with another --workdir'
      ) from None
  if not is_main():
    return {}
  report = run.write_report(
    workdir, config, tasks, rows=read_metrics(workdir), clock=clock, parameters=parameters
  )
  log(
    f'finished at step {progress.step}: {workdir / "report.json"}; '
    f'next: painformer report {workdir}'
  )
  return report
