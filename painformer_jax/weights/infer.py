"""Tells what model a state dict is of: by its record, or by its names and shapes.

Names and shapes say everything but the number of attention heads, the statistics of the images
and, within a few pixels, their size. Where there is no record, these are the preset's that has
the same shapes; a model of other shapes than any preset needs its heads named.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.models import registry
from painformer_jax.models.config import ARITHMETIC, ATTENTION, PRESETS, SPECTRAL, PainFormerConfig
from painformer_jax.weights.model_record import MOST_BLOCKS, ModelRecord

_MIXERS = {SPECTRAL: 'complex_weight', ATTENTION: 'q.weight'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inference:
  """What a state dict is of.

  Attributes:
    config: of the model, with the head and the input size of the file.
    model: name of the preset that it is, or is nearest to where the names and shapes are those
      of no model; '' for a model that is no preset.
    head: name of the task of the head, '' where it has none.
    other: what the names and shapes alone say, where that is another model than `config`.
    assumed: what is taken to be so though the file does not say it, in one line; '' for nothing.
  """

  config: PainFormerConfig
  model: str
  head: str = ''
  other: PainFormerConfig | None = None
  assumed: str = ''


def infer(
  tensors: Mapping[str, np.ndarray],
  *,
  record: ModelRecord | None = None,
  heads: Sequence[int] | None = None,
) -> Inference:
  """Tells what model a state dict is of.

  Args:
    tensors: released name -> array.
    record: what the file says about its model.
    heads: of each stage, and after them of the class attention if it has others than the last
      stage; None for those of the record or the preset.

  Raises:
    InputError: `heads` are not those of the record, or do not fit the widths.
  """
  if record is not None:
    classes = _classes(tensors)
    config = dataclasses.replace(record.config, num_classes=classes)
    if heads is not None and with_heads(config, heads) != config:
      raise InputError(
        f'heads {_listed(heads)} are not those that the file states, '
        f'{_listed((*config.heads, config.post_heads))}'
      )
    is_its = classes == record.config.num_classes
    return Inference(config=config, model=record.model, head=record.head if is_its else '')
  model = max(PRESETS, key=lambda name: _likeness(tensors, PRESETS[name].config))
  preset = PRESETS[model].config
  found = _by_shapes(tensors)
  is_preset = found is not None and _shape(found) == _shape(preset)
  config = preset if is_preset or found is None or heads is None else found
  config, sizes = _complete(tensors, config)
  if heads is not None:
    config = with_heads(config, heads)
    if found is not None:
      model = registry.name_of(config)
  is_other = not is_preset and heads is None
  return Inference(
    config=config,
    model=model,
    other=_complete(tensors, found)[0] if found is not None and is_other else None,
    assumed='' if is_other else _assumed(config, preset, model if heads is None else '', sizes),
  )


def with_heads(config: PainFormerConfig, heads: Sequence[int]) -> PainFormerConfig:
  """A config with other attention heads.

  Args:
    config: of a model.
    heads: of each stage, and after them of the class attention; without that, it has those of
      the last stage.

  Raises:
    InputError: there are more or fewer, or a width is no multiple of them.
  """
  stages = len(config.widths)
  if isinstance(heads, str) or len(heads) not in (stages, stages + 1):
    raise InputError(
      f'heads {heads!r} are not a number for each of the {stages} stages and, if it has others '
      'than the last of them, one for the class attention'
    )
  try:
    return dataclasses.replace(config, heads=tuple(heads[:stages]), post_heads=heads[-1])
  except ValueError as error:
    raise InputError(f'heads {_listed(heads)}: {error}') from error


def _assumed(
  config: PainFormerConfig, preset: PainFormerConfig, heads_of: str, sizes: range | None
) -> str:
  """What the file does not say, in one line; `heads_of` is the preset whose heads are taken."""
  taken = []
  if heads_of and (ATTENTION in ''.join(config.mixers) or config.post_blocks):
    heads = _listed((*config.heads, config.post_heads))
    taken.append(f'heads {heads} as in {heads_of} (--heads names others)')
  if sizes is None:
    taken.append(f'images of {config.image_size} pixels')
  elif config.image_size != preset.image_size:
    taken.append(
      f'images of {config.image_size} pixels, of the {sizes[0]} to {sizes[-1]} that fit its filters'
    )
  remark = PRESETS[heads_of].remark if heads_of else ''
  return ' and '.join(taken) + (f'; {remark}' if remark else '')


def _listed(heads: Sequence[int]) -> str:
  return ','.join(map(str, heads))


def _likeness(tensors: Mapping[str, np.ndarray], config: PainFormerConfig) -> float:
  """How many of a model's names and sizes are there, with what there should not be against it."""
  blocks = {
    f'block{stage}.{index}.attn.{_MIXERS[mixer]}'
    for stage, pattern in enumerate(config.mixers, start=1)
    for index, mixer in enumerate(pattern)
  }
  widths = sum(
    _size(tensors, f'patch_embed{stage}.proj.weight') == width
    for stage, width in enumerate(config.widths, start=1)
  )
  stem = _size(tensors, 'patch_embed1.conv.0.weight') == config.stem_width
  there = sum(block in tensors for block in blocks)
  ends = tuple(f'.attn.{mixer}' for mixer in _MIXERS.values())
  mixers = sum(name.startswith('block') and name.endswith(ends) for name in tensors)
  return 2 * widths + stem + there - (mixers - there)


def _by_shapes(tensors: Mapping[str, np.ndarray]) -> PainFormerConfig | None:
  """The config by names and shapes alone, with one head everywhere; None where they give none."""
  widths, mixers, ratios = [], [], []
  while width := _size(tensors, f'patch_embed{len(widths) + 1}.proj.weight'):
    stage, pattern = len(widths) + 1, ''
    while mixer := _mixer(tensors, f'block{stage}.{len(pattern)}.attn.'):
      pattern += mixer
    widths.append(width)
    mixers.append(pattern)
    ratios.append(_size(tensors, f'block{stage}.0.mlp.fc1.weight') // width)
  post = 0
  while f'post_network.{post}.attn.q.weight' in tensors:
    post += 1
  if sum(map(len, mixers)) + post > MOST_BLOCKS:
    return None
  hidden = _size(tensors, 'post_network.0.mlp.fc1.weight')
  ones = (1,) * len(widths)
  try:
    return PainFormerConfig(
      stem_width=_size(tensors, 'patch_embed1.conv.0.weight'),
      widths=tuple(widths),
      mixers=tuple(mixers),
      heads=ones,
      mlp_ratios=tuple(ratios),
      post_heads=1,
      post_mlp_ratio=hidden // widths[-1] if post else PainFormerConfig.post_mlp_ratio,
      post_blocks=post,
    )
  except (ValueError, IndexError):  # Something is missing, or empty.
    return None


def _mixer(tensors: Mapping[str, np.ndarray], prefix: str) -> str:
  return next((mixer for mixer, name in _MIXERS.items() if prefix + name in tensors), '')


def _shape(config: PainFormerConfig) -> dict:
  """Fields that names and shapes tell."""
  unknown = {'heads', 'post_heads', 'image_size', 'mean', 'std', 'num_classes', *ARITHMETIC}
  return {name: v for name, v in dataclasses.asdict(config).items() if name not in unknown}


def _size(tensors: Mapping[str, np.ndarray], name: str) -> int:
  """First dimension of a tensor; 0 if there is none, or nothing in it."""
  array = tensors.get(name)
  return array.shape[0] if array is not None and array.ndim and array.size else 0


def _classes(tensors: Mapping[str, np.ndarray]) -> int:
  return _size(tensors, 'head.weight') or _size(tensors, 'head.bias')


def _complete(
  tensors: Mapping[str, np.ndarray], config: PainFormerConfig
) -> tuple[PainFormerConfig, range | None]:
  """The config with the file's head and size of images, and all sizes that its filters fit."""
  sizes = _sizes(tensors, config)
  size = config.image_size
  if sizes is not None and size not in sizes and sizes[-1] >= 2 ** (len(config.widths) + 1):
    rounded = sizes[-1] // 32 * 32
    size = rounded if rounded in sizes else sizes[-1]
  return dataclasses.replace(config, num_classes=_classes(tensors), image_size=size), sizes


def _sizes(tensors: Mapping[str, np.ndarray], config: PainFormerConfig) -> range | None:
  """All sizes of images at which the spectral filters have the stored shapes; None for any."""
  sizes = None
  for stage, pattern in enumerate(config.mixers):
    name = f'block{stage + 1}.{pattern.find(SPECTRAL)}.attn.complex_weight'
    grid, step = _size(tensors, name), 4 << stage
    if 1 < grid <= 1024:
      these = range((grid - 1) * step + 1, grid * step + 1)
      if sizes is not None:
        these = range(max(sizes[0], these[0]), min(sizes[-1], these[-1]) + 1)
      sizes = these or sizes  # Filters that do not fit together are misshapen for any size.
  return sizes
