"""Embedding-Mixer and Video-Encoder: from embeddings to a decision or a code.

The figure of the paper gives their blocks; no code was released, so that every
size here is reconstructed. One module serves both: the Video-Encoder is a Mixer
without self-attention.
"""

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from painformer_jax.core.errors import InputError
from painformer_jax.models.layers import layer_norm
from painformer_jax.models.perceiver import GegluMlp, LatentAttention, Linear, fourier_features


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixerConfig:
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
  encoder: 'MixerConfig | None' = None
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


class Mixer(nnx.Module):
  """Learned latents that read embeddings, and a linear layer on their mean."""

  def __init__(self, config: MixerConfig, *, rngs: nnx.Rngs):
    self.config = config
    shared = dict(dropout=config.dropout, dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.encoder = nnx.data(None if config.encoder is None else Mixer(config.encoder, rngs=rngs))
    self.latents = nnx.Param(
      nnx.initializers.normal(1.0)(rngs.params(), (config.latents, config.width))
    )
    self.attentions, self.mlps = nnx.List(), nnx.List()
    for _ in range(config.depth):
      self.attentions.append(
        LatentAttention(
          config.width,
          context_width=config.context_width,
          heads=config.cross_heads,
          head_width=config.cross_head_width,
          **shared,
        )
      )
      for _ in range(config.self_attentions):
        self.attentions.append(
          LatentAttention(
            config.width, heads=config.self_heads, head_width=config.self_head_width, **shared
          )
        )
    for _ in self.attentions:
      self.mlps.append(GegluMlp(config.width, ratio=config.mlp_ratio, **shared))
    self.norm = layer_norm(config.width, epsilon=1e-5, dtype=jnp.float32, rngs=rngs)
    self.head = Linear(config.width, config.outputs, dtype=jnp.float32, rngs=rngs)

  def __call__(
    self, embeddings: jax.Array, mask: jax.Array | None = None, *, key: jax.Array | None = None
  ) -> jax.Array:
    """Runs the network.

    Args:
      embeddings: [batch, tokens, input width], any number of tokens.
      mask: [batch, tokens] bool, the embeddings that are there; what stands in
        the others (NaN included) changes nothing. None for all. A sample
        without any gives what the latents know by themselves.
      key: for dropout, in training mode.

    Returns:
      [batch, outputs] float32.

    Raises:
      ValueError: shapes that do not fit the config.
    """
    config = self.config
    self._check(embeddings, mask)
    noise = [None] * (2 * len(self.attentions))
    key_encoder = None
    if key is not None:
      key, key_encoder = jax.random.split(key)
      # Four bytes of each, since random numbers are dear on CPUs, and so few at a time
      # that they stay in the caches meanwhile.
      shape = (len(embeddings), config.latents, config.width)
      bits = [jax.random.bits(key, shape) for key in jax.random.split(key, -(-len(noise) // 4))]
      noise = [(bits[i // 4] >> (8 * (i % 4))).astype(jnp.uint8) for i in range(len(noise))]
    embeddings = embeddings.astype(config.dtype)
    if mask is not None:
      embeddings = jnp.where(mask[:, :, None], embeddings, 0)
    context, mask = self._context(embeddings, mask, key_encoder)
    x = self.latents[...].astype(config.dtype)[None]
    for number, (attention, mlp) in enumerate(zip(self.attentions, self.mlps)):
      if number % (1 + config.self_attentions):
        x = attention(x, noise=noise[2 * number])
      else:
        x = attention(x, context, mask=mask, noise=noise[2 * number])
      x = mlp(x, noise=noise[2 * number + 1])
    mean = x.mean(axis=1, dtype=jnp.float32)
    return self.head(self.norm(mean))

  def _check(self, embeddings, mask) -> None:
    width, fewest = self.config.input_width, self.config.encoder_tokens + 1
    if embeddings.ndim != 3 or embeddings.shape[-1] != width or embeddings.shape[1] < fewest:
      raise ValueError(
        f'embeddings have shape {embeddings.shape}; this model takes '
        f'[batch, {fewest} or more tokens, {width}]'
      )
    if mask is not None and mask.shape != embeddings.shape[:2]:
      raise ValueError(f'the mask has shape {mask.shape}; embeddings have {embeddings.shape}')

  def _context(self, embeddings, mask, key):
    """What the latents attend to, [batch, entries, context width], and its mask."""
    config, first = self.config, self.config.encoder_tokens
    code = there = None
    if self.encoder is not None:
      coded = None if mask is None else mask[:, :first]
      code = self.encoder(embeddings[:, :first], coded, key=key).astype(config.dtype)
      embeddings = embeddings[:, first:]
      if mask is not None:
        there, mask = coded.any(axis=1, keepdims=True), mask[:, first:]
        code = jnp.where(there, code, 0)
    batch, tokens, width = embeddings.shape
    positions = config.positions
    if config.tokens == 'scalar':
      entries = embeddings.reshape(batch, tokens * width)
      mask = None if mask is None else jnp.repeat(mask, width, axis=1)
      if code is not None:
        entries = jnp.concatenate([code, entries], axis=1)
        if mask is not None:
          mask = jnp.concatenate([jnp.repeat(there, config.code_width, axis=1), mask], axis=1)
      entries, positions = entries[:, :, None], positions * width + config.code_width
    elif code is None:
      entries = embeddings
    else:
      code = jnp.broadcast_to(code[:, None], (batch, tokens, config.code_width))
      entries = jnp.concatenate([embeddings, code], axis=2)
      if mask is not None:
        # A code without a token to ride on still counts: on the first, zeroed one.
        lone = there & ~mask.any(axis=1, keepdims=True)
        mask = mask | (lone & (jnp.arange(tokens) == 0))
    features = jnp.asarray(
      fourier_features(
        entries.shape[1],
        positions=positions,
        bands=config.bands,
        max_frequency=config.max_frequency,
      ),
      config.dtype,
    )
    features = jnp.broadcast_to(features, (batch, *features.shape))
    return jnp.concatenate([entries, features], axis=2), mask


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixerPreset:
  """A named Mixer or Video-Encoder.

  Attributes:
    config: its shape.
    evidence: where the shape comes from.
    parameters: how many it has, exactly.
  """

  config: MixerConfig
  evidence: str
  parameters: int


_PUBLISHED_ENCODER = MixerConfig(
  outputs=40, positions=138, depth=1, self_attentions=0, cross_head_width=64, mlp_ratio=4
)
_LAPTOP = MixerConfig(
  tokens='vector',
  positions=4,
  latents=4,
  width=32,
  cross_head_width=32,
  self_head_width=4,
  mlp_ratio=2,
)

PRESETS = {
  'mixer_published': MixerPreset(
    config=MixerConfig(),
    evidence='reconstructed: the nearest natural sizes to the reported 9.85 M and 2.94 G: '
    '3.0 % above in parameters; for one embedding as 160 scalars 1.1 % below in '
    'multiply-adds with attention products, 13.1 % below without',
    parameters=10_147_898,
  ),
  'mixer_laptop': MixerPreset(
    config=_LAPTOP,
    evidence='this project: every fold of a study at once on two cores',
    parameters=82_358,
  ),
  'video_encoder_published': MixerPreset(
    config=_PUBLISHED_ENCODER,
    evidence='reconstructed: sizes that give the reported 3.37 M and, without attention '
    'products, 0.86 G for 138 embeddings as 22,080 scalars',
    parameters=3_372_868,
  ),
  'video_encoder_laptop': MixerPreset(
    config=dataclasses.replace(_LAPTOP, outputs=40, positions=138, depth=1, self_attentions=0),
    evidence='this project: as mixer_laptop',
    parameters=21_442,
  ),
}


def make_config(name: str, **overrides) -> MixerConfig:
  """A preset's config with some fields replaced.

  Raises:
    InputError: no such preset or field, or a value that does not fit.
  """
  if name not in PRESETS:
    raise InputError(f'no mixer {name!r} (known: {", ".join(PRESETS)})')
  known = [field.name for field in dataclasses.fields(MixerConfig)]
  for field in overrides.keys() - set(known):
    raise InputError(f'mixer {name} has no field {field!r} (known: {", ".join(known)})')
  try:
    return dataclasses.replace(PRESETS[name].config, **overrides)
  except ValueError as error:
    raise InputError(f'mixer {name}: {error}') from error


def _path(keys) -> str:
  return '/'.join(map(str, keys))


@functools.lru_cache(maxsize=32)
def _blueprint(config: MixerConfig):
  """A network's graph and its parameters without values."""
  graph, state = nnx.split(nnx.eval_shape(lambda: Mixer(config, rngs=nnx.Rngs(0))), nnx.Param)
  return graph, nnx.to_flat_state(state)


def abstract_parameters(config: MixerConfig) -> dict[str, jax.ShapeDtypeStruct]:
  """Paths, shapes and dtypes of a network's arrays, without making them."""
  return {
    _path(keys): jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
    for keys, leaf in _blueprint(config)[1]
  }


def initial_parameters(config: MixerConfig, seed: int | jax.Array) -> dict[str, jax.Array]:
  """Fresh arrays by path, distributed as those of `Mixer`; `seed` may be a key.

  All come from one draw, which compiles in a fraction of the time of many.
  """
  key = jax.random.key(seed) if isinstance(seed, int) else seed
  shapes = abstract_parameters(config)
  drawn = {path: a.shape for path, a in shapes.items() if a.ndim == 2}
  values = jax.random.normal(key, (sum(map(math.prod, drawn.values())),))
  arrays, start = {}, 0
  for path, a in shapes.items():
    if path in drawn:
      end = start + math.prod(a.shape)
      deviation = 1.0 if path.endswith('latents') else a.shape[0] ** -0.5
      arrays[path], start = deviation * values[start:end].reshape(a.shape), end
    else:
      arrays[path] = (jnp.ones if path.endswith('scale') else jnp.zeros)(a.shape)
  return arrays


def from_parameters(config: MixerConfig, arrays: Mapping[str, jax.Array]) -> Mixer:
  """A network that holds the given arrays, in evaluation mode.

  Raises:
    KeyError: a path is missing or unknown.
  """
  graph, flat = _blueprint(config)
  unmatched = {_path(keys) for keys, _ in flat} ^ arrays.keys()
  if unmatched:
    raise KeyError(f'missing or unknown arrays: {", ".join(sorted(unmatched))}')
  model = nnx.merge(
    graph,
    nnx.from_flat_state(
      [(keys, type(leaf)(jnp.asarray(arrays[_path(keys)]))) for keys, leaf in flat]
    ),
  )
  model.eval()
  return model


def apply_train(
  config: MixerConfig,
  arrays: Mapping[str, jax.Array],
  embeddings: jax.Array,
  mask: jax.Array | None = None,
  *,
  key: jax.Array,
) -> jax.Array:
  """Runs a network in training mode, with dropout: [batch, outputs] float32."""
  model = from_parameters(config, arrays)
  model.train()
  return model(embeddings, mask, key=key)
