"""AdamW with warm-up, cosine, clipping, and decay by a table of path rules."""

import functools
import operator
import re

import jax
import optax

from painformer_jax.core import path_rules
from painformer_jax.core.errors import InputError
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.training.config import OptimizerConfig

# Whether weight decay applies. Filters of the spectral gate decay like other
# weights, as in the SpectFormer and GFNet recipes.
DECAY_RULES = (
  (r'log_variance/.*', False),
  (r'.*/(bias|scale)', False),
  (r'.*/(kernel|complex_weight)', True),
)


def decay_mask(parameters) -> dict[str, bool]:
  """Path -> whether the parameter decays; every path must match a rule."""
  return path_rules.match(DECAY_RULES, parameters, table='weight decay')


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
  """(path, factor on the learning rate), see `OptimizerConfig.layer_decay`.

  The stem is layer 0, the blocks of all stages count from 1; the convolution before a
  stage goes with its first block, the norm after it with its last.
  """
  rules, layer, last = [], 0, model.depth + 1

  def factor(number: int) -> float:
    return config.layer_decay ** (last - number)

  for n, pattern in enumerate(model.mixers, start=1):
    entry = layer if n == 1 else layer + 1
    rules.append((rf'backbone/patch_embed{n}/.*', factor(entry)))
    for number in range(len(pattern)):
      layer += 1
      rules.append((rf'backbone/block{n}/{number}/.*', factor(layer)))
    closing = last if n == len(model.mixers) else layer
    rules.append((rf'backbone/norm{n}/.*', factor(closing)))
  return (
    *rules,
    (r'backbone/post_network/.*', factor(last)),
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
      mask=decay_mask,
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
  for pattern in frozen:
    if not any(re.fullmatch(pattern, path) for path in params):
      raise InputError(
        f'config.optimizer.frozen: {pattern!r} matches no parameter, such as {min(params)}'
      )
  return {
    path: 'frozen' if any(re.fullmatch(p, path) for p in frozen) else 'learned' for path in params
  }
