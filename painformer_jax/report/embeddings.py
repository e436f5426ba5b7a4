"""Embeds the images of a run's tasks, and keeps the embeddings in the run's folder."""

import dataclasses
import pathlib
import time
import zipfile
from collections.abc import Mapping

import cv2
import jax
import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically
from painformer_jax.core.pictures import resize_to_square
from painformer_jax.core.progress import Log, Meter
from painformer_jax.data import mixture
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel.mesh import data_mesh, put_batch, replicated
from painformer_jax.report.run_folder import TrainedRun
from painformer_jax.training.step import make_embed_step

FOLDER = 'embeddings'
SPLITS = ('train', 'test')
GREY_SIZE = 32  # Side of the pictures that the baseline on pixels sees.


@dataclasses.dataclass(frozen=True, kw_only=True)
class SplitArrays:
  """Arrays of a split's n images, in the order they are stored.

  Attributes:
    embedding: [n, width] float32, by the run's backbone.
    untrained: [n, width] float32, by a backbone of the same shape with the
      initial random values of the run's seed, even if the run loaded weights.
    grey: [n, size, size] uint8, the images in grey, GREY_SIZE pixels wide or
      the width that the model sees where that is less.
    label: [n] int32.
    key: [n] str.
  """

  embedding: np.ndarray
  untrained: np.ndarray
  grey: np.ndarray
  label: np.ndarray
  key: np.ndarray


TaskArrays = Mapping[str, SplitArrays]  # By split.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Embedded:
  """All tasks of a run, embedded.

  Attributes:
    tasks: task -> split -> arrays.
    images: how many were embedded now; the others were found in files of an
      earlier report on the same checkpoint.
    seconds: time that took, with reading and compiling.
  """

  tasks: Mapping[str, TaskArrays]
  images: int
  seconds: float


def embed_tasks(run: TrainedRun, *, log: Log) -> Embedded:
  """Embeds the training and test split of every task, or reads earlier embeddings.

  Writes `<run>/embeddings/<task>.npz`: `embedding` [n, width] float32,
  `untrained` [n, width] float32, `grey` [n, size, size] uint8, `label` [n]
  int32, `key` and `split` [n] str, and `origin`, one str that identifies the
  weights and the data.

  Args:
    run: from `open_run`.
    log: takes lines about progress.

  Raises:
    InputError: a damaged record, embeddings that are not finite, a full disk.
  """
  started = time.monotonic()
  folder = run.folder / FOLDER
  weights = run.weights_sha256()
  origins = {
    name: f'{weights} {task.sha256["train"]} {task.sha256["test"]}'
    for name, task in run.tasks.items()
  }
  found = {name: _read(folder / f'{name}.npz', origin) for name, origin in origins.items()}
  missing = [name for name, arrays in found.items() if arrays is None]
  images = sum(run.tasks[name].sizes[split] for name in missing for split in SPLITS)
  if missing:
    try:
      folder.mkdir(exist_ok=True)
    except OSError as error:
      raise InputError(f'{folder} cannot be made: {error.strerror}') from error
    log(
      f'embeds {images:,} images of {len(missing)} tasks, with the backbone of '
      f'step {run.step} and with the untrained one'
    )
    embedder = _Embedder(run)
    with Meter(images, log) as meter:
      for name in missing:
        found[name] = {split: embedder.split(name, split, meter) for split in SPLITS}
        _write(folder / f'{name}.npz', found[name], origins[name])
  else:
    log(f'uses the embeddings of step {run.step} in {folder}')
  return Embedded(tasks=found, images=images, seconds=time.monotonic() - started)


def untrained_backbone(config: PainFormerConfig, seed: int) -> dict[str, jax.Array]:
  """The initial arrays of a run of this seed that loads no weights, path -> array."""
  key = jax.random.split(jax.random.key(seed), 3)[0]  # As training.state does.
  # Runs once, so compile time matters more than run time.
  options = {'xla_backend_optimization_level': 0} if jax.default_backend() == 'cpu' else None
  return jax.jit(lambda key: functional.initial_variables(config, key), compiler_options=options)(
    key
  )


class _Embedder:
  """Runs splits through the trained and the untrained backbone."""

  def __init__(self, run: TrainedRun):
    self._run, self._mesh = run, data_mesh()
    self._embed = make_embed_step(run.model, self._mesh)
    self._batch = -(-run.config.eval_batch_size // self._mesh.size) * self._mesh.size
    place = replicated(self._mesh)
    self._backbone = jax.device_put(dict(run.backbone), place)
    self._untrained = jax.device_put(untrained_backbone(run.model, run.config.seed), place)

  def split(self, task: str, split: str, meter: Meter) -> SplitArrays:
    run, columns = self._run, {f.name: [] for f in dataclasses.fields(SplitArrays)}
    with mixture.eval_batches(
      task,
      split,
      data_dir=run.config.data_dir,
      image_size=run.model.image_size,
      batch_size=self._batch,
      threads=run.config.threads,
    ) as batches:
      for batch in batches:
        mask = batch['mask']
        images = put_batch(self._mesh, batch['image'])
        # Both are dispatched before either is waited for.
        embedding = self._embed(self._backbone, images)
        untrained = self._embed(self._untrained, images)
        columns['grey'].append(_grey(batch['image'][mask]))
        columns['embedding'].append(np.asarray(embedding)[mask])
        columns['untrained'].append(np.asarray(untrained)[mask])
        columns['label'].append(batch['label'][mask])
        columns['key'].append(batch['key'][mask])
        meter.add(int(mask.sum()))
    arrays = SplitArrays(**{name: np.concatenate(c) for name, c in columns.items()})
    if not np.isfinite(arrays.embedding).all():
      raise InputError(
        f"embeddings of task '{task}' at step {run.step} of {run.folder} are not "
        'finite: the run has diverged; lower its learning rate'
      )
    return arrays


def _grey(images: np.ndarray) -> np.ndarray:
  """[n, size, size, 3] uint8 RGB -> [n, side, side] uint8, side <= GREY_SIZE."""
  side = min(GREY_SIZE, images.shape[1])
  return np.stack([cv2.cvtColor(resize_to_square(i, side), cv2.COLOR_RGB2GRAY) for i in images])


def _write(path: pathlib.Path, arrays: TaskArrays, origin: str) -> None:
  columns = {
    f.name: np.concatenate([getattr(arrays[s], f.name) for s in SPLITS])
    for f in dataclasses.fields(SplitArrays)
  }
  columns['split'] = np.repeat(SPLITS, [len(arrays[s].label) for s in SPLITS])
  write_atomically(path, lambda file: np.savez(file, origin=np.array(origin), **columns))


def _read(path: pathlib.Path, origin: str) -> TaskArrays | None:
  """What `_write` wrote; None where there is no file or one of another origin."""
  try:
    # NumPy does not close a damaged file that it opened itself.
    with open(path, 'rb') as stored, np.load(stored, allow_pickle=False) as file:
      if str(file['origin']) != origin:
        return None
      columns = {f.name: file[f.name] for f in dataclasses.fields(SplitArrays)}
      split = file['split']
  except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
    return None  # Absent, damaged or of an older version: made anew.
  return {s: SplitArrays(**{name: c[split == s] for name, c in columns.items()}) for s in SPLITS}
