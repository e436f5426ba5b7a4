"""Cross-entropy per task, and how the tasks' losses become one."""

import functools
import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from painformer_jax.parallel.class_split import LogitSums


def cross_entropy(
  logits: jax.Array, labels: jax.Array, *, label_smoothing: float = 0.0
) -> jax.Array:
  """Mean cross-entropy of a task's rows.

  Args:
    logits: [rows, classes] float32.
    labels: [rows] int32.
    label_smoothing: share of the target spread evenly over all classes.

  Returns:
    A float32 scalar.
  """
  if not label_smoothing:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
  targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
  return optax.softmax_cross_entropy(logits, targets).mean()


def mixed_cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  others: jax.Array,
  share: jax.Array,
  *,
  label_smoothing: float = 0.0,
) -> jax.Array:
  """Mean cross-entropy of rows mixed from two images each.

  Args:
    logits: [rows, classes] float32.
    labels, others: [rows] int32, of the two images.
    share: float32 scalar in [0, 1], of the first; the rest is the second's.
    label_smoothing: share of the target spread evenly over all classes.

  Returns:
    A float32 scalar.
  """
  own, other = (
    cross_entropy(logits, which, label_smoothing=label_smoothing) for which in (labels, others)
  )
  return share * own + (1 - share) * other


def cross_entropy_of_sums(
  sums: LogitSums, share: jax.Array | None = None, *, label_smoothing: float = 0.0
) -> jax.Array:
  """`cross_entropy`, or with a share `mixed_cross_entropy`, of a head divided by class.

  Args:
    sums: from `parallel.class_split.logit_sums`.
    share: of the first label; None where rows have one.
    label_smoothing: share of the target spread evenly over all classes.

  Returns:
    A float32 scalar.
  """
  target = sums.target_logit
  if share is not None:
    target = share * target + (1 - share) * sums.partner_logit
  target = (1 - label_smoothing) * target + label_smoothing * sums.mean
  return (sums.logsumexp - target).mean()


def uncertainty_weighted(
  losses: Mapping[str, jax.Array], log_variances: Mapping[str, jax.Array]
) -> jax.Array:
  """Sum of e^{-w} L + w over the tasks, w learned (homoscedastic uncertainty).

  Sibling papers of PainFormer print e^{w} L + w, which has no lower bound; the
  sign here is that of Kendall et al., whose minimum is at w = log L.
  """
  terms = (jnp.exp(-log_variances[t]) * losses[t] + log_variances[t] for t in losses)
  return functools.reduce(operator.add, terms)


def fixed_weighted(losses: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
  """Sum of weight × L over the tasks."""
  return functools.reduce(operator.add, (weights[t] * losses[t] for t in losses))
