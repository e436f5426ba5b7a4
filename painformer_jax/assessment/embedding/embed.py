"""Embeds a study once: samples to images to embeddings, over all devices."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

import painformer_jax
from painformer_jax.assessment.datasets.recordings import Sample, Study, named
from painformer_jax.assessment.embedding import record as embedding_record
from painformer_jax.assessment.embedding.sample_images import (
  EmbeddingSettings,
  SampleReader,
  TokenImage,
  channels_of,
  settings_record,
  token_labels,
)
from painformer_jax.assessment.embedding.store import (
  EmbeddingStore,
  ModalityFolder,
  Tokens,
  Trouble,
)
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Meter
from painformer_jax.core.read_ahead import read_ahead
from painformer_jax.modalities import depth
from painformer_jax.models.config import PainFormerConfig, Preset
from painformer_jax.parallel import mesh as parallel
from painformer_jax.training.step import make_embed_step
from painformer_jax.weights.folder import Weights
from painformer_jax.weights.load import read_weights

__all__ = ['EmbeddingSettings', 'EmbeddingStore', 'Tokens', 'Trouble', 'compute_embeddings']

# Raised when the same settings would give other embeddings.
_VERSION = 2
# A part ends with the sample that fills so many batches: what a kill loses, at most.
_BATCHES_A_PART = 32


def compute_embeddings(
  study: Study,
  settings: Mapping[str, EmbeddingSettings],
  *,
  weights: str | os.PathLike | Weights,
  folder: str | os.PathLike,
  batch_size: int = 32,
  readers: int = 2,
  max_left_out: float = 0.1,
  devices: Sequence[jax.Device] | None = None,
  progress: Callable[[str], None] = lambda line: None,
) -> EmbeddingStore:
  """Embeds every sample of a study, or takes what an earlier call has left.

  Each modality has its own folder below `folder`. What is finished is used if
  weights, model, settings, samples and recordings are the same; what was
  interrupted goes on, and gives the same numbers bit for bit on the same devices
  and batch size. Memory does not grow with the samples or their length.

  A modality of a sample that is missing, cannot be read or is of no use (flat, too
  short, without a face; see `modalities.quality`) is masked and listed.

  Args:
    study: from a reader of datasets.
    settings: name (of letters, digits, '-' and '_') -> how a modality is embedded;
      several may come from one modality, such as RGB and thermal from video.
    weights: in any form that `load` takes, or as `read_weights` gives them.
    folder: of the embeddings; made where it is missing.
    batch_size: images at once over all devices, rounded up to a multiple of them.
    readers: threads that read recordings and draw images.
    max_left_out: share of the samples, in [0, 1], of which a modality may be left
      out; above it the study is taken to be incomplete. What was embedded until
      then is kept.
    devices: to run on; None for all.
    progress: told what is going on, a line at a time.

  Raises:
    InputError: the folder holds embeddings made in another way, or another process
      is making them; too many samples are left out; weights, settings or the disk
      are at fault.
  """
  for name in settings:
    if not re.fullmatch(r'[A-Za-z0-9][A-Za-z0-9_-]*', name):
      raise InputError(f'{name!r} is no name of embeddings: take letters, digits, - and _')
  if not settings or not study.samples:
    raise InputError('there is nothing to embed: no modality, or no sample')
  if batch_size < 1 or readers < 1 or not 0 <= max_left_out <= 1:
    raise InputError(
      'batch_size and readers must be at least 1, max_left_out in [0, 1], not '
      f'{batch_size}, {readers} and {max_left_out}'
    )
  if not isinstance(weights, Weights):
    weights = read_weights(weights)
  network = Network(weights, batch_size=batch_size, devices=devices)
  channels = {name: channels_of(study, each.source) for name, each in settings.items()}
  # All that cannot go on is known before any work starts.
  for name, each in settings.items():
    ModalityFolder(pathlib.Path(folder, name)).begin(
      network.record
      | {
        'settings': settings_record(each, channels[name]),
        'samples': embedding_record.samples_record(study, each.source),
        embedding_record.INFORMATION: {
          'study': study.name,
          'weights': weights.source.name,
          'stand_in': depth.STAND_IN if each.stand_in else '',
          'painformer_jax': painformer_jax.__version__,
        },
      },
      embedding_record.fingerprints(study, each.source),
    )
  for name, each in settings.items():
    target = ModalityFolder(pathlib.Path(folder, name))
    if target.finished:
      progress(f'{name}: embeddings found in {target.path}')
      _check_left_out(
        name,
        [t for t in target.troubles() if t.left_out],
        samples=len(study.samples),
        share=max_left_out,
      )
      continue
    with target.locked():
      _embed_modality(
        study,
        each,
        target,
        name=name,
        network=network,
        channels=channels[name],
        readers=readers,
        max_left_out=max_left_out,
        progress=progress,
      )
  return EmbeddingStore(folder, tuple(settings), [sample.name for sample in study.samples])


class Network:
  """The backbone on all devices, for batches of one size."""

  def __init__(self, weights: Weights, *, batch_size: int, devices: Sequence[jax.Device] | None):
    self.config = dataclasses.replace(weights.config, num_classes=0)
    self._arrays = {
      path: array for path, array in weights.variables.items() if not path.startswith('head/')
    }
    self._mesh = parallel.data_mesh(devices)
    self.batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
    self._placed = False
    self.record = {
      'version': _VERSION,
      'model': dataclasses.asdict(self.config),
      'mean': Preset.mean,
      'std': Preset.std,
      'weights': {'sha256': embedding_record.arrays_sha256(self._arrays)},
    }

  def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
    """Up to batch_size images, uint8 [size, size, 3] -> float32 [the same, width]."""
    if not self._placed:
      self._arrays = jax.device_put(self._arrays, parallel.replicated(self._mesh))
      self._placed = True
    size = self.config.image_size
    batch = np.zeros((self.batch_size, size, size, 3), np.uint8)
    batch[: len(images)] = images
    return np.asarray(
      _step(self.config, self._mesh)(self._arrays, parallel.put_batch(self._mesh, batch))
    )[: len(images)]


@functools.lru_cache(maxsize=8)
def _step(config: PainFormerConfig, mesh: jax.sharding.Mesh):
  """Compiled once a process, however many studies come."""
  return make_embed_step(config, mesh, mean=Preset.mean, std=Preset.std)


def _embed_modality(
  study: Study,
  settings: EmbeddingSettings,
  target: ModalityFolder,
  *,
  name: str,
  network: Network,
  channels: tuple[str, ...],
  readers: int,
  max_left_out: float,
  progress,
) -> None:
  """Embeds what is left of a modality, part by part."""
  if target.finished:  # by another process, in the meantime
    return
  samples, done = len(study.samples), target.done()
  lost = target.left_out() if done else []
  if done:
    progress(f'{name}: {done:,} of {samples:,} samples were embedded before')

  def start():
    reader = SampleReader(settings, channels=channels, image_size=network.config.image_size)
    return functools.partial(_read, reader)

  part = _PartInMemory(first=done)
  with (
    Meter(samples, progress, what='samples', prefix=f'{name}: ', done=done) as meter,
    contextlib.closing(read_ahead(study.samples[done:], start, threads=readers)) as items,
  ):
    for item in items:
      if isinstance(item, TokenImage):
        part.add(item)
        if part.waiting == network.batch_size:
          part.run(network)
        continue
      part.troubles += item
      lost += [trouble for trouble in item if trouble.left_out]
      _check_left_out(name, lost, samples=samples, share=max_left_out)
      part.last += 1
      meter.add()
      if part.rows >= _BATCHES_A_PART * network.batch_size or part.last == samples:
        part.run(network)
        part.write(target, width=network.config.embedding_width)
        part = _PartInMemory(first=part.last)
  target.finish(
    samples=samples,
    width=network.config.embedding_width,
    labels=lambda tokens: token_labels(settings, channels, tokens),
  )


class _PartInMemory:
  """Embeddings of the samples from `first` to `last`, not included, so far."""

  def __init__(self, *, first: int):
    self.first = self.last = first
    self.troubles: list[Trouble] = []
    self._samples, self._tokens, self._images, self._values = [], [], [], []

  @property
  def rows(self) -> int:
    return len(self._tokens)

  @property
  def waiting(self) -> int:
    """Images that are not yet embedded."""
    return len(self._images)

  def add(self, item: TokenImage) -> None:
    """An image of the sample that is `last` as long as it is read."""
    self._samples.append(self.last)
    self._tokens.append(item.token)
    self._images.append(item.image)

  def run(self, network: Network) -> None:
    if self._images:
      self._values.append(network(self._images))
      self._images = []

  def write(self, target: ModalityFolder, *, width: int) -> None:
    values = np.concatenate([np.zeros((0, width), np.float32), *self._values])
    target.write_part(
      self.first,
      self.last,
      samples=np.array(self._samples, np.int64),
      tokens=np.array(self._tokens, np.int64),
      values=values,
      troubles=self.troubles,
    )


def _check_left_out(name: str, lost: Sequence[Trouble], *, samples: int, share: float) -> None:
  """Raises InputError if too many samples are left out."""
  if len(lost) > share * samples:
    raise InputError(
      f'{name}: {len(lost)} of {samples} samples cannot be used, above the limit of '
      f'{share:.0%} ({named(lost)}): mend the data or the settings, or raise max_left_out'
    )


def _read(reader: SampleReader, sample: Sample) -> Iterator[TokenImage | list[Trouble]]:
  """A sample's images, then its troubles."""
  remarks, count = [], 0
  try:
    for image in reader.images(sample, log=remarks.append):
      count += 1
      yield image
  except InputError as error:
    remarks.append(str(error))
  if not count and not remarks:
    remarks.append('nothing in it can be used')
  yield (
    [Trouble(sample=sample.name, what='; '.join(remarks), left_out=not count)] if remarks else []
  )
