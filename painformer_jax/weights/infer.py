"""Tells the preset, input size and head of released weights by their names and shapes."""

import dataclasses
from collections.abc import Mapping

import numpy as np

from painformer_jax.models.config import ATTENTION, PRESETS, SPECTRAL, PainFormerConfig


def infer(tensors: Mapping[str, np.ndarray]) -> tuple[str, PainFormerConfig]:
  """The preset nearest to a state dict, and its config with the file's input size and head.

  Args:
    tensors: released name -> array.
  """

  def score(name: str) -> int:
    config = PRESETS[name].config
    blocks = [
      f'block{stage}.{index}.attn.' + {SPECTRAL: 'complex_weight', ATTENTION: 'q.weight'}[mixer]
      for stage, pattern in enumerate(config.mixers, start=1)
      for index, mixer in enumerate(pattern)
    ]
    widths = sum(
      _size(tensors, f'patch_embed{stage}.proj.weight') == width
      for stage, width in enumerate(config.widths, start=1)
    )
    return 2 * widths + sum(block in tensors for block in blocks)

  model = max(PRESETS, key=score)  # Of several that are equally near, the first.
  config = PRESETS[model].config
  classes = _size(tensors, 'head.weight') or _size(tensors, 'head.bias')
  return model, dataclasses.replace(
    config, num_classes=classes, image_size=_image_size(tensors, config)
  )


def _size(tensors: Mapping[str, np.ndarray], name: str) -> int:
  """First dimension of a tensor; 0 if there is none, or nothing in it."""
  array = tensors.get(name)
  return array.shape[0] if array is not None and array.ndim and array.size else 0


def _image_size(tensors: Mapping[str, np.ndarray], config: PainFormerConfig) -> int:
  """The size of images at which the spectral filters have the shapes that are stored."""
  for stage, pattern in enumerate(config.mixers):
    name = f'block{stage + 1}.{pattern.find(SPECTRAL)}.attn.complex_weight'
    grid = _size(tensors, name)
    if grid == config.grid(stage):
      return config.image_size
    if 1 < grid <= 1024:
      return grid * 2 ** (stage + 2)
  return config.image_size
