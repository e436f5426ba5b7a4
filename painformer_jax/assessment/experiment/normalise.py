"""Standardises the embeddings of a study, each token position separately."""

import dataclasses

import numpy as np

from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.mixers.normalise import Standardiser, zscore_by_subject


def normalised(tokens: Tokens, subjects: np.ndarray, *, how: str) -> Tokens:
  """Embeddings standardised as `AssessConfig.normalise` says.

  Args:
    tokens: of one modality.
    subjects: str [samples], the subject of each sample.
    how: 'none', 'study' (over all samples) or 'subject' (over each subject's samples).
  """
  if how == 'none':
    return tokens
  if how == 'study':
    mean, std = statistics(tokens)
    return dataclasses.replace(tokens, values=((tokens.values - mean) / std).astype(np.float32))
  values = np.empty(tokens.values.shape, np.float32)
  for position in range(values.shape[1]):
    values[:, position] = zscore_by_subject(_present(tokens, position), subjects)
  return dataclasses.replace(tokens, values=values)


def statistics(tokens: Tokens) -> tuple[np.ndarray, np.ndarray]:
  """Mean and standard deviation over the samples, float64 [tokens, width] each."""
  each = [Standardiser.fit(_present(tokens, k)) for k in range(tokens.values.shape[1])]
  return np.stack([s.mean for s in each]), np.stack([s.std for s in each])


def _present(tokens: Tokens, position: int) -> np.ndarray:
  """[samples, width] of one token position, NaN where a sample does not have it."""
  return np.where(tokens.mask[:, position, None], tokens.values[:, position], np.nan)
