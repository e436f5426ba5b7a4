"""Embeds a study, once for all rows: samples to images to embeddings."""

import contextlib
import functools
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np

import painformer_jax
from painformer_jax.assessment.datasets.recordings import Sample, Study, named
from painformer_jax.assessment.embedding import record as embedding_record
from painformer_jax.assessment.embedding.modality_folder import ModalityFolder, Trouble
from painformer_jax.assessment.embedding.network import Network
from painformer_jax.assessment.embedding.sample_images import (
  EmbeddingSettings,
  SampleReader,
  TokenImage,
  settings_record,
  token_labels,
)
from painformer_jax.assessment.embedding.store import EmbeddingStore
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log, Meter
from painformer_jax.core.read_ahead import read_ahead
from painformer_jax.modalities import depth
from painformer_jax.weights.folder import Weights

# A part ends with the sample that fills so many batches: a killed run loses no more.
_BATCHES_A_PART = 32


def compute_embeddings(
  study: Study,
  settings: Mapping[str, EmbeddingSettings],
  *,
  weights: Weights,
  folder: str | os.PathLike,
  batch_size: int = 32,
  readers: int = 2,
  max_left_out: float = 0.1,
  devices: Sequence[jax.Device] | None = None,
  log: Log = lambda line: None,
) -> EmbeddingStore:
  """Embeds every sample of a study, or reads what an earlier call has written.

  Each modality has its own folder below `folder`. Finished embeddings are used if
  weights, model, settings, samples and recordings are the same. An interrupted call is
  resumed, with bit-identical results on the same devices and batch size. Memory does not
  grow with the number of samples or their length.

  A modality of a sample that is missing, cannot be read or cannot be used (flat, too
  short, without a face; see `modalities.quality`) is masked and listed.

  Args:
    study: from a reader of datasets.
    settings: name (of letters, digits, '-' and '_') -> how a modality is embedded;
      several may come from one recording, such as RGB and thermal from video.
    weights: of the backbone.
    folder: of the embeddings; created if missing.
    batch_size: images per batch over all devices, rounded up to a multiple of them.
    readers: threads that read recordings and draw images.
    max_left_out: share of the samples, in [0, 1], of which a modality may be left out;
      above it the call stops, and what was embedded so far is kept.
    devices: to run on; None for all.
    log: gets lines of progress.

  Raises:
    InputError: the folder holds embeddings made in another way, or another process is
      writing to it; too many samples are left out; settings or the disk are at fault.
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
  network = Network(weights, batch_size=batch_size, devices=devices)
  channels = {name: study.channels_of(each.source) for name, each in settings.items()}
  # What cannot be resumed is refused before any work starts.
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
      log(f'{name}: embeddings found in {target.path}')
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
        log=log,
      )
  return EmbeddingStore(folder, tuple(settings), [sample.name for sample in study.samples])


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
  log,
) -> None:
  """Embeds what is left of a modality, part by part."""
  if target.finished:  # by another process, in the meantime
    return
  samples, done = len(study.samples), target.done()
  lost = target.left_out() if done else []
  if done:
    log(f'{name}: {done:,} of {samples:,} samples were embedded before')

  def start():
    reader = SampleReader(settings, channels=channels, image_size=network.config.image_size)
    return functools.partial(_read, reader)

  part = _PartInMemory(first=done)
  with (
    Meter(samples, log, what='samples', prefix=f'{name}: ', done=done) as meter,
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
  """Embeddings so far of the samples from `first` to `last` (excluded)."""

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
    """Adds an image of the sample that is being read, number `last`."""
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
  """Refuses a study of which too many samples are left out."""
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
