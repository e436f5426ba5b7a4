"""Augmentation on the host: uint8 images in, uint8 images out.

`policy('paper')` or `policy('flip@0.5|trivial_augment')` gives a function of an image
and a generator, from which all its chance comes; the mixture seeds one anew for each
element. Operations are in `ops`, TrivialAugment, RandAugment and AugMix in `automatic`,
the text form in `recipe`, what suits which kind of picture in `modalities`.
"""

from painformer_jax.data.augment.ops import (
  blur,
  brightness,
  contrast,
  crop_resized,
  flip,
  mask,
  noise,
  shift_scale,
)
from painformer_jax.data.augment.policies import POLICIES, Policy, apply_to_clip, policy

__all__ = [
  'POLICIES',
  'Policy',
  'apply_to_clip',
  'blur',
  'brightness',
  'contrast',
  'crop_resized',
  'flip',
  'mask',
  'noise',
  'policy',
  'shift_scale',
]
