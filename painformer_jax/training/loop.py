"""Multi-task pre-training, read from top to bottom."""

import contextlib
import json
import pathlib
import time

import jax
from clu import parameter_overview

from painformer_jax.checkpoints.read import latest_step
from painformer_jax.checkpoints.store import CheckpointStore
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_text
from painformer_jax.core.progress import duration
from painformer_jax.models import functional
from painformer_jax.parallel import mesh as parallel
from painformer_jax.parallel.processes import Stopped
from painformer_jax.training import metrics as metrics_lib
from painformer_jax.training import run
from painformer_jax.training.clock import CHECKPOINT, EVALUATION, PROFILE, Clock
from painformer_jax.training.config import TrainConfig, changed_fields
from painformer_jax.training.data import open_training_data
from painformer_jax.training.evaluate import evaluate
from painformer_jax.training.interrupt import Interrupt
from painformer_jax.training.metrics import log
from painformer_jax.training.profile import Profiler
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
    restored = store.restore_newest(setup.abstract)
    if restored is None:
      step, clock, window = 0, Clock(), metrics_lib.Window(most_skipped=config.max_skipped)
      state = setup.make_state(backbone)
      evaluation_due = False
    else:
      step, record = restored.step, restored.record
      if record['position'] != {'step': step, 'fingerprint': fingerprint}:
        raise InputError(
          f'the prepared data in {config.data_dir} changed since {workdir} was '
          'started: restore it, or take another --workdir'
        )
      state, clock = restored.state, Clock(**record['clock'])
      window = metrics_lib.Window(
        record['window'], most_skipped=config.max_skipped, skipped=record.get('skipped', 0)
      )
      evaluation_due = record['evaluation_due']
      log(f'goes on from step {step} of {workdir}')
      if record.get('devices', mesh.size) != mesh.size:
        log(
          f'on {mesh.size} device(s) now, {record["devices"]} before: the order of samples '
          'stays, the last bits of sums may not'
        )
    writer = metrics_lib.MetricsWriter(
      workdir, start_step=step, evaluation_due=evaluation_due, enabled=parallel.is_main()
    )
    closing.callback(writer.close)
    if config.wandb and parallel.is_main():
      writer.mirror(
        closing.enter_context(
          Tracker(config.wandb, workdir, config=json.loads(config.to_json()), sent=writer.found)
        )
      )

    parameters = functional.count_parameters(model)
    images_per_step = sum(config.batch_sizes.values())
    if parallel.is_main():
      write_text(
        workdir / 'parameters.txt',
        parameter_overview.get_parameter_overview(setup.abstract.params, include_stats='sharding'),
      )
    log(
      f'{config.model["name"]}: {parameters:,} parameters in the backbone, '
      f'{sum(a.size for a in state.params.values()):,} in all (parameters.txt); '
      f'{len(tasks)} tasks, {images_per_step} images a step, {mesh.size} '
      f'{jax.devices()[0].platform} device(s)'
    )
    train_step, embed = setup.train_step(), setup.embed_step()
    interrupt = closing.enter_context(Interrupt())
    batches = closing.enter_context(data.batches(start_step=step))
    machine = Machine.of(model, list(mesh.devices.flat))
    watch = DeviceWatch(clock)
    closing.callback(watch.close)
    saved, first_step_began = step, time.perf_counter()

    def log_metrics() -> None:
      values = window.averages()
      watch.settle()
      values |= machine.figures(clock.rate(), clock.split())
      writer.write(step, values)
      log(
        metrics_lib.progress_line(
          values, clock=clock, steps=config.steps, images_per_step=images_per_step
        )
      )

    def run_evaluation() -> bool:
      results = evaluate(
        state,
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
        writer.write(step, results)
        log(
          f'step {step}  held-out accuracy: '
          + ' '.join(f'{name} {results[f"eval/{name}/accuracy"]:.1%}' for name in classes)
        )
      return results is not None

    def save() -> None:
      nonlocal saved
      averages = window.record()  # Nothing is saved before it is known to be finite.
      if step != saved:
        writer.sync()
        store.save(
          step,
          state,
          {
            'clock': clock.record(),
            'window': averages,
            'skipped': window.skipped,
            'evaluation_due': evaluation_due,
            'devices': mesh.size,
            'position': {'step': step, 'fingerprint': fingerprint},
          },
        )
        saved = step

    try:
      if evaluation_due:
        evaluation_due = not run_evaluation()
      if step < config.steps:
        log('compiles the training step')
      while not interrupt.stops() and step < config.steps:
        first = not clock.running
        if not first:
          profiler.starts_at(step + 1)
        with interrupt.at_once() if first else contextlib.nullcontext(), profiler.step(step + 1):
          with watch.fetching():
            batch = next(batches)
          batch = parallel.put_batch(mesh, batch)
          with watch.giving() as results:
            with jax.transfer_guard('disallow'):  # Nothing moves but what is put.
              state, metrics = train_step(state, batch)
            results.append(metrics)
          if first:  # It compiles; the clock counts from its end on.
            jax.block_until_ready(metrics)
        step += 1
        store.check()
        window.add(step, metrics, in_flight=MAX_IN_FLIGHT)
        if not first:
          clock.tick(images_per_step)
        else:
          log(f'the first step took {duration(time.perf_counter() - first_step_began)}')
          clock.steps = step
          clock.resume()
        if profiler.ends_at(step):
          watch.settle()
          with clock.during(PROFILE):
            profiler.end(metrics)

        # Evaluated before saved: a checkpoint has its figures on record.
        due_log, due_evaluation, due_save = (
          every and (step % every == 0 or step == config.steps)
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
              evaluation_due = not run_evaluation()
          if due_save:
            with clock.during(CHECKPOINT):
              save()
      if interrupt.asked:
        save()
        store.finish()
        log(
          f'saved step {step}; run the same command again to go on'
          if step
          else 'stopped before the first step'
        )
        raise Stopped
      store.finish()
    except metrics_lib.NonFiniteLoss as error:
      store.finish()
      good = f'checkpoint of step {saved}' if saved else 'start (no checkpoint yet)'
      raise metrics_lib.NonFiniteLoss(
        f'{error}; the last good state is the {good} in {workdir}: lower '
        'config.optimizer.learning_rate, with another --workdir'
      ) from None
  if not parallel.is_main():
    return {}
  report = run.write_report(
    workdir,
    config,
    tasks,
    rows=metrics_lib.read_metrics(workdir),
    clock=clock,
    parameters=parameters,
  )
  log(f'finished at step {step}: {workdir / "report.json"}; next: painformer report {workdir}')
  return report
