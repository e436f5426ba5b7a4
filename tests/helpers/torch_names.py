"""The released names of a PainFormer's arrays, written down a second time.

Independent of `painformer_jax.weights.key_map`, so that the parity tests
do not rest on the mapping they would otherwise share with the product.
"""

import re
from collections.abc import Mapping

import numpy as np

_CONV = {'0': 'conv1', '1': 'bn1', '3': 'conv2', '4': 'bn2', '6': 'conv3', '7': 'bn3'}
_LEAF = {'running_mean': 'mean', 'running_var': 'var', 'num_batches_tracked': 'count'}


def path(name: str, dimensions: int) -> str:
  """Path in `functional.variables` of a released key with so many dimensions."""
  name = re.sub(r'patch_embed1\.conv\.(\d)', lambda m: f'patch_embed1.{_CONV[m[1]]}', name)
  name = name.replace('dwconv.dwconv', 'dwconv')
  *module, leaf = name.split('.')
  if leaf == 'weight':
    leaf = 'kernel' if dimensions > 1 else 'scale'
  return '/'.join([*module, _LEAF.get(leaf, leaf)])


def array(name: str, value: np.ndarray) -> np.ndarray:
  """A released array in the layout of `functional.variables`."""
  if name.endswith('complex_weight'):
    return value
  if name.endswith('dwconv.weight'):
    return value[:, 0].transpose(1, 2, 0)
  if value.ndim == 4:
    return value.transpose(2, 3, 1, 0)
  if value.ndim == 0:
    return value.astype(np.int32)
  return value.T


def variables(state_dict: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """A whole released checkpoint in the names and layouts of this package."""
  return {path(name, value.ndim): array(name, value) for name, value in state_dict.items()}
