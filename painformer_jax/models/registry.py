"""Models by name."""

import dataclasses
from typing import Any

from flax import nnx

from painformer_jax.core.errors import InputError, did_you_mean
from painformer_jax.models.config import ARITHMETIC, PRESETS, PainFormerConfig, Preset
from painformer_jax.models.painformer import PainFormer


def list_models() -> list[str]:
  """Names that `create` takes."""
  return list(PRESETS)


def preset(name: str) -> Preset:
  """The preset of that name.

  Raises:
    InputError: there is none.
  """
  if not isinstance(name, str) or name not in PRESETS:
    raise InputError(
      f'no model {name!r}{did_you_mean(str(name), PRESETS)} (known: {", ".join(PRESETS)})'
    )
  return PRESETS[name]


def make_config(name: str, **overrides: Any) -> PainFormerConfig:
  """A preset's config with some fields replaced.

  Raises:
    InputError: no such preset or field, or a value that does not fit.
  """
  config = preset(name).config
  known = {field.name for field in dataclasses.fields(config)}
  for field in overrides.keys() - known:
    raise InputError(
      f'model {name} has no field {field!r}{did_you_mean(field, known)} '
      f'(known: {", ".join(sorted(known))})'
    )
  try:
    return dataclasses.replace(config, **overrides)
  except ValueError as error:
    raise InputError(f'model {name}: {error}') from error


def name_of(config: PainFormerConfig) -> str:
  """Name of the preset with that backbone, for images of any size; '' where there is none."""
  free = ('image_size', 'num_classes', *ARITHMETIC)

  def backbone(of: PainFormerConfig) -> dict[str, Any]:
    return {field: v for field, v in dataclasses.asdict(of).items() if field not in free}

  wanted = backbone(config)
  return next((name for name, entry in PRESETS.items() if backbone(entry.config) == wanted), '')


def create(name: str, *, num_classes: int = 0, seed: int = 0, **overrides: Any) -> PainFormer:
  """A model with fresh weights, in evaluation mode.

  Args:
    name: one of `list_models()`.
    num_classes: width of the head; 0 for none.
    seed: of the initial values.
    **overrides: fields of `PainFormerConfig`, such as `image_size=112`.

  Raises:
    InputError: no such preset or field, or a value that does not fit.
  """
  config = make_config(name, num_classes=num_classes, **overrides)
  model = PainFormer(config, rngs=nnx.Rngs(seed))
  model.eval()
  return model
