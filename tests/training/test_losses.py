import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.training import losses


def stated(logits, labels, smoothing):
  """Cross-entropy written out in float64: -sum of target times log-probability."""
  logits = np.asarray(logits, np.float64)
  classes = logits.shape[1]
  log_probability = logits - np.log(np.exp(logits).sum(1, keepdims=True))
  target = np.full(logits.shape, smoothing / classes)
  target[np.arange(len(labels)), labels] += 1 - smoothing
  return -(target * log_probability).sum(1).mean()


compiled = jax.jit(losses.cross_entropy, static_argnames='label_smoothing')


@pytest.mark.parametrize('smoothing', [0.0, 0.15])
@given(st.integers(0, 2**32 - 1), st.sampled_from([(1, 2), (8, 5)]), st.floats(0, 8))
@settings(max_examples=30, deadline=None)
def test_cross_entropy(smoothing, seed, shape, scale):
  rng = np.random.default_rng(seed)
  logits = rng.normal(scale=scale, size=shape).astype(np.float32)
  labels = rng.integers(shape[1], size=shape[0])
  found = compiled(logits, labels, label_smoothing=smoothing)
  assert found.dtype == jnp.float32 and found.shape == ()
  np.testing.assert_allclose(found, stated(logits, labels, smoothing), rtol=2e-6, atol=2e-6)


def test_smoothing_has_its_minimum_at_the_smoothed_target():
  """With 5 classes and smoothing 0.1 the best probabilities are 0.92 and 0.02."""
  best = np.log(np.array([[0.02, 0.92, 0.02, 0.02, 0.02]], np.float32))
  gradient = jax.jit(jax.grad(losses.cross_entropy), static_argnames='label_smoothing')
  np.testing.assert_allclose(gradient(best, np.array([1]), label_smoothing=0.1), 0, atol=1e-6)
  hard = gradient(best, np.array([1]))
  assert hard[0, 1] < -0.05


def test_large_logits_stay_finite():
  logits = np.array([[1e4, -1e4], [-1e4, 1e4]], np.float32)
  assert losses.cross_entropy(logits, np.array([1, 0])) == 2e4


@pytest.mark.parametrize('loss', [0.05, 1.0, 7.5])
def test_uncertainty_has_its_minimum_at_log_of_the_loss(loss):
  """e^{-w} L + w is least at w = log L, where it is 1 + log L."""

  def total(w):
    return losses.uncertainty_weighted({'a': jnp.float32(loss)}, {'a': w})

  best = jnp.float32(np.log(loss))
  assert abs(jax.grad(total)(best)) < 1e-6
  np.testing.assert_allclose(total(best), 1 + np.log(loss), rtol=1e-5)
  for w in (best - 0.3, best + 0.3):
    assert total(w) > total(best)
  w = jax.lax.fori_loop(0, 500, lambda _, w: w - 0.1 * jax.grad(total)(w), jnp.zeros(()))
  np.testing.assert_allclose(w, best, atol=1e-3)


def test_uncertainty_adds_up_over_tasks_and_scales_each_gradient():
  values = {'a': jnp.float32(2), 'b': jnp.float32(3)}
  weights = {'a': jnp.float32(0.5), 'b': jnp.float32(-1)}
  total, gradients = jax.value_and_grad(losses.uncertainty_weighted)(values, weights)
  np.testing.assert_allclose(total, 2 * np.exp(-0.5) + 0.5 + 3 * np.exp(1) - 1, rtol=1e-6)
  np.testing.assert_allclose([gradients['a'], gradients['b']], [np.exp(-0.5), np.exp(1)], rtol=1e-6)


def test_fixed_weights():
  values = {'a': jnp.float32(2), 'b': jnp.float32(3)}
  assert losses.fixed_weighted(values, {'a': 0.25, 'b': 4.0}) == 12.5
  gradients = jax.grad(losses.fixed_weighted)(values, {'a': 0.25, 'b': 0.0})
  assert gradients == {'a': 0.25, 'b': 0.0}
