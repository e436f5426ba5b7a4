"""The backbone that embeds a study's images, on all devices."""

import dataclasses
import functools
from collections.abc import Sequence

import jax
import numpy as np

from painformer_jax.assessment.embedding import record as embedding_record
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel.mesh import data_mesh, put_batch, replicated
from painformer_jax.training.step import make_embed_step
from painformer_jax.weights.folder import Weights

# Raised when the same settings would give other embeddings.
_VERSION = 2


class Network:
  """The backbone on all devices, for batches of one size.

  Args:
    weights: of the backbone.
    batch_size: images per batch, rounded up to a multiple of the devices.
    devices: to run on; None for all.

  Attributes:
    record: all of the backbone that embeddings depend on, for JSON.
  """

  def __init__(self, weights: Weights, *, batch_size: int, devices: Sequence[jax.Device] | None):
    self.config = dataclasses.replace(weights.config, num_classes=0)
    self._arrays = {
      path: array for path, array in weights.variables.items() if not path.startswith('head/')
    }
    self._mesh = data_mesh(devices)
    self.batch_size = -(-batch_size // self._mesh.size) * self._mesh.size
    self._placed = False
    fields = dataclasses.asdict(self.config)
    self.record = {
      'version': _VERSION,
      'model': {k: v for k, v in fields.items() if k not in ('mean', 'std')},
      'mean': self.config.mean,
      'std': self.config.std,
      'weights': {'sha256': embedding_record.arrays_sha256(self._arrays)},
    }

  def __call__(self, images: Sequence[np.ndarray]) -> np.ndarray:
    """Embeddings of up to `batch_size` images: uint8 [size, size, 3] each -> float32 [n, width]."""
    if not self._placed:
      self._arrays = jax.device_put(self._arrays, replicated(self._mesh))
      self._placed = True
    size = self.config.image_size
    batch = np.zeros((self.batch_size, size, size, 3), np.uint8)
    batch[: len(images)] = images
    return np.asarray(
      _embed_step(self.config, self._mesh)(self._arrays, put_batch(self._mesh, batch))
    )[: len(images)]


@functools.lru_cache(maxsize=8)
def _embed_step(config: PainFormerConfig, mesh: jax.sharding.Mesh):
  """Compiled once per process for all studies."""
  return make_embed_step(config, mesh)
