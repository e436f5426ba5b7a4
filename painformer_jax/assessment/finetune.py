"""Fine-tunes the backbone together with the Mixers of one line of the table, and tests them.

<folder>/seed-<n>/checkpoints/   while it trains
<folder>/seed-<n>/embeddings/    of what is tested, by the finished backbone
<folder>/seed-<n>/weights/       the finished backbone, and who it was trained on
<folder>/seed-<n>/logits.npz     what it says of what is tested; written last
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np

from painformer_jax.assessment import experiment
from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.assessment.embedding import embed as embeddings
from painformer_jax.assessment.embedding.record import INFORMATION, arrays_sha256
from painformer_jax.assessment.embedding.store import EmbeddingStore, Tokens
from painformer_jax.assessment.experiment import Job, Outcome
from painformer_jax.assessment.folds import permuted_labels, protocols
from painformer_jax.assessment.folds.batches import Run, class_weights, minibatches
from painformer_jax.assessment.mixers import finetune_config, finetune_program, fusion
from painformer_jax.assessment.mixers.finetune_batches import Batches, frames_a_step
from painformer_jax.assessment.mixers.finetune_program import TunePlan, TuneState, mixer_name
from painformer_jax.assessment.mixers.inputs import assemble
from painformer_jax.assessment.mixers.predict import predict
from painformer_jax.assessment.statistics import metrics
from painformer_jax.checkpoints.store import CheckpointStore
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically, write_json
from painformer_jax.core.progress import duration
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel import mesh as parallel
from painformer_jax.training.interrupt import Interrupt
from painformer_jax.training.state import BACKBONE, group
from painformer_jax.weights.folder import Weights, WeightsSource, save_weights

TRAINED_ON = 'trained_on.json'  # Beside the arrays of fine-tuned weights.

_VERSION = 2  # Raised when the same inputs would train to other results.
_SECONDS_A_LINE = 10.0
_SECONDS_A_CHECKPOINT = 120.0  # What a kill loses, about.
_MOST_IN_FLIGHT = 2  # Steps under way on the devices while the host reads on.

Log = Callable[[str], None]


def run(
  config: AssessConfig,
  job: Job,
  study: Study,
  *,
  weights: Weights,
  store: EmbeddingStore,
  folder: str | os.PathLike,
  images: str | os.PathLike | None = None,
  shuffle: int | None = None,
  devices: Sequence[jax.Device] | None = None,
  progress: Log = lambda line: None,
) -> Outcome:
  """Fine-tunes and tests a job, once a seed; goes on where it was stopped.

  The same bits come out of a run that was killed and one that was not, on the same
  number of devices.

  Args:
    config: of the assessment.
    job: with inputs from `store` and a single fold.
    study: that it is of.
    weights: that the backbone starts from.
    store: the embeddings by these weights, not normalised: they say which images of a
      sample there are.
    folder: of this job alone; see the module.
    images: folder that keeps images of videos, for all jobs of a run; None keeps none.
    shuffle: seed to shuffle the labels within subjects with; None: true labels.
    devices: to train on; None for all.
    progress: takes lines.

  Raises:
    InputError: more than one fold, a subject on both sides of it, a batch that does not
      split over the devices, or a folder of another configuration.
    KeyboardInterrupt: after SIGINT or SIGTERM, once the state is saved.
  """
  check(config, weights, devices=devices)
  if len(job.folds) != 1:
    raise InputError(
      f'the backbone is fine-tuned on one fixed split, not on {len(job.folds)} '
      "folds: take the protocol 'hold-out', 'validation' or 'test'"
    )
  subjects, seeds = study.subject_array()[job.positions], config.seeds
  if shuffle is not None:
    job = dataclasses.replace(
      job, label=permuted_labels.shuffle_labels(job.label, subjects, seed=shuffle)
    )
    seeds = seeds[:1]
  protocols.check_subjects(job.folds, subjects)
  logits = []
  for seed in seeds:
    tuning = _Tuning(
      config,
      job,
      study,
      seed=seed,
      weights=weights,
      store=store,
      folder=pathlib.Path(folder, f'seed-{seed}'),
      devices=devices,
      log=progress,
      images=None if images is None else pathlib.Path(images),
    )
    logits.append(tuning.logits())
  names = np.array([study.samples[p].name for p in job.positions])
  return Outcome(
    runs=metrics.gather(
      job.folds, [np.stack(logits)], sample=names, subject=subjects, label=job.label
    ),
    chosen={},
  )


def check(
  config: AssessConfig, weights: Weights, *, devices: Sequence[jax.Device] | None = None
) -> None:
  """Asserts that these weights can be fine-tuned so, on these devices.

  Raises:
    InputError: the batch does not split over the devices, or `frozen` does not fit the
      backbone.
  """
  count = len(jax.devices() if devices is None else devices)
  if config.finetune.batch % count:
    raise InputError(
      f'config.finetune.batch is {config.finetune.batch}, which does not split '
      f'over {count} devices: take a multiple of {count}'
    )
  finetune_config.learning_rates(config.finetune, _training_model(config, weights))


def _training_model(config: AssessConfig, weights: Weights) -> PainFormerConfig:
  """The backbone while it trains."""
  return dataclasses.replace(
    weights.config, num_classes=0, dtype=config.finetune.dtype, drop_path_rate=0.0
  )


class _Tuning:
  """One training of one backbone."""

  def __init__(
    self,
    config: AssessConfig,
    job: Job,
    study: Study,
    *,
    seed: int,
    weights: Weights,
    store: EmbeddingStore,
    folder: pathlib.Path,
    images: pathlib.Path | None,
    devices,
    log: Log,
  ):
    self._study, self._weights, self._folder, self._log = study, weights, folder, log
    self._job, self._tune, self._run = job, config.finetune, Run(fold=job.folds[0], seed=seed)
    self._batch_size, self._images_kept = config.batch_size, images
    self._fusion = config.rows[job.row].fusion
    self._settings = {name: config.modalities[name] for name in self._fusion.modalities}
    self._tokens = {name: store.tokens(name) for name in self._fusion.modalities}
    fits = []
    for source in job.inputs:
      model = experiment.model_of(config, job, source)
      fits.append(config.fit_config(model, seeds=(seed,)))
    self._fit = fits[0]
    self._steps = -(-len(self._run.fold.train) * self._tune.epochs // self._tune.batch)
    backbone = _training_model(config, weights)
    self._rates = finetune_config.learning_rates(self._tune, backbone)
    self._plan = TunePlan(
      backbone=backbone,
      fusion=self._fusion,
      fits=tuple(fits),
      tokens={name: part.mask.shape[1] for name, part in self._tokens.items()},
      images_at_once=self._tune.images_at_once,
    )
    self._frames = frames_a_step(self._tokens, frames=self._tune.frames)
    self._mesh = parallel.data_mesh(devices)
    self._label = np.full(len(study.samples), -1, np.int64)
    self._label[job.positions] = job.label
    self._fingerprint = self._everything(store)

  def logits(self) -> np.ndarray:
    """[test samples, classes] float32, in the order of the fold's; from the disk if done."""
    path = self._folder / 'logits.npz'
    if path.is_file():
      self._log(f'{self._folder} is finished')
      return self._read(path)
    self._folder.mkdir(parents=True, exist_ok=True)
    state = self._train()
    backbone = {path: np.asarray(a) for path, a in group(state.params, BACKBONE).items()}
    arrays = {
      path: a for path, a in self._weights.variables.items() if not path.startswith('head/')
    } | backbone
    tuned = Weights(
      variables=arrays,
      config=dataclasses.replace(self._weights.config, num_classes=0),
      source=WeightsSource(
        name=f'{self._weights.source.name}, fine-tuned on {self._study.name}: '
        f'{self._job.row}, {self._job.task.name}',
        model=self._weights.source.model,
      ),
    )
    logits = self._test(tuned, state)
    self._keep(tuned)
    write_atomically(
      path, lambda file: np.savez(file, logits=logits, fingerprint=np.array(self._fingerprint))
    )
    shutil.rmtree(self._folder / 'checkpoints', ignore_errors=True)
    return logits

  def _everything(self, store: EmbeddingStore) -> str:
    """A hash of all that the result depends on, but for the devices."""
    tune = dataclasses.asdict(self._tune)
    del tune['readers'], tune['keep_images']
    fits = [dataclasses.asdict(fit) for fit in self._plan.fits]
    for fit in fits:
      del fit['epochs'], fit['steps'], fit['batch']  # Those of `FinetuneConfig` count.
    records = {
      name: {k: v for k, v in store.record(name).items() if k != INFORMATION}
      for name in self._settings
    }
    digest = hashlib.sha256(
      json.dumps(
        [
          _VERSION,
          tune,
          fits,
          dataclasses.asdict(self._fusion),
          records,
          self._steps,
          self._run.fold.name,
        ],
        sort_keys=True,
      ).encode()
    )
    for array in (self._label, self._job.positions, self._run.fold.train, self._run.fold.test):
      digest.update(np.ascontiguousarray(array, np.int64))
    return digest.hexdigest()

  def _check(self, fingerprint: str) -> None:
    if fingerprint != self._fingerprint:
      raise InputError(
        f'{self._folder} is of another configuration, other weights or other '
        'data: remove it, or take another --workdir'
      )

  def _read(self, path: pathlib.Path) -> np.ndarray:
    try:
      with np.load(path, allow_pickle=False) as file:
        logits, fingerprint = file['logits'], str(file['fingerprint'])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
      raise InputError(f'{path} is damaged: remove {self._folder}') from error
    self._check(fingerprint)
    return logits

  def _train(self) -> TuneState:
    """The state after the last step."""
    tune, mesh, plan = self._tune, self._mesh, self._plan
    whole = parallel.replicated(mesh)
    learned, variables = self._rates, self._weights.variables
    rates = {f'{BACKBONE}/{path}': rate for path, rate in learned.items()}
    for number, fit in enumerate(plan.fits):
      rates |= {
        f'{mixer_name(number)}/{path}': fit.learning_rate
        for path in finetune_program.embedding_mixer.abstract_parameters(fit.model)
      }
    optimizer = finetune_program.make_optimizer(self._fit, rates, steps=self._steps)
    start = {path: variables[path] for path in learned}
    make = lambda backbone, key: finetune_program.initial_state(
      plan, optimizer, backbone=backbone, key=key
    )
    with contextlib.ExitStack() as closing:
      checkpoints = CheckpointStore(self._folder / 'checkpoints', keep=2)
      closing.callback(checkpoints.close)
      abstract = jax.eval_shape(make, start, self._run.key)
      restored = checkpoints.restore_newest(
        parallel.with_shardings(abstract, jax.tree.map(lambda _: whole, abstract))
      )
      if restored is None:
        step, state = 0, jax.jit(make, out_shardings=whole)(start, self._run.key)
      else:
        self._check(restored.record['fingerprint'])
        step, state = restored.step, restored.state
        self._log(f'goes on from step {step} of {self._steps}')
      if step == self._steps:
        return state
      self._log(
        finetune_config.describe(learned, plan.backbone)
        + f'; {self._images:,} images a step, {self._steps:,} steps'
      )
      fixed = jax.device_put(
        {
          path: variables[path]
          for path in functional.abstract_variables(plan.backbone)
          if path not in learned
        },
        whole,
      )
      rows = self._job.positions[minibatches(self._run, steps=self._steps, batch=tune.batch)]
      batches = closing.enter_context(
        Batches(
          self._study,
          self._settings,
          tokens=self._tokens,
          rows=rows,
          label=self._label,
          weights=class_weights(
            self._run,
            self._job.label,
            classes=self._fit.model.outputs,
            balanced=self._fit.class_weights == 'balanced',
          ),
          frames=self._frames,
          entropy=self._run.entropy.tolist(),
          start=step,
          image_size=plan.backbone.image_size,
          readers=tune.readers,
          images=self._images_kept,
        )
      )
      interrupt = closing.enter_context(Interrupt())
      return self._steps_on(
        state,
        step,
        fixed=fixed,
        batches=batches,
        checkpoints=checkpoints,
        advance=finetune_program.make_step(plan, optimizer, mesh),
        interrupt=interrupt,
      )

  @property
  def _images(self) -> int:
    """Of a step."""
    return self._tune.batch * sum(self._frames.values())

  def _steps_on(
    self,
    state: TuneState,
    step: int,
    *,
    fixed,
    batches: Batches,
    checkpoints: CheckpointStore,
    advance,
    interrupt: Interrupt,
  ) -> TuneState:
    """All steps that are left."""
    waiting, losses = [], []
    first, told = None, time.monotonic()
    saved_at = time.monotonic()

    def finite(most: int) -> None:
      while len(waiting) > most:
        values = {name: float(value) for name, value in waiting.pop(0).items()}
        if not all(map(np.isfinite, values.values())):
          raise InputError(
            f'{self._job.row}, seed {self._run.seed}: the loss is not finite; take '
            'a lower config.finetune.learning_rate or config.fit.learning_rate'
          )
        losses.append(values['loss'])

    def save() -> None:
      finite(0)
      checkpoints.save(step, state, {'fingerprint': self._fingerprint})

    self._log('compiles the step of fine-tuning')
    while step < self._steps:
      compiles = first is None
      with interrupt.at_once() if compiles else contextlib.nullcontext():
        state, found = advance(state, fixed, parallel.put_batch(self._mesh, next(batches)))
        waiting.append(found)
        finite(0 if compiles else _MOST_IN_FLIGHT)
      step += 1
      now = time.monotonic()
      if compiles:
        first, begun = step, now
      elif now - told >= _SECONDS_A_LINE and step > first:
        told, rate = now, (step - first) / (now - begun)
        self._log(
          f'step {step:,} of {self._steps:,}, {rate * self._images:.3g} images/s, loss '
          f'{np.mean(losses):.3f}, {duration((self._steps - step) / rate)} left'
        )
        del losses[:-1]
      if step == self._steps or interrupt.asked or now - saved_at >= _SECONDS_A_CHECKPOINT:
        save()
        saved_at = time.monotonic()
      if interrupt.asked and step < self._steps:
        checkpoints.finish()
        self._log(f'saved step {step}; run the same command again to go on')
        raise KeyboardInterrupt
    checkpoints.finish()
    return state

  def _test(self, tuned: Weights, state: TuneState) -> np.ndarray:
    """Embeds what is tested, all its images, and asks the Mixers."""
    positions = self._job.positions[self._run.fold.test]
    study = dataclasses.replace(
      self._study, samples=tuple(self._study.samples[p] for p in positions)
    )
    store = embeddings.compute_embeddings(
      study,
      self._settings,
      weights=tuned,
      folder=self._folder / 'embeddings',
      batch_size=self._batch_size,
      readers=self._tune.readers,
      max_left_out=1.0,
      devices=list(self._mesh.devices.flat),
      progress=self._log,
    )
    tokens = {
      name: _padded(store.tokens(name), self._tokens[name].mask.shape[1]) for name in self._settings
    }
    inputs = assemble(self._fusion, tokens)
    logits = [
      predict(fit.model, group(state.params, mixer_name(number)), source)
      for number, (fit, source) in enumerate(zip(self._plan.fits, inputs))
    ]
    return fusion.decide(self._fusion, logits, there=[source.there for source in inputs])

  def _keep(self, tuned: Weights) -> None:
    target = self._folder / 'weights'
    save_weights(target, tuned.variables, config=tuned.config, source=tuned.source)
    subjects = self._study.subject_array()[self._job.positions][self._run.fold.train]
    record = {
      'study': self._study.name,
      'subjects': sorted(set(subjects.tolist())),
      'from': self._weights.source.name,
      'from_sha256': arrays_sha256(
        {path: a for path, a in self._weights.variables.items() if not path.startswith('head/')}
      ),
    }
    write_json(target / TRAINED_ON, record)


def check_unseen(weights: str | os.PathLike, jobs: Sequence[Job], study: Study) -> None:
  """Proves that fine-tuned weights have not seen anyone who is tested.

  Args:
    weights: path, in any form; only folders that `run` wrote can say anything.
    jobs: all of an assessment.
    study: that they are of.

  Raises:
    InputError: a subject of a fold's test samples was trained on.
  """
  path = pathlib.Path(weights, TRAINED_ON)
  if not path.is_file():
    return
  try:
    record: Mapping = json.loads(path.read_text())
    seen = set(record['subjects']) if record['study'] == study.name else set()
  except (OSError, ValueError, KeyError, TypeError) as error:
    raise InputError(f'{path} is damaged ({error}): fine-tune the weights again') from error
  subjects = study.subject_array()
  for job in jobs:
    for fold in job.folds:
      shared = sorted(seen & set(subjects[job.positions[fold.test]].tolist()))
      if shared:
        raise InputError(
          f'{weights} was fine-tuned on {shared[0]}, who is tested on in fold '
          f'{fold.name} of {job.row}: take the weights it started from'
        )


def _padded(tokens: Tokens, count: int) -> Tokens:
  """With as many places as in training; none of those tested has a longer recording."""
  more = count - tokens.mask.shape[1]
  return dataclasses.replace(
    tokens,
    mask=np.pad(tokens.mask, ((0, 0), (0, more))),
    values=np.pad(tokens.values, ((0, 0), (0, more), (0, 0)), constant_values=np.nan),
  )
