"""Fusion inside a compiled program: the same sums as `fusion.assemble`, with gradients."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp

from painformer_jax.assessment.mixers.fusion import FusionConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """Embeddings of one modality, or what one Mixer reads.

  Attributes:
    values: float32 [batch, tokens, width], zeros where the mask is False.
    mask: bool [batch, tokens].
  """

  values: jax.Array
  mask: jax.Array


def fuse(config: FusionConfig, parts: Mapping[str, Part]) -> list[Part]:
  """What each Mixer reads: one, of 'fusion-2' one a modality; see `fusion.assemble`.

  Args:
    config: see `FusionConfig`.
    parts: all of its modalities, of the same samples and width.
  """
  own = [parts[name] for name in config.modalities]
  if config.kind == 'concat':
    return [_in_a_row(own)]
  if config.kind == 'add':
    return [_added(own, scale=config.scale)]
  if config.kind == 'fusion-n':
    coded = [parts[name] for name in config.modalities if name in config.coded]
    rest = [
      _added([parts[name]], scale=config.scale)
      for name in config.modalities
      if name not in config.coded
    ]
    return [_in_a_row([_added_by_token(coded, scale=config.scale), *rest])]
  each = [_added([part], scale=config.scale) for part in own]
  return each if config.kind == 'fusion-2' else [_added(each, scale=config.scale)]


def _added(parts: Sequence[Part], *, scale: str) -> Part:
  """All tokens of all parts as one."""
  whole = _in_a_row(parts)
  total = jnp.where(whole.mask[:, :, None], whole.values, 0).sum(axis=1, keepdims=True)
  count = whole.mask.sum(axis=1, keepdims=True)
  return Part(
    values=_scaled(total, count, whole.mask.shape[1], scale),
    mask=whole.mask.any(axis=1, keepdims=True),
  )


def _added_by_token(parts: Sequence[Part], *, scale: str) -> Part:
  """Modalities of the same number of tokens, added one by one."""
  mask = jnp.stack([part.mask for part in parts])
  total = sum(jnp.where(part.mask[:, :, None], part.values, 0) for part in parts)
  return Part(values=_scaled(total, mask.sum(axis=0), len(parts), scale), mask=mask.any(axis=0))


def _scaled(total: jax.Array, count: jax.Array, tokens: int, scale: str) -> jax.Array:
  mean = total / jnp.maximum(count, 1)[..., None]
  return mean * tokens if scale == 'sum' else mean


def _in_a_row(parts: Sequence[Part]) -> Part:
  return Part(
    values=jnp.concatenate([part.values for part in parts], axis=1),
    mask=jnp.concatenate([part.mask for part in parts], axis=1),
  )
