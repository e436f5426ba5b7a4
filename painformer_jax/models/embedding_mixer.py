"""Embedding-Mixer and Video-Encoder: from embeddings to a decision or a code.

The figure of the paper gives their blocks; no code was released, so that every
size here is reconstructed. One module serves both: the Video-Encoder is an
Embedding-Mixer without self-attention.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from painformer_jax.models import flat
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig
from painformer_jax.models.flat import Arrays
from painformer_jax.models.layers import layer_norm
from painformer_jax.models.perceiver import GegluMlp, LatentAttention, Linear, fourier_features


class EmbeddingMixer(nnx.Module):
  """Learned latents that read embeddings, and a linear layer on their mean."""

  def __init__(self, config: EmbeddingMixerConfig, *, rngs: nnx.Rngs):
    self.config = config
    shared = dict(dropout=config.dropout, dtype=jnp.dtype(config.dtype), rngs=rngs)
    self.encoder = nnx.data(
      None if config.encoder is None else EmbeddingMixer(config.encoder, rngs=rngs)
    )
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
        the others (NaN included) changes nothing. None for all. The
        output of a sample without any depends on the latents alone.
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
      # All four bytes of a random number are used, since random numbers are slow on CPUs.
      # They are generated in parts small enough to stay in the caches.
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


def abstract_parameters(config: EmbeddingMixerConfig) -> dict[str, jax.ShapeDtypeStruct]:
  """Paths, shapes and dtypes of a network's arrays, without making them."""
  return flat.shapes(EmbeddingMixer, config)


def initial_parameters(config: EmbeddingMixerConfig, seed: int | jax.Array) -> dict[str, jax.Array]:
  """Fresh arrays by path, distributed as those of `EmbeddingMixer`; `seed` may be a key.

  All come from one call of the random number generator, which compiles in a fraction of
  the time of many.
  """
  key = jax.random.key(seed) if isinstance(seed, int) else seed
  shapes = abstract_parameters(config)
  random = {path: a.shape for path, a in shapes.items() if a.ndim == 2}
  values = jax.random.normal(key, (sum(map(math.prod, random.values())),))
  arrays, start = {}, 0
  for path, a in shapes.items():
    if path in random:
      end = start + math.prod(a.shape)
      deviation = 1.0 if path.endswith('latents') else a.shape[0] ** -0.5
      arrays[path], start = deviation * values[start:end].reshape(a.shape), end
    else:
      arrays[path] = (jnp.ones if path.endswith('scale') else jnp.zeros)(a.shape)
  return arrays


def from_parameters(config: EmbeddingMixerConfig, arrays: Arrays) -> EmbeddingMixer:
  """A network that holds the given arrays, in evaluation mode.

  Raises:
    KeyError: a path is missing or unknown.
  """
  return flat.build(EmbeddingMixer, config, arrays)


def apply_train(
  config: EmbeddingMixerConfig,
  arrays: Arrays,
  embeddings: jax.Array,
  mask: jax.Array | None = None,
  *,
  key: jax.Array,
) -> jax.Array:
  """Runs a network in training mode, with dropout: [batch, outputs] float32."""
  model = from_parameters(config, arrays)
  model.train()
  return model(embeddings, mask, key=key)
