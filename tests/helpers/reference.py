"""The seeded rule behind the reference vectors in tests/golden.

Every array of a PainFormer checkpoint is drawn from its own name, so a full
checkpoint (79 MB) never has to be shipped: `state_dict(manifest)` rebuilds it
exactly, with NumPy alone. The vectors in the .npz files were measured by
running the released PyTorch code (float32, CPU) on these weights and inputs.
"""

import json
import pathlib
import zlib

import numpy as np

FOLDER = pathlib.Path(__file__).parents[1] / 'golden'


def array(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
  """The float32 (or int64 counter) array that the rule gives to `name`."""
  rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
  if name.endswith('num_batches_tracked'):
    return np.asarray(0, np.int64)
  noise = rng.standard_normal(shape)
  if name.endswith('running_var'):
    value = 0.5 + rng.random(shape)
  elif name.endswith('running_mean'):
    value = 0.1 * noise
  elif name.endswith('complex_weight'):
    value = 0.3 * noise
  elif name.endswith('bias'):
    value = 0.05 * noise
  elif len(shape) == 1:  # the scale of a normalisation layer
    value = 1.0 + 0.1 * noise
  else:
    value = noise / np.sqrt(np.prod(shape[1:]))
  return value.astype(np.float32)


def manifest() -> dict[str, tuple[int, ...]]:
  """Checkpoint key -> shape, in the order of the released state_dict."""
  return {k: tuple(v) for k, v in json.loads((FOLDER / 'manifest.json').read_text()).items()}


def state_dict(seed: int = 0) -> dict[str, np.ndarray]:
  return {name: array(name, shape, seed) for name, shape in manifest().items()}


def images(count: int, seed: int = 0, size: int = 224) -> np.ndarray:
  """`count` normalised RGB images, float32, (count, 3, size, size)."""
  rng = np.random.default_rng([seed, 224])
  coarse = rng.standard_normal((count, 3, size // 8, size // 8))
  fine = rng.standard_normal((count, 3, size, size))
  return (np.kron(coarse, np.ones((8, 8))) + 0.5 * fine).astype(np.float32)
