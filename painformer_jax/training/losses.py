"""Cross-entropy per task, and the tasks' losses combined into one."""

import functools
import operator
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import optax

from painformer_jax.parallel.class_split import LogitSums


def cross_entropy(
  logits: jax.Array,
  labels: jax.Array,
  *,
  partner_labels: jax.Array | None = None,
  mixup_lambda: jax.Array | None = None,
  label_smoothing: float = 0.0,
) -> jax.Array:
  """Mean cross-entropy of a task's examples.

  Args:
    logits: [batch, classes] float32.
    labels: [batch] int32.
    partner_labels: [batch] int32, of the images that mixup added; None without mixup.
    mixup_lambda: float32 scalar in [0, 1], the share of `labels`; None without mixup.
    label_smoothing: share of the target spread evenly over all classes.

  Returns:
    A float32 scalar.
  """
  if mixup_lambda is not None and partner_labels is not None:
    own = cross_entropy(logits, labels, label_smoothing=label_smoothing)
    partner = cross_entropy(logits, partner_labels, label_smoothing=label_smoothing)
    return mixup_lambda * own + (1 - mixup_lambda) * partner
  if not label_smoothing:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
  targets = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), label_smoothing)
  return optax.softmax_cross_entropy(logits, targets).mean()


def cross_entropy_of_sums(
  sums: LogitSums, *, mixup_lambda: jax.Array | None = None, label_smoothing: float = 0.0
) -> jax.Array:
  """`cross_entropy` of a head whose classes are sharded over devices.

  Args:
    sums: from `parallel.class_split.logit_sums`.
    mixup_lambda: the share of the first label; None without mixup.
    label_smoothing: share of the target spread evenly over all classes.

  Returns:
    A float32 scalar.
  """
  target = sums.target_logit
  if mixup_lambda is not None:
    target = mixup_lambda * target + (1 - mixup_lambda) * sums.partner_logit
  target = (1 - label_smoothing) * target + label_smoothing * sums.mean
  return (sums.logsumexp - target).mean()


def uncertainty_weighted(
  losses: Mapping[str, jax.Array], log_variances: Mapping[str, jax.Array]
) -> jax.Array:
  """Sum of e^{-w} L + w over the tasks, w learned (homoscedastic uncertainty).

  Other papers by PainFormer's authors print e^{w} L + w, which has no lower bound; the
  sign here is that of Kendall et al., whose minimum is at w = log L.
  """
  terms = (jnp.exp(-log_variances[t]) * losses[t] + log_variances[t] for t in losses)
  return functools.reduce(operator.add, terms)


def fixed_weighted(losses: Mapping[str, jax.Array], weights: Mapping[str, float]) -> jax.Array:
  """Sum of weight × L over the tasks."""
  return functools.reduce(operator.add, (weights[t] * losses[t] for t in losses))
