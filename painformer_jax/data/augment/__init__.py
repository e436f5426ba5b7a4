"""Augmentation on the host: uint8 images in, uint8 images out.

`policy('paper')` or `policy('flip@0.5|trivial_augment')` gives a function of an image
and a random generator. The mixture passes a generator of its own for each element.
Operations are in `ops`; TrivialAugment, RandAugment and AugMix in `automatic`; the text
form in `recipe`; which operations suit which modality in `modalities`.
"""

from painformer_jax.data.augment.policies import POLICIES, Policy, policy

__all__ = ['POLICIES', 'Policy', 'policy']
