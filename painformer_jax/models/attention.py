"""Self-attention of stages 3 and 4, and the class attention at the end."""

import jax
import jax.numpy as jnp
from flax import nnx

from painformer_jax.models.layers import Linear


class Attention(nnx.Module):
  """Multi-head attention with the released layout of keys and values.

  `kv` gives [2, heads, head width] for each token. The queries come from all
  tokens, or from the first one alone (class attention). Scores and softmax are
  float32.
  """

  def __init__(self, width: int, *, heads: int, dtype, rngs: nnx.Rngs):
    self.q = Linear(width, width, dtype=dtype, rngs=rngs)
    self.kv = Linear(width, 2 * width, dtype=dtype, rngs=rngs)
    self.proj = Linear(width, width, dtype=dtype, rngs=rngs)
    self.heads = heads

  def __call__(self, x: jax.Array, *, queries: int | None = None):
    """Attends over tokens.

    Args:
      x: [batch, tokens, width].
      queries: only the first so many tokens ask; None for all.

    Returns:
      [batch, queries, width], and the attention map
      [batch, heads, queries, tokens] in float32.
    """
    batch, tokens, width = x.shape
    head = width // self.heads
    asking = x[:, :queries]
    q = self.q(asking).reshape(batch, asking.shape[1], self.heads, head)
    kv = self.kv(x).reshape(batch, tokens, 2, self.heads, head)
    scores = jnp.einsum('bqhd,bkhd->bhqk', q, kv[:, :, 0], preferred_element_type=jnp.float32)
    attention = jax.nn.softmax(scores * head**-0.5, axis=-1)
    y = jnp.einsum('bhqk,bkhd->bqhd', attention.astype(x.dtype), kv[:, :, 1])
    return self.proj(y.reshape(batch, asking.shape[1], width)), attention
