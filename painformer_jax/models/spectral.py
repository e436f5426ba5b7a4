"""The spectral gate: a learned complex filter over the token grid.

Two exact implementations of one function. `irfft2` of a freely gated spectrum
depends on a convention, since the gate breaks the symmetry that the spectrum
of a real signal has: the imaginary parts of the zero and Nyquist columns are
dropped after the transform over the height. NumPy, PyTorch on CPUs and JAX on
CPUs agree on that. GPU libraries have differed, so both implementations drop those
parts themselves.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np


def gate_fft(x: jax.Array, weight: jax.Array) -> jax.Array:
  """Filters each channel's grid in the frequency domain with FFTs.

  Args:
    x: [batch, height, width, channels], any float dtype.
    weight: [height, width // 2 + 1, channels, 2] float32, the filter's real
      and imaginary parts.

  Returns:
    [batch, height, width, channels] in the dtype of `x`; computed in float32.
  """
  spectrum = jnp.fft.rfft2(x.astype(jnp.float32), axes=(1, 2), norm='ortho')
  spectrum *= jax.lax.complex(weight[..., 0], weight[..., 1])
  spectrum = jnp.fft.ifft(spectrum, axis=1, norm='ortho')
  spectrum = jax.lax.complex(spectrum.real, spectrum.imag * _has_mirror(x.shape[2])[:, None])
  return jnp.fft.irfft(spectrum, n=x.shape[2], axis=2, norm='ortho').astype(x.dtype)


def _has_mirror(width: int) -> np.ndarray:
  """[width // 2 + 1] float32: 1 for columns that stand for their mirror image too.

  The zero and the Nyquist column are their own mirror images.
  """
  columns = np.arange(width // 2 + 1)
  return ((columns > 0) & (2 * columns != width)).astype(np.float32)


@functools.lru_cache(maxsize=32)
def _matrices(height: int, width: int):
  """The four real matrices of an orthonormal rfft2 and irfft2, float32."""
  rows, columns = np.arange(height), np.arange(width // 2 + 1)
  angle_h = 2 * np.pi * np.outer(rows, rows) / height
  angle_w = 2 * np.pi * np.outer(np.arange(width), columns) / width
  cos_h, sin_h = (f(angle_h) / np.sqrt(height) for f in (np.cos, np.sin))
  cos_w, sin_w = (f(angle_w) / np.sqrt(width) for f in (np.cos, np.sin))
  twice = 1 + _has_mirror(width)
  into = np.stack([cos_w, -sin_w], axis=-1)  # [width, columns, re/im]
  back = np.stack([cos_w * twice, -sin_w * twice], axis=-1)
  # Complex product as a real one: [re/im out, height out, re/im in, height in].
  forward = np.array([[cos_h, sin_h], [-sin_h, cos_h]]).transpose(0, 2, 1, 3)
  inverse = np.array([[cos_h, -sin_h], [sin_h, cos_h]]).transpose(0, 2, 1, 3)
  return tuple(m.astype(np.float32) for m in (into, forward, inverse, back))


def gate_dft(x: jax.Array, weight: jax.Array, *, precision: str = 'highest') -> jax.Array:
  """The same filter with the transforms written as matrix products.

  Args:
    x: [batch, height, width, channels], any float dtype.
    weight: [height, width // 2 + 1, channels, 2] float32.
    precision: 'highest' for float32 products, relative error about 3e-7;
      'default' for inputs in the dtype of `x` with float32 accumulation,
      about 5e-3 in bfloat16.

  Returns:
    [batch, height, width, channels] in the dtype of `x`.
  """
  operand = jnp.float32 if precision == 'highest' else x.dtype
  matrices = _matrices(x.shape[1], x.shape[2])
  into, forward, inverse, back = (jnp.asarray(m, operand) for m in matrices)
  dot = functools.partial(jnp.einsum, precision=precision, preferred_element_type=jnp.float32)
  z = dot('bhwc,wkr->brhkc', x.astype(operand), into).astype(operand)
  z = dot('brhkc,sgrh->bsgkc', z, forward)
  real, imag = z[:, 0], z[:, 1]
  gate_real, gate_imag = weight[..., 0], weight[..., 1]
  z = jnp.stack(
    [real * gate_real - imag * gate_imag, real * gate_imag + imag * gate_real], axis=1
  ).astype(operand)
  z = dot('brhkc,sgrh->bsgkc', z, inverse).astype(operand)
  return dot('brhkc,wkr->bhwc', z, back).astype(x.dtype)


def resample(weight: np.ndarray | jax.Array, height: int, width: int) -> jax.Array:
  """A filter for another grid, by interpolation along both frequencies.

  The zero frequencies and the Nyquist column stay where they are; rows are
  interpolated as a circle, since they hold positive and negative frequencies.
  At the filter's own size this is the identity. GFNet resamples its filters
  in the same spirit; the released PainFormer has no other size than 224.

  Args:
    weight: [h, w // 2 + 1, channels, 2] float32.
    height, width: the grid to filter.

  Returns:
    [height, width // 2 + 1, channels, 2] float32.
  """
  weight = jnp.asarray(weight)
  h, k = weight.shape[:2]
  columns = width // 2 + 1
  if h != height:
    # In order of frequency, -Nyquist first, with the first row once more at
    # the end: position 0 to h is one turn of the circle.
    ring = jnp.fft.fftshift(weight, axes=0)
    ring = jnp.concatenate([ring, ring[:1]])
    frequency = np.fft.fftshift(np.fft.fftfreq(height))
    # The new Nyquist row of an odd `h` lies half a row before the first: it wraps.
    ring = _interpolate(ring, (frequency * h + h // 2) % h)
    weight = jnp.fft.ifftshift(ring, axes=0)
  if k != columns:
    line = jnp.moveaxis(weight, 1, 0)
    line = _interpolate(line, np.linspace(0, k - 1, columns))
    weight = jnp.moveaxis(line, 0, 1)
  return weight


def _interpolate(values: jax.Array, positions: np.ndarray) -> jax.Array:
  """Linear interpolation along the first axis at fractional positions."""
  low = np.clip(np.floor(positions).astype(int), 0, len(values) - 1)
  high = np.minimum(low + 1, len(values) - 1)
  part = (positions - low).astype(np.float32).reshape((-1,) + (1,) * (values.ndim - 1))
  return values[low] * (1 - part) + values[high] * part
