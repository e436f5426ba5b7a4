"""Spectral filters for another grid, against interpolation written by frequency."""

import numpy as np
import pytest

from painformer_jax.models.spectral import resample


def on_the_circle(rows, height):
  """[h] values by frequency k/h -> [height] values by frequency k/height."""
  h = len(rows)
  turns = np.append(np.arange(h) / h, 1.0)  # 1 is 0 again.
  return np.interp(np.arange(height) / height, turns, np.append(rows, rows[0]))


@pytest.mark.parametrize('h', [1, 2, 3, 5, 6, 7, 8])
@pytest.mark.parametrize('height', [1, 2, 3, 4, 6, 7, 8, 9, 14, 15])
def test_rows_are_interpolated_on_the_circle(h, height):
  rows = np.random.default_rng(h).normal(size=h).astype(np.float32)
  weight = np.broadcast_to(rows[:, None, None, None], (h, 3, 2, 2))
  found = np.asarray(resample(weight, height, 4))
  assert found.shape == (height, 3, 2, 2)
  np.testing.assert_allclose(
    found, np.broadcast_to(on_the_circle(rows, height)[:, None, None, None], found.shape), atol=1e-6
  )


def test_the_nyquist_row_of_an_odd_filter_is_between_its_neighbours():
  weight = np.zeros((7, 4, 1, 2), np.float32)
  weight[[3, -3]] = 1
  np.testing.assert_allclose(resample(weight, 8, 6)[4], 1.0, atol=1e-6)


@pytest.mark.parametrize('size', [(4, 4), (7, 7), (8, 6), (7, 8), (14, 15)])
def test_the_own_size_is_the_identity(size):
  height, width = size
  weight = np.random.default_rng(0).normal(size=(height, width // 2 + 1, 3, 2)).astype(np.float32)
  np.testing.assert_array_equal(resample(weight, height, width), weight)
