"""Multi-task pre-training, read from top to bottom."""

import json
import pathlib
import time

import jax
from clu import parameter_overview

from painformer_jax.checkpoints.store import CheckpointStore
from painformer_jax.data import mixture, prepared
from painformer_jax.errors import InputError
from painformer_jax.models import functional, registry
from painformer_jax.parallel import mesh as parallel
from painformer_jax.training import metrics as metrics_lib
from painformer_jax.training import run
from painformer_jax.training.clock import Clock, duration
from painformer_jax.training.config import TrainConfig
from painformer_jax.training.evaluate import evaluate
from painformer_jax.training.interrupt import Interrupt
from painformer_jax.training.metrics import say
from painformer_jax.training.optimizer import make_optimizer
from painformer_jax.training.state import TrainState, initial_state
from painformer_jax.training.step import StepPlan, make_embed_step, make_train_step

# Steps that may be under way on the devices while the host goes ahead.
MAX_IN_FLIGHT = 2


def pretrain(config: TrainConfig, workdir: str | pathlib.Path) -> dict:
  """Trains until `config.steps`, from the newest checkpoint if there is one.

  Args:
    config: from `training.config.from_config_dict`.
    workdir: gets config.json, checkpoints/, metrics.jsonl, tensorboard/ and at
      the end report.json.

  Returns:
    What report.json holds.

  Raises:
    InputError: a task, weights or a checkpoint that do not fit.
    NonFiniteLoss: the loss is no number any more.
    KeyboardInterrupt: after SIGINT or SIGTERM, once the state is saved.
  """
  # Everything that can be wrong is looked at before any work starts.
  mesh = parallel.data_mesh()
  parallel.check_rows(mesh, config.rows)
  tasks = {name: prepared.open_task(config.data_dir, name) for name in config.tasks}
  classes = {name: len(task.classes) for name, task in tasks.items()}
  model = config.model_config()
  preset = registry.preset(config.model['name'])
  mix = [mixture.TaskRows(name=name, rows=task.rows, augment=task.augment)
         for name, task in config.tasks.items()]
  data = dict(data_dir=config.data_dir, image_size=model.image_size, seed=config.seed)
  fingerprint = mixture.fingerprint(mix, **data)
  backbone = None
  if config.initial_weights:
    from painformer_jax.checkpoints import load as weights
    backbone = weights.load_arrays(config.initial_weights, config=model)
  workdir = run.open_workdir(workdir, config)

  # Shapes first: the state is made where it will lie, or restored to there.
  optimizer = make_optimizer(config.optimizer, steps=config.steps)

  def make_state(backbone) -> TrainState:
    return initial_state(
        model, classes=classes, learned_weighting=config.weighting == 'uncertainty',
        optimizer=optimizer, seed=config.seed, backbone=backbone)

  abstract = jax.eval_shape(make_state, backbone)
  shardings = parallel.shardings(mesh, abstract)
  store = CheckpointStore(workdir / 'checkpoints', keep=config.keep_checkpoints)
  clock, step = Clock(), store.latest_step()
  if step is None:
    state = jax.jit(make_state, out_shardings=shardings)(backbone)
    step = 0
  else:
    restored = store.restore(step, parallel.with_shardings(abstract, shardings))
    if restored.record['position'] != {'step': step, 'fingerprint': fingerprint}:
      raise InputError(
          f'the prepared data in {config.data_dir} changed since {workdir} was '
          'started: restore it, or take another --workdir')
    state, clock = restored.state, Clock(**restored.record['clock'])
    say(f'goes on from step {step} of {workdir}')

  parameters = functional.count_parameters(model)
  (workdir / 'parameters.txt').write_text(
      parameter_overview.get_parameter_overview(state.params) + '\n')
  images_per_step = sum(config.rows.values())
  say(f'{config.model["name"]}: {parameters:,} parameters in the backbone, '
      f'{sum(a.size for a in state.params.values()):,} in all (parameters.txt); '
      f'{len(tasks)} tasks, {images_per_step} images a step, {mesh.size} '
      f'{jax.devices()[0].platform} device(s)')

  train_step = make_train_step(
      StepPlan(model=model, rows=config.rows, label_smoothing=config.label_smoothing,
               weights=None if config.weighting == 'uncertainty' else {
                   name: task.weight for name, task in config.tasks.items()},
               mean=preset.mean, std=preset.std),
      optimizer, mesh, state_shardings=shardings)
  embed = make_embed_step(model, mesh, mean=preset.mean, std=preset.std)
  writer = metrics_lib.MetricsWriter(workdir, start_step=step)
  window, saved, started = [], step, time.perf_counter()

  def log() -> dict:
    """Averages the steps since the last call; raises if one was not finite."""
    if not window:
      return {}
    try:
      values = metrics_lib.reduce(window)
    except metrics_lib.NonFiniteLoss as error:
      store.finish()
      good = f'checkpoint of step {saved}' if saved else 'start (no checkpoint yet)'
      raise metrics_lib.NonFiniteLoss(
          f'{error}; the last good state is the {good} in {workdir}: lower '
          'config.optimizer.learning_rate or look at the task\'s data') from None
    window.clear()
    values['images_per_second'] = clock.rate()
    return values

  def save() -> None:
    nonlocal saved
    if step != saved:
      store.save(step, state, {
          'clock': clock.record(), 'position': {'step': step, 'fingerprint': fingerprint}})
      saved = step

  try:
    with Interrupt() as interrupt, mixture.train_batches(
        mix, **data, start_step=step, threads=config.threads,
        process_index=jax.process_index(), process_count=jax.process_count()) as batches:
      if step < config.steps:
        say('compiles the training step')
      while step < config.steps and not interrupt.asked:
        batch = parallel.put_batch(mesh, next(batches))
        state, metrics = train_step(state, batch)
        step += 1
        window.append((step, metrics))
        if len(window) > MAX_IN_FLIGHT:
          jax.block_until_ready(window[-1 - MAX_IN_FLIGHT])
        if clock.running:
          clock.tick(images_per_step)
        else:  # The first step compiles; the clock counts from its end on.
          jax.block_until_ready(metrics)
          say(f'the first step took {duration(time.perf_counter() - started)}')
          clock.steps, clock.images = step, clock.images + images_per_step
          clock.resume()

        last = step == config.steps
        due = {name: every and (step % every == 0 or last) for name, every in (
            ('log', config.log_every), ('save', config.checkpoint_every),
            ('eval', config.eval_every or config.steps))}
        if any(due.values()):
          values = log()  # Nothing is saved before it is known to be finite.
          clock.pause()
          if values:
            writer.write(step, values)
            say(metrics_lib.progress_line(
                values, clock=clock, steps=config.steps, images_per_step=images_per_step))
          if due['save']:
            save()
          if due['eval']:
            results = evaluate(
                state, embed, mesh=mesh, tasks=classes, data_dir=config.data_dir,
                image_size=model.image_size, batch_size=config.eval_batch,
                threads=config.threads)
            writer.write(step, results)
            say(f'step {step}  held-out accuracy: ' + ' '.join(
                f"{name} {results[f'eval/{name}/accuracy']:.1%}" for name in classes))
          clock.resume()
      if interrupt.asked:
        log()
        save()
        store.finish()
        say(f'saved step {step}; run the same command again to go on')
        raise KeyboardInterrupt
    store.finish()
    return _report(workdir, config, tasks, clock=clock, parameters=parameters)
  finally:
    writer.close()
    store.close()


def _report(workdir: pathlib.Path, config: TrainConfig, tasks, *, clock: Clock,
            parameters: int) -> dict:
  """Writes report.json: what the run reached, on what, in which time."""
  rows = metrics_lib.read_metrics(workdir)
  final = {k: v for row in rows if row['step'] == config.steps for k, v in row.items()}
  report = {
      'model': dict(config.model), 'backbone_parameters': parameters,
      'steps': clock.steps, 'images': clock.images, 'train_seconds': clock.seconds,
      'environment': run.environment(),
      'tasks': {name: {
          'classes': len(task.classes), 'modality': task.modality,
          'train_images': task.sizes['train'], 'test_images': task.sizes['test'],
          'train_loss': final[f'task/{name}/loss'],
          'train_accuracy': final[f'task/{name}/accuracy'],
          'test_accuracy': final[f'eval/{name}/accuracy']}
          for name, task in tasks.items()}}
  path = workdir / 'report.json'
  if path.exists():  # A finished run, started once more: keep what was added.
    report = {**json.loads(path.read_text()), **report}
  run.write_json(path, report)
  return report
