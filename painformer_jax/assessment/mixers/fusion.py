"""Fusion: the embeddings of a study's modalities as inputs of one or several Mixers.

  add       every token of every modality is added: one token
  concat    nothing is fused: all tokens in a row
  fusion-1  tokens are added within each modality, then across modalities: one token
  fusion-2  tokens are added within each modality; a Mixer each, decisions are joined
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
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, get_args

import numpy as np
import scipy.special

from painformer_jax.assessment.embedding.store import Tokens
from painformer_jax.core.errors import InputError
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig

Kind = Literal['add', 'concat', 'fusion-1', 'fusion-2', 'fusion-n']
KINDS: tuple[str, ...] = get_args(Kind)

_BYTES_AT_ONCE = 64 << 20  # Of memory-mapped embeddings.


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


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class MixerInput:
  """What one Mixer reads.

  Attributes:
    name: of the modality, or of all joined by '+'.
    values: float32 [samples, tokens, width], NaN where there is nothing; may be
      memory-mapped and read-only.
    mask: bool [samples, tokens], what is there.
    encoder_tokens: how many tokens from the first go to a Video-Encoder.
    labels: of each token, for people.
  """

  name: str
  values: np.ndarray
  mask: np.ndarray
  encoder_tokens: int = 0
  labels: tuple[str, ...] = ()

  @property
  def there(self) -> np.ndarray:
    """Samples of which anything is there, bool [samples]."""
    return self.mask.any(axis=1)

  def fitted(
    self, model: EmbeddingMixerConfig, *, encoder: EmbeddingMixerConfig | None = None
  ) -> EmbeddingMixerConfig:
    """The config of a Mixer for this input.

    Args:
      model: its sizes; number, width and positions of the embeddings are set.
      encoder: sizes of the Video-Encoder, where one is needed; `outputs` is the
        length of its code.

    Raises:
      InputError: an encoder is needed and none is given.
    """
    width, tokens = self.values.shape[2], self.values.shape[1]
    if not self.encoder_tokens:
      return dataclasses.replace(
        model, input_width=width, positions=tokens, encoder=None, encoder_tokens=0
      )
    if encoder is None:
      raise InputError('fusion-n needs the sizes of a Video-Encoder')
    encoder = dataclasses.replace(encoder, input_width=width, positions=self.encoder_tokens)
    return dataclasses.replace(
      model,
      input_width=width,
      positions=tokens - self.encoder_tokens,
      encoder=encoder,
      encoder_tokens=self.encoder_tokens,
    )


def assemble(config: FusionConfig, tokens: Mapping[str, Tokens]) -> list[MixerInput]:
  """The inputs of the Mixers: one, of 'fusion-2' one a modality.

  Args:
    config: see `FusionConfig`.
    tokens: at least the config's modalities, all of the same samples and width.
      Memory-mapped embeddings are read piece by piece; 'concat' of a single
      modality passes them on as they are.

  Raises:
    InputError: a modality is missing; modalities do not have the same samples or
      width; coded modalities do not have the same number of tokens.
  """
  missing = [name for name in config.modalities if name not in tokens]
  if missing:
    raise InputError(
      f'fusion: there are no embeddings of {", ".join(missing)}, only of {", ".join(tokens)}'
    )
  parts = {name: tokens[name] for name in config.modalities}
  shapes = {name: (part.values.shape[0], part.values.shape[2]) for name, part in parts.items()}
  if len(set(shapes.values())) > 1:
    raise InputError(
      'fusion: the modalities differ in samples or width: '
      + ', '.join(f'{name} {samples} x {width}' for name, (samples, width) in shapes.items())
    )
  whole = '+'.join(parts)
  if config.kind == 'concat':
    return [_in_a_row(whole, list(parts.values()))]
  if config.kind == 'add':
    return [_added(whole, list(parts.values()), scale=config.scale)]
  if config.kind == 'fusion-n':
    coded = {name: parts[name] for name in config.modalities if name in config.coded}
    rest = [
      _added(name, [parts[name]], scale=config.scale)
      for name in config.modalities
      if name not in config.coded
    ]
    stacked = _added_by_token(coded, scale=config.scale)
    return [
      dataclasses.replace(
        _in_a_row(whole, [stacked, *rest]), encoder_tokens=stacked.values.shape[1]
      )
    ]
  each = [_added(name, [part], scale=config.scale) for name, part in parts.items()]
  if config.kind == 'fusion-2':
    return each
  return [_added(whole, each, scale=config.scale)]


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


def _chunks(parts: Sequence[Tokens | MixerInput]) -> Iterator[slice]:
  """The samples in pieces of bounded memory."""
  samples = len(parts[0].values)
  bytes_a_sample = sum(part.values[:1].nbytes for part in parts) or 1
  size = max(_BYTES_AT_ONCE // bytes_a_sample, 1)
  return (slice(start, start + size) for start in range(0, samples, size))


def _added(name: str, parts: Sequence[Tokens | MixerInput], *, scale: str) -> MixerInput:
  """All tokens of all parts as one token."""
  samples, _, width = parts[0].values.shape
  values = np.empty((samples, 1, width), np.float32)
  mask = np.concatenate([part.mask for part in parts], axis=1)
  for rows in _chunks(parts):
    total = sum(
      np.where(part.mask[rows, :, None], part.values[rows], 0).sum(
        axis=1, keepdims=True, dtype=np.float64
      )
      for part in parts
    )
    values[rows] = _scaled(total, mask[rows].sum(axis=1, keepdims=True), mask.shape[1], scale)
  return MixerInput(name=name, values=values, mask=mask.any(axis=1, keepdims=True), labels=(name,))


def _added_by_token(named: Mapping[str, Tokens], *, scale: str) -> MixerInput:
  """Modalities of the same number of tokens, added one by one."""
  parts = list(named.values())
  shapes = {part.values.shape for part in parts}
  if len(shapes) > 1:
    counts = ', '.join(f'{name} {part.values.shape[1]}' for name, part in named.items())
    raise InputError(
      f'fusion-n: coded modalities must have the same number of tokens, not {counts}'
    )
  values = np.empty(shapes.pop(), np.float32)
  mask = np.stack([part.mask for part in parts])
  for rows in _chunks(parts):
    total = sum(
      np.where(part.mask[rows, :, None], part.values[rows], 0).astype(np.float64) for part in parts
    )
    values[rows] = _scaled(total, mask[:, rows].sum(axis=0), len(parts), scale)
  return MixerInput(
    name='+'.join(named), values=values, mask=mask.any(axis=0), labels=parts[0].labels
  )


def _scaled(total: np.ndarray, count: np.ndarray, tokens: int, scale: str) -> np.ndarray:
  """Sums [samples, n, width] of `count` [samples, n] tokens out of `tokens`."""
  with np.errstate(invalid='ignore', divide='ignore'):
    mean = total / count[..., None]  # NaN where there is nothing
  return mean * tokens if scale == 'sum' else mean


def _in_a_row(name: str, parts: Sequence[Tokens | MixerInput]) -> MixerInput:
  """All tokens of all parts, one after the other."""
  labels = tuple(label for part in parts for label in part.labels)
  if len(parts) == 1:
    return MixerInput(name=name, values=parts[0].values, mask=parts[0].mask, labels=labels)
  return MixerInput(
    name=name,
    values=np.concatenate([part.values for part in parts], axis=1),
    mask=np.concatenate([part.mask for part in parts], axis=1),
    labels=labels,
  )
