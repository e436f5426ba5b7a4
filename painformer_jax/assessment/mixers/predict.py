"""Logits of trained Embedding-Mixers."""

import functools
from collections.abc import Mapping

import jax
import numpy as np

from painformer_jax.assessment.mixers.inputs import MixerInput
from painformer_jax.models import embedding_mixer
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig

_ROWS = 64  # At once.


def predict(
  model: EmbeddingMixerConfig,
  parameters: Mapping[str, np.ndarray],
  source: MixerInput,
  *,
  seeds: bool = False,
) -> np.ndarray:
  """Logits of all samples, in blocks of one size.

  Args:
    model: the Mixer.
    parameters: path -> array; with `seeds`, each with a leading axis over them.
    source: what it reads.
    seeds: whether there are parameters of several.

  Returns:
    float32 [samples, classes], with `seeds` [seeds, samples, classes].
  """
  call, found = _program(model, seeds), []
  samples = len(source.values)
  rows = min(_ROWS, samples)
  for start in range(0, samples, rows):
    values, mask = source.values[start : start + rows], source.mask[start : start + rows]
    more = rows - len(values)
    values = np.pad(np.where(mask[:, :, None], values, 0), ((0, more), (0, 0), (0, 0)))
    found.append(
      np.asarray(
        call(dict(parameters), values.astype(np.float32), np.pad(mask, ((0, more), (0, 0))))
      )
    )
  return np.concatenate(found, axis=-2)[..., :samples, :]


@functools.lru_cache(maxsize=8)
def _program(model: EmbeddingMixerConfig, seeds: bool):
  def logits(parameters, values, mask):
    return embedding_mixer.from_parameters(model, parameters)(values, mask)

  return jax.jit(jax.vmap(logits, in_axes=(0, None, None)) if seeds else logits)
