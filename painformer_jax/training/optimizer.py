"""AdamW with warm-up, cosine, clipping, and decay by a table of path rules."""

import optax

from painformer_jax import path_rules
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
      init_value=0.0, peak_value=config.learning_rate,
      warmup_steps=config.warmup_steps, decay_steps=steps,
      end_value=config.learning_rate * config.final_ratio)


def make_optimizer(config: OptimizerConfig, *, steps: int) -> optax.GradientTransformation:
  """The optimizer of a run of so many steps."""
  return optax.chain(
      optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
      optax.adamw(
          schedule(config, steps=steps), b1=config.b1, b2=config.b2,
          weight_decay=config.weight_decay, mask=decay_mask))
