"""Functions tuned for CPUs against the plain ones: the same values and gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from painformer_jax.models import perceiver, perceiver_cpu
from painformer_jax.models.layers import layer_norm

# Compiling is nearly all of the time here; the results are the same.
jit = functools.partial(jax.jit, compiler_options={'xla_llvm_disable_expensive_passes': True})
MASK = np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)


def normal(*shape):
  return np.random.default_rng(len(shape)).standard_normal(shape, np.float32)


def values_and_gradients(function, *arguments):
  """The result, and the gradients of a weighted sum of it by each argument."""

  def run():
    value, pullback = jax.vjp(function, *arguments)
    weight = jax.tree.map(
      lambda a: jnp.cos(jnp.arange(a.size, dtype=a.dtype)).reshape(a.shape), value
    )
    return value, pullback(weight)

  return jax.tree.leaves(jit(run)())


def compare(name, plain, tuned, *arguments, measured):
  wanted = values_and_gradients(plain, *arguments)
  found = values_and_gradients(tuned, *arguments)
  for number, (a, b) in enumerate(zip(found, wanted, strict=True)):
    assert a.shape == b.shape and np.isfinite(a).all()
    measured(f'{name}, {number}', np.abs(a - b).max() / np.abs(b).max(), limit=1e-5)


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('function', ['few_pairs', 'many_pairs', 'attention in halves'])
def test_attention(function, masked, measured, monkeypatch):
  """One sample has no token."""
  q, k, v = normal(4, 4, 6), normal(4, 4, 6) + 0.1, normal(4, 4, 6) - 0.1
  mask = MASK if masked else None
  tuned = getattr(perceiver_cpu, function.split()[0])
  if 'halves' in function:
    monkeypatch.setattr(perceiver_cpu, '_FEW_PAIRS', 0)
    monkeypatch.setattr(perceiver_cpu, '_MANY_SCORES', 1)
  compare(
    f'{function}, masked {masked}',
    lambda q, k, v: perceiver.attention(q, k, v, mask, heads=2),
    lambda q, k, v: tuned(q, k, v, mask, heads=2),
    q,
    k,
    v,
    measured=measured,
  )


def test_a_query_of_all_samples_and_a_context_of_all_heads(measured):
  q, context = normal(1, 2, 3, 5), normal(4, 1, 4, 5)
  compare(
    'weighted sum',
    lambda q, c: perceiver.weighted_sum(q, c, c, MASK),
    lambda q, c: perceiver_cpu.weighted_sum(q, c, c, MASK),
    q,
    context,
    measured=measured,
  )


def test_large_gradients_stay_finite_where_a_sample_has_no_token():
  q, k, v = normal(4, 3, 6), normal(4, 4, 6), normal(4, 4, 6)
  for attention in (perceiver.attention, perceiver_cpu.few_pairs, perceiver_cpu.many_pairs):
    loss = lambda *x: (1e4 * attention(*x, MASK, heads=2)).sum()
    for gradient in jit(jax.grad(loss, argnums=(0, 1, 2)))(q, k, v):
      assert np.isfinite(gradient).all(), attention


def test_layers_of_a_normed_input(measured):
  rngs = nnx.Rngs(0)
  norm = layer_norm(6, epsilon=perceiver_cpu.EPSILON, dtype=jnp.float32, rngs=rngs)
  layers = tuple(
    perceiver.Linear(6, width, use_bias=False, dtype=jnp.float32, rngs=rngs) for width in (4, 8)
  )
  graph, state = nnx.split((norm, layers))
  state = jax.tree.map(lambda a: a + 0.3 * jnp.sin(jnp.arange(a.size)).reshape(a.shape), state)

  def of(function):
    return lambda state, x: function(*nnx.merge(graph, state), x)

  x = normal(4, 3, 6) + 2
  compare(
    'normed linears',
    of(perceiver.normed_linears),
    of(perceiver_cpu.normed_linears),
    state,
    x,
    measured=measured,
  )


def test_gelu(measured):
  compare(
    'GELU',
    perceiver.gelu,
    perceiver_cpu.gelu,
    np.linspace(-8, 8, 101, dtype=np.float32),
    measured=measured,
  )
