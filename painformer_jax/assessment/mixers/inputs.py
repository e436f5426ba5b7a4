"""The inputs of Embedding-Mixers: fused embeddings of a study, read in pieces from disk."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.mixers.fusion import FusionConfig, MaskedTokens, fuse
from painformer_jax.core.errors import InputError
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig

_BYTES_AT_ONCE = 64 << 20  # Of memory-mapped embeddings.


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
  """The inputs of the Embedding-Mixers: one, of 'fusion-2' one a modality.

  Args:
    config: see `FusionConfig`.
    tokens: at least the config's modalities, all of the same samples and width.
      Memory-mapped embeddings are read piece by piece and added in float64; 'concat' of
      a single modality passes them on as they are.

  Raises:
    InputError: a modality is missing; modalities do not have the same samples or
      width; coded modalities do not have the same number of tokens.
  """
  parts = _checked(config, tokens)
  names, labels, encoder_tokens = _description(config, parts)
  if config.kind == 'concat' and len(parts) == 1:
    [part] = parts.values()
    return [MixerInput(name=names[0], values=part.values, mask=part.mask, labels=labels[0])]
  samples, _, width = next(iter(parts.values())).values.shape
  values = [np.empty((samples, len(each), width), np.float32) for each in labels]
  masks = [np.empty(whole.shape[:2], bool) for whole in values]
  for rows in _pieces(list(parts.values())):
    piece = {
      name: MaskedTokens(values=part.values[rows].astype(np.float64), mask=part.mask[rows])
      for name, part in parts.items()
    }
    for fused, whole, mask in zip(fuse(config, piece, xp=np), values, masks, strict=True):
      whole[rows] = np.where(fused.mask[:, :, None], fused.values, np.nan)
      mask[rows] = fused.mask
  return [
    MixerInput(name=name, values=whole, mask=mask, labels=each, encoder_tokens=encoder_tokens)
    for name, whole, mask, each in zip(names, values, masks, labels, strict=True)
  ]


def _checked(config: FusionConfig, tokens: Mapping[str, Tokens]) -> dict[str, Tokens]:
  """The config's modalities in its order, or InputError."""
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
  counts = {name: parts[name].values.shape[1] for name in parts if name in config.coded}
  if len(set(counts.values())) > 1:
    raise InputError(
      'fusion-n: coded modalities must have the same number of tokens, not '
      + ', '.join(f'{name} {count}' for name, count in counts.items())
    )
  return parts


def _description(
  config: FusionConfig, parts: Mapping[str, Tokens]
) -> tuple[list[str], list[tuple[str, ...]], int]:
  """Of each input its name and the labels of its tokens; how many tokens an encoder takes."""
  whole = '+'.join(parts)
  if config.kind == 'fusion-2':
    return list(parts), [(name,) for name in parts], 0
  if config.kind == 'concat':
    return [whole], [tuple(label for part in parts.values() for label in part.labels)], 0
  if config.kind == 'fusion-n':
    frames = next(part.labels for name, part in parts.items() if name in config.coded)
    rest = tuple(name for name in parts if name not in config.coded)
    return [whole], [(*frames, *rest)], len(frames)
  return [whole], [(whole,)], 0


def _pieces(parts: Sequence[Tokens]) -> Iterator[slice]:
  """All samples, in pieces of bounded memory."""
  samples = len(parts[0].values)
  bytes_a_sample = sum(part.values[:1].nbytes for part in parts) or 1
  size = max(_BYTES_AT_ONCE // bytes_a_sample, 1)
  return (slice(start, start + size) for start in range(0, samples, size))
