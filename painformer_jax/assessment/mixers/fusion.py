"""Fusion of a study's modalities, on NumPy or JAX arrays: sums of tokens, joined decisions.

  add       every token of every modality is added: one token
  concat    nothing is fused: all tokens in a row
  fusion-1  tokens are added within each modality, then across modalities: one token
  fusion-2  tokens are added within each modality; an Embedding-Mixer each, whose decisions
            are joined
  fusion-n  the tokens of the coded modalities are added one by one and go to a
            Video-Encoder; its code joins a vector of each other modality, the sum of
            its tokens

The three fusions are the paper's figure; how decisions are joined is not public.
Of what a sample lacks, nothing is added: sums are means over the tokens that are
there ('mean', the paper's sum at a scale that does not depend on how many there
are), or that mean times the number of tokens ('sum', the paper's plain sum where
none is missing). What has no token at all is masked.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np
import scipy.special

from painformer_jax.core.errors import InputError

Kind = Literal['add', 'concat', 'fusion-1', 'fusion-2', 'fusion-n']
KINDS: tuple[str, ...] = get_args(Kind)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FusionConfig:
  """Which modalities are fused, and how.

  Attributes:
    kind: see the module.
    modalities: names of an embedding store, in the order in which they enter.
    coded: of 'fusion-n': those of the modalities that go to the Video-Encoder.
    scale: of every sum, see the module.
    decision: of 'fusion-2': decisions are joined by the mean of the Mixers'
      'probabilities' or of their 'logits'.
  """

  kind: Kind = 'add'
  modalities: tuple[str, ...] = ('gsr',)
  coded: tuple[str, ...] = ()
  scale: Literal['mean', 'sum'] = 'mean'
  decision: Literal['probabilities', 'logits'] = 'probabilities'

  def __post_init__(self):
    for name, known in (
      ('kind', KINDS),
      ('scale', ('mean', 'sum')),
      ('decision', ('probabilities', 'logits')),
    ):
      if getattr(self, name) not in known:
        raise InputError(f'fusion: {name} {getattr(self, name)!r} is none of {", ".join(known)}')
    names = self.modalities
    if not names or len(set(names)) != len(names):
      raise InputError(f'fusion: modalities must be one or more, each once, not {names}')
    if self.kind != 'fusion-n':
      if self.coded:
        raise InputError(f'fusion: coded modalities are for fusion-n, not for {self.kind}')
    elif not set(self.coded) < set(names) or not self.coded:
      raise InputError(
        'fusion-n: coded must name one or more of the modalities '
        f'{", ".join(names)}, and not all, not {self.coded}'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedTokens:
  """Embeddings of one modality, or what one Embedding-Mixer reads; of NumPy or JAX.

  Attributes:
    values: float [samples, tokens, width]; where the mask is False they do not matter.
    mask: bool [samples, tokens], the embeddings that are there.
  """

  values: Any
  mask: Any


def fuse(
  config: FusionConfig, parts: Mapping[str, MaskedTokens], *, xp: ModuleType
) -> list[MaskedTokens]:
  """What each Embedding-Mixer reads: one, of 'fusion-2' one a modality.

  Args:
    config: see `FusionConfig`.
    parts: all of its modalities, of the same samples and width; coded ones of the same
      number of tokens.
    xp: `numpy`, or `jax.numpy` inside a compiled program.

  Returns:
    Values in the dtype of the parts, finite wherever those that are there are.
  """
  own = {name: parts[name] for name in config.modalities}
  if config.kind == 'concat':
    return [_concatenated(own.values(), xp)]
  if config.kind == 'add':
    return [_sum(_concatenated(own.values(), xp), config.scale, xp)]
  within = [_sum(part, config.scale, xp) for name, part in own.items() if name not in config.coded]
  if config.kind == 'fusion-2':
    return within
  if config.kind == 'fusion-1':
    return [_sum(_concatenated(within, xp), config.scale, xp)]
  coded = [part for name, part in own.items() if name in config.coded]
  return [_concatenated([_sum_by_token(coded, config.scale, xp), *within], xp)]


def _concatenated(parts: Iterable[MaskedTokens], xp: ModuleType) -> MaskedTokens:
  """All tokens of all parts, one after the other."""
  parts = list(parts)
  return MaskedTokens(
    values=xp.concatenate([part.values for part in parts], axis=1),
    mask=xp.concatenate([part.mask for part in parts], axis=1),
  )


def _sum(part: MaskedTokens, scale: str, xp: ModuleType) -> MaskedTokens:
  """All tokens of a part as one token."""
  total = xp.where(part.mask[:, :, None], part.values, 0).sum(axis=1, keepdims=True)
  count = part.mask.sum(axis=1, keepdims=True)
  return MaskedTokens(
    values=_scaled(total, count, part.mask.shape[1], scale, xp),
    mask=part.mask.any(axis=1, keepdims=True),
  )


def _sum_by_token(parts: Sequence[MaskedTokens], scale: str, xp: ModuleType) -> MaskedTokens:
  """Parts of the same number of tokens, added token by token."""
  mask = xp.stack([part.mask for part in parts])
  total = sum(xp.where(part.mask[:, :, None], part.values, 0) for part in parts)
  return MaskedTokens(
    values=_scaled(total, mask.sum(axis=0), len(parts), scale, xp), mask=mask.any(axis=0)
  )


def _scaled(total, count, tokens: int, scale: str, xp: ModuleType):
  """Sums [samples, n, width] of `count` [samples, n] tokens out of `tokens`."""
  mean = total / xp.maximum(count, 1)[..., None].astype(total.dtype)
  return mean * tokens if scale == 'sum' else mean


def decide(
  config: FusionConfig, logits: Sequence[np.ndarray], *, there: Sequence[np.ndarray] | None = None
) -> np.ndarray:
  """One decision from those of all Mixers.

  Args:
    config: its `decision` says what is averaged.
    logits: of each input of `assemble`, float [..., samples, classes].
    there: of each input, bool [samples]: `MixerInput.there` of the same samples. A
      modality that a sample lacks has no say; without any, all have the same.

  Returns:
    float32 [..., samples, classes]: of one input its logits as they are; else
    the logarithm of the mean probabilities, or the mean logits.

  Raises:
    InputError: other numbers of inputs, or shapes that differ.
  """
  if (
    not logits
    or len({np.shape(part) for part in logits}) != 1
    or (there is not None and len(there) != len(logits))
  ):
    raise InputError(
      'decisions must be one or more, of one shape each, not '
      f'{[list(np.shape(part)) for part in logits]}'
    )
  stacked = np.stack([np.asarray(part, np.float64) for part in logits])
  if len(stacked) == 1:
    return stacked[0].astype(np.float32)
  if there is None:
    there = np.ones((len(logits), stacked.shape[-2]), bool)
  there = np.asarray(there, bool)
  if there.shape != (len(logits), stacked.shape[-2]):
    raise InputError(
      f'{there.shape[-1]} samples are said to be there or not; there are '
      f'decisions on {stacked.shape[-2]}'
    )
  share = np.where(there.any(axis=0), there, True).astype(np.float64)
  share /= share.sum(axis=0)
  share = np.expand_dims(share, tuple(range(1, stacked.ndim - 2)))[..., None]
  if config.decision == 'logits':
    return (share * stacked).sum(axis=0).astype(np.float32)
  probabilities = scipy.special.softmax(stacked, axis=-1)
  with np.errstate(divide='ignore'):
    mean = np.log((share * probabilities).sum(axis=0))
  # A class that no Mixer gives any chance stays finite for what comes after.
  return np.maximum(mean, np.log(np.finfo(np.float64).tiny)).astype(np.float32)
