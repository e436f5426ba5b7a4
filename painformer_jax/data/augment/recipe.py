"""Recipes: augmentation as one line of text, for config files.

    random_resized_crop(0.6)|flip@0.5|trivial_augment@0-0.5|mask_blocks(3,32)

Operations apply from left to right. `@p` applies an operation with probability p;
`@low-high` first samples p for each image, uniformly from that range; without either the
operation always applies. Arguments are numbers. A strength may be a range,
`brightness(0.8,1.2)`, from which each image's strength is sampled uniformly. Lengths are
in pixels of an image of 224 × 224 and scale with the image.
"""

import dataclasses
import re
from collections.abc import Callable

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.data.augment import automatic, ops
from painformer_jax.data.augment.modalities import GENERAL, MODALITIES, Modality


@dataclasses.dataclass(frozen=True, kw_only=True)
class Argument:
  """A number that an operation takes.

  Attributes:
    name: for messages.
    least, most: the range, both included.
    default: None where the number must be given.
    whole: whether it must be a whole number.
  """

  name: str
  least: float
  most: float
  default: float | None = None
  whole: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Operation:
  """An operation of recipes.

  Attributes:
    apply: (image, rng, modality, *values) -> image.
    arguments: the numbers that it takes.
    strength: whether its one argument is a strength, which may be a range.
  """

  apply: Callable
  arguments: tuple[Argument, ...] = ()
  strength: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Step:
  """One operation of a recipe, its values, and the range of its probability."""

  name: str
  values: tuple[float, ...] = ()
  low: float = 1.0
  high: float = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """An augmentation policy made from text: ([size, size, 3] uint8 RGB, generator) ->
  an image of the same shape and dtype. What it samples does not depend on the image."""

  text: str
  modality: Modality
  steps: tuple[Step, ...]

  def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    for step in self.steps:
      probability = step.low
      if step.low < step.high:
        probability = rng.uniform(step.low, step.high)
      if probability == 1 or rng.random() < probability:
        image = OPERATIONS[step.name].apply(image, rng, self.modality, *step.values)
    return image


def parse(text: str, *, modality: str = 'image') -> Recipe:
  """A recipe from its text.

  Args:
    text: see the module's docstring.
    modality: kind of image, see `MODALITIES`; others are general images.

  Raises:
    InputError: the text cannot be parsed, or has an operation that does not suit the
      modality (shows it and lists the operations).
  """
  rules = MODALITIES.get(modality, GENERAL)
  steps = []
  for part in text.split('|'):
    try:
      step = _step(part.strip())
      if not _suits(step.name, rules):
        raise ValueError(f"is not for images of modality '{modality}'")
    except ValueError as error:
      raise InputError(
        f'augmentation {text!r}: {part.strip()!r} {error} (operations: '
        f'{", ".join(sorted(OPERATIONS))})'
      ) from None
    steps.append(step)
  return Recipe(text=text, modality=rules, steps=tuple(steps))


_NUMBER = r'(?:\d+\.?\d*|\.\d+)'
_STEP = re.compile(
  rf'(?P<name>\w+)\s*(?:\((?P<values>[^()]*)\))?\s*'
  rf'(?:@\s*(?P<low>{_NUMBER})\s*(?:-\s*(?P<high>{_NUMBER}))?)?',
  re.ASCII,
)


def _step(part: str) -> Step:
  """Parses one operation; ValueError with the end of a sentence that begins with it."""
  found = _STEP.fullmatch(part)
  if not found:
    raise ValueError('is not of the form name, name(1,2), name@0.5 or name@0-0.5')
  if found['name'] not in OPERATIONS:
    raise ValueError('is no operation')
  low = float(found['low'] or 1)
  high = float(found['high'] or low)
  if not low <= high <= 1:
    raise ValueError('has a probability that is not in [0, 1], or a range upside down')
  texts = found['values'].split(',') if (found['values'] or '').strip() else []
  return Step(
    name=found['name'], low=low, high=high, values=_values(OPERATIONS[found['name']], texts)
  )


def _values(operation: Operation, texts: list[str]) -> tuple[float, ...]:
  arguments = operation.arguments
  # A single strength is a range whose ends are equal.
  if operation.strength:
    texts, arguments = texts * 2 if len(texts) == 1 else texts, arguments * 2
  needed = sum(argument.default is None for argument in arguments)
  if not needed <= len(texts) <= len(arguments):
    names = ', '.join(a.name for a in operation.arguments)
    names += ' or low, high' * operation.strength
    raise ValueError(f'takes ({names})' if names else 'takes no numbers')
  values = [_value(a, text) for a, text in zip(arguments, texts)]
  if operation.strength and values[0] > values[1]:
    raise ValueError('has a range upside down')
  return tuple(values + [a.default for a in arguments[len(texts) :]])


def _value(argument: Argument, text: str) -> float:
  if not re.fullmatch(rf'-?{_NUMBER}', text.strip(), re.ASCII):
    raise ValueError(f'has {text.strip()!r} for {argument.name}, which is no number')
  value = float(text)
  if argument.whole and value.is_integer():
    value = int(value)
  if not argument.least <= value <= argument.most or (argument.whole and type(value) is float):
    kind = 'whole number' if argument.whole else 'number'
    raise ValueError(
      f'needs a {kind} from {argument.least:g} to {argument.most:g} for {argument.name}'
    )
  return value


def _suits(name: str, modality: Modality) -> bool:
  if name == 'flip':
    return modality.flip
  return name in modality.ops or name not in ops.NAMES


# The operations of recipes.


def _flip(image, rng, modality):
  del rng, modality
  return ops.flip(image)


def _random_resized_crop(image, rng, modality, least, aspect):
  """Crops a box of `least` to all of the area, whose sides are in a ratio of at most
  `aspect`; a side longer than the image's is cut to it."""
  del modality
  height, width = image.shape[:2]
  area, aspect = rng.uniform(least, 1), aspect ** rng.uniform(-1, 1)
  box_height = max(1, min(height, round(height * (area / aspect) ** 0.5)))
  box_width = max(1, min(width, round(width * (area * aspect) ** 0.5)))
  top, left = rng.random(2)
  return ops.crop_resized(
    image,
    top=int(top * (height - box_height + 1)),
    left=int(left * (width - box_width + 1)),
    height=box_height,
    width=box_width,
  )


def _centre_crop(image, rng, modality, pixels):
  del rng, modality
  height, width = image.shape[:2]
  box_height, box_width = (
    max(1, round(side * pixels / ops.REFERENCE_SIDE)) for side in (height, width)
  )
  return ops.crop_resized(
    image,
    top=(height - box_height) // 2,
    left=(width - box_width) // 2,
    height=box_height,
    width=box_width,
  )


def _shift_scale(image, rng, modality, shift, scale_x, scale_y):
  """Shifts by at most `shift` of the width, and scales by 1 - scale to 1 + scale."""
  del modality
  shift, scale_x, scale_y = (rng.uniform(-1, 1, 3) * (shift, scale_x, scale_y)).tolist()
  return ops.shift_scale(image, shift=shift, scale_x=1 + scale_x, scale_y=1 + scale_y)


def _mask_blocks(image, rng, modality, count, pixels):
  """Masks blocks anywhere in the image; they may overlap."""
  del modality
  height, width = image.shape[:2]
  side = max(1, round(min(height, width) * pixels / ops.REFERENCE_SIDE))
  corners = (rng.random((count, 2)) * (height - side + 1, width - side + 1)).astype(int)
  return ops.mask_boxes(image, corners.tolist(), height=side, width=side)


def _noise(image, rng, modality, low, high):
  del modality
  return ops.noise(image, rng.uniform(low, high), rng)


def _blur(image, rng, modality, low, high):
  del modality
  return ops.blur(image, rng.uniform(low, high) * min(image.shape[:2]) / ops.REFERENCE_SIDE)


def _automatic(policy: type) -> Callable:
  names = [f.name for f in dataclasses.fields(policy) if f.name != 'modality']

  def apply(image, rng, modality, *values):
    return policy(modality=modality, **dict(zip(names, values)))(image, rng)

  return apply


def _from_table(name: str, *argument) -> Operation:
  """An operation of `ops`; `argument` is the name, least and most of its strength."""
  if not argument:
    return Operation(
      apply=lambda image, rng, modality: ops.apply(name, image, 0.0, fill=modality.fill)
    )
  whole = name == 'posterize'

  def apply(image, rng, modality, low, high):
    value = int(rng.integers(low, high + 1)) if whole else rng.uniform(low, high)
    return ops.apply(name, image, value, fill=modality.fill)

  title, least, most = argument
  return Operation(
    apply=apply,
    strength=True,
    arguments=(Argument(name=title, least=least, most=most, whole=whole),),
  )


OPERATIONS: dict[str, Operation] = {
  'flip': Operation(apply=_flip),
  'random_resized_crop': Operation(
    apply=_random_resized_crop,
    arguments=(
      Argument(name='least share of the area', least=0.01, most=1),
      Argument(name='aspect', least=1, most=10, default=4 / 3),
    ),
  ),
  'centre_crop': Operation(
    apply=_centre_crop,
    arguments=(Argument(name='pixels of 224', least=1, most=ops.REFERENCE_SIDE),),
  ),
  'shift_scale': Operation(
    apply=_shift_scale,
    arguments=(
      Argument(name='shift', least=0, most=1),
      Argument(name='scale_x', least=0, most=0.9, default=0.0),
      Argument(name='scale_y', least=0, most=0.9, default=0.0),
    ),
  ),
  'trivial_augment': Operation(apply=_automatic(automatic.TrivialAugmentWide)),
  'randaugment': Operation(
    apply=_automatic(automatic.RandAugment),
    arguments=(
      Argument(name='operations', least=1, most=20, default=2, whole=True),
      Argument(name='magnitude', least=0, most=automatic.BINS - 1, default=9, whole=True),
    ),
  ),
  'augmix': Operation(
    apply=_automatic(automatic.AugMix),
    arguments=(
      Argument(name='severity', least=1, most=automatic.AUGMIX_BINS, default=3, whole=True),
      Argument(name='width', least=1, most=20, default=3, whole=True),
      Argument(name='depth', least=0, most=20, default=0, whole=True),
      Argument(name='alpha', least=0.01, most=100, default=1.0),
    ),
  ),
  'noise': Operation(
    apply=_noise, strength=True, arguments=(Argument(name='sigma', least=0, most=255),)
  ),
  'blur': Operation(
    apply=_blur, strength=True, arguments=(Argument(name='sigma', least=0.01, most=100),)
  ),
  'mask_blocks': Operation(
    apply=_mask_blocks,
    arguments=(
      Argument(name='count', least=1, most=1000, whole=True),
      Argument(name='pixels of 224', least=1, most=ops.REFERENCE_SIDE),
    ),
  ),
  **{name: _from_table(name, 'slope', -2, 2) for name in ('shear_x', 'shear_y')},
  **{
    name: _from_table(name, 'pixels of 224', -223, 223) for name in ('translate_x', 'translate_y')
  },
  'rotate': _from_table('rotate', 'degrees', -180, 180),
  **{
    name: _from_table(name, 'factor', 0, 10)
    for name in ('brightness', 'colour', 'contrast', 'sharpness')
  },
  'posterize': _from_table('posterize', 'bits', 1, 8),
  'solarize': _from_table('solarize', 'threshold', 0, 256),
  **{name: _from_table(name) for name in ops.PLAIN},
}
