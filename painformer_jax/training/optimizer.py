"""AdamW with warm-up, cosine, clipping, and decay by a table of path rules."""

import functools
import operator

import jax
import optax

from painformer_jax.core import path_rules
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.training import parameter_groups
from painformer_jax.training.config import OptimizerConfig


def schedule(config: OptimizerConfig, *, steps: int) -> optax.Schedule:
  """Learning rate by step: linear from 0, then a half cosine to its end."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=config.learning_rate,
    warmup_steps=config.warmup_steps,
    decay_steps=steps,
    end_value=config.learning_rate * config.end_learning_rate_ratio,
  )


def rate_rules(config: OptimizerConfig, model: PainFormerConfig) -> tuple[tuple[str, float], ...]:
  """(regular expression, factor on the learning rate), see `OptimizerConfig.layer_decay`."""
  return (
    *parameter_groups.factor_rules(model, layer_decay=config.layer_decay, prefix='backbone/'),
    (r'(heads|log_variance)/.*', config.head_learning_rate_multiplier),
  )


def make_optimizer(
  config: OptimizerConfig, *, steps: int, model: PainFormerConfig
) -> optax.GradientTransformation:
  """The optimizer of a run of so many steps.

  Raises:
    InputError: an expression of `config.frozen` that no parameter matches; when the
      state is made.
  """
  parts = [
    optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
    optax.adamw(
      schedule(config, steps=steps),
      b1=config.b1,
      b2=config.b2,
      weight_decay=config.weight_decay,
      mask=parameter_groups.decay_mask,
    ),
  ]
  if config.layer_decay != 1 or config.head_learning_rate_multiplier != 1:
    parts.append(_scale_by_path(rate_rules(config, model)))
  optimizer = optax.chain(*parts)
  if not config.frozen:
    return optimizer
  return optax.partition(
    {'learned': optimizer, 'frozen': optax.set_to_zero()},
    lambda params: _labels(config.frozen, params),
  )


def _scale_by_path(rules) -> optax.GradientTransformation:
  """Multiplies each update by its path's factor."""

  def update(updates, params=None):
    del params
    factors = path_rules.match(rules, updates, table='learning rate')
    return {
      path: jax.tree.map(functools.partial(operator.mul, factors[path]), update)
      for path, update in updates.items()
    }

  return optax.stateless(update)


def _labels(frozen: tuple[str, ...], params) -> dict[str, str]:
  matched = parameter_groups.frozen_paths(frozen, params, field='config.optimizer.frozen')
  return {path: 'frozen' if path in matched else 'learned' for path in params}
