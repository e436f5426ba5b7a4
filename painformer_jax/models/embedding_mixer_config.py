"""The shape of an Embedding-Mixer as data: one dataclass, and the named presets.

The figure of the paper gives the blocks; no code was released, so that every size here
is reconstructed. A Video-Encoder is an Embedding-Mixer without self-attention.
"""

import dataclasses
from typing import Literal

from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingMixerConfig:
  """Every choice that shapes an Embedding-Mixer or a Video-Encoder.

  The block structure (`depth`, `cross_heads`, `self_heads`, `self_attentions`)
  is that of the paper's figure; all else is reconstructed, the Fourier
  positions and dropout after a later paper of the same family.

  Attributes:
    outputs: numbers that come out: classes of a Mixer, length of a code.
    input_width: width of the embeddings that come in.
    tokens: what the latents attend to: each number of each embedding with the
      position of that number ('scalar'), or whole embeddings with the position
      of the embedding ('vector'; far cheaper).
    positions: how many embeddings span the range of positions; further ones
      continue beyond it.
    bands, max_frequency: of the Fourier positions; 0 bands for none.
    depth: how often the latents read the inputs.
    latents, width: how many latents there are, and their width.
    cross_heads, cross_head_width: of the attention to the inputs.
    self_heads, self_head_width: of the attention among the latents.
    self_attentions: how many of those follow each reading.
    mlp_ratio: hidden width of the feed-forward over `width`.
    dropout: on what each attention and each feed-forward adds.
    dtype: of the arithmetic between layers; parameters, norms and softmax are
      float32.
    encoder: a Video-Encoder that turns the first `encoder_tokens` embeddings
      into a code, which joins the remaining ones ("Fusion N"): as further
      scalars before theirs, or appended to each of them.
    encoder_tokens: see `encoder`.
  """

  outputs: int = 2
  input_width: int = 160
  tokens: Literal['scalar', 'vector'] = 'scalar'
  positions: int = 1
  bands: int = 6
  max_frequency: float = 10.0
  depth: int = 2
  latents: int = 256
  width: int = 512
  cross_heads: int = 1
  cross_head_width: int = 512
  self_heads: int = 8
  self_head_width: int = 64
  self_attentions: int = 2
  mlp_ratio: int = 1
  dropout: float = 0.1
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  encoder: 'EmbeddingMixerConfig | None' = None
  encoder_tokens: int = 0

  def __post_init__(self):
    for name in (
      'outputs',
      'input_width',
      'positions',
      'depth',
      'latents',
      'width',
      'cross_heads',
      'cross_head_width',
      'self_heads',
      'self_head_width',
      'mlp_ratio',
    ):
      if getattr(self, name) < 1:
        raise ValueError(f'{name} {getattr(self, name)} is below 1')
    for name in ('bands', 'self_attentions', 'encoder_tokens'):
      if getattr(self, name) < 0:
        raise ValueError(f'{name} {getattr(self, name)} is below 0')
    for name, allowed in (('tokens', ('scalar', 'vector')), ('dtype', ('float32', 'bfloat16'))):
      if getattr(self, name) not in allowed:
        raise ValueError(f'{name} {getattr(self, name)!r}: one of {", ".join(allowed)}')
    if not 0 <= self.dropout < 1:
      raise ValueError(f'dropout {self.dropout} is not in [0, 1)')
    if (self.encoder is None) != (self.encoder_tokens == 0):
      raise ValueError('encoder and encoder_tokens go together')
    if self.encoder is not None and self.encoder.input_width != self.input_width:
      raise ValueError(
        f'encoder takes embeddings of width {self.encoder.input_width}, '
        f'the mixer of {self.input_width}'
      )

  @property
  def code_width(self) -> int:
    """Length of the encoder's code; 0 without one."""
    return 0 if self.encoder is None else self.encoder.outputs

  @property
  def context_width(self) -> int:
    """Width of what the latents attend to."""
    features = 2 * self.bands + 1 if self.bands else 0
    return features + (1 if self.tokens == 'scalar' else self.input_width + self.code_width)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EmbeddingMixerPreset:
  """A named Mixer or Video-Encoder.

  Attributes:
    config: its shape.
    evidence: where the shape comes from.
    parameters: how many it has, exactly.
  """

  config: EmbeddingMixerConfig
  evidence: str
  parameters: int


_PUBLISHED_ENCODER = EmbeddingMixerConfig(
  outputs=40, positions=138, depth=1, self_attentions=0, cross_head_width=64, mlp_ratio=4
)
_LAPTOP = EmbeddingMixerConfig(
  tokens='vector',
  positions=4,
  latents=4,
  width=32,
  cross_head_width=32,
  self_head_width=4,
  mlp_ratio=2,
)

PRESETS = {
  'mixer_published': EmbeddingMixerPreset(
    config=EmbeddingMixerConfig(),
    evidence='reconstructed: the nearest natural sizes to the reported 9.85 M and 2.94 G: '
    '3.0 % above in parameters; for one embedding as 160 scalars 1.1 % below in '
    'multiply-adds with attention products, 13.1 % below without',
    parameters=10_147_898,
  ),
  'mixer_laptop': EmbeddingMixerPreset(
    config=_LAPTOP,
    evidence='this project: every fold of a study at once on two cores',
    parameters=82_358,
  ),
  'video_encoder_published': EmbeddingMixerPreset(
    config=_PUBLISHED_ENCODER,
    evidence='reconstructed: sizes that give the reported 3.37 M and, without attention '
    'products, 0.86 G for 138 embeddings as 22,080 scalars',
    parameters=3_372_868,
  ),
  'video_encoder_laptop': EmbeddingMixerPreset(
    config=dataclasses.replace(_LAPTOP, outputs=40, positions=138, depth=1, self_attentions=0),
    evidence='this project: as mixer_laptop',
    parameters=21_442,
  ),
}


def make_config(name: str, **overrides) -> EmbeddingMixerConfig:
  """A preset's config with some fields replaced.

  Raises:
    InputError: no such preset or field, or a value that does not fit.
  """
  if name not in PRESETS:
    raise InputError(f'no mixer {name!r} (known: {", ".join(PRESETS)})')
  known = [field.name for field in dataclasses.fields(EmbeddingMixerConfig)]
  for field in overrides.keys() - set(known):
    raise InputError(f'mixer {name} has no field {field!r} (known: {", ".join(known)})')
  try:
    return dataclasses.replace(PRESETS[name].config, **overrides)
  except ValueError as error:
    raise InputError(f'mixer {name}: {error}') from error
