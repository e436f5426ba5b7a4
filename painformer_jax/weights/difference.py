"""Compares weights name by name."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorDifference:
  """How two tensors of one name and shape differ.

  Attributes:
    name: released name.
    shape: of both.
    elements: how many differ.
    largest: largest absolute difference; infinite where only one is NaN or infinite.
    relative: that of the norms: |a - b| / |a|, infinite as above.
  """

  name: str
  shape: tuple[int, ...]
  elements: int
  largest: float
  relative: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Difference:
  """How two sets of tensors differ.

  Attributes:
    only_a, only_b: names in only one of them.
    shapes: name -> the two shapes, where they differ.
    types: name -> the two element types, where they differ, which alone is no difference.
    values: of tensors of one shape with other values, the largest difference first.
    equal: how many tensors have the same values.
  """

  only_a: list[str]
  only_b: list[str]
  shapes: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
  types: dict[str, tuple[str, str]]
  values: list[TensorDifference]
  equal: int

  @property
  def is_none(self) -> bool:
    return not (self.only_a or self.only_b or self.shapes or self.values)


def difference(
  a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray], *, tolerance: float = 0.0
) -> Difference:
  """Compares two sets of tensors.

  Args:
    a, b: name -> array.
    tolerance: largest absolute difference of numbers that count as equal.
  """
  common = [name for name in a if name in b]
  values = [
    found
    for name in common
    if a[name].shape == b[name].shape and (found := _values(name, a[name], b[name], tolerance))
  ]
  shapes = {
    name: (a[name].shape, b[name].shape) for name in common if a[name].shape != b[name].shape
  }
  return Difference(
    only_a=[name for name in a if name not in b],
    only_b=[name for name in b if name not in a],
    shapes=shapes,
    types={
      name: (a[name].dtype.name, b[name].dtype.name)
      for name in common
      if a[name].dtype != b[name].dtype
    },
    values=sorted(values, key=lambda found: -found.largest),
    equal=len(common) - len(values) - len(shapes),
  )


def _values(name: str, a: np.ndarray, b: np.ndarray, tolerance: float) -> TensorDifference | None:
  if a.dtype == b.dtype and a.tobytes() == b.tobytes():
    return None
  wide = np.complex128 if 'c' in (a.dtype.kind, b.dtype.kind) else np.float64
  a, b = a.astype(wide), b.astype(wide)
  with np.errstate(invalid='ignore', over='ignore', divide='ignore'):
    apart = np.array(np.abs(a - b))  # Of scalars too an array.
    # Infinity minus itself is no number, and nor is NaN.
    apart[(a == b) | (np.isnan(a) & np.isnan(b))] = 0
    apart[np.isnan(apart)] = np.inf
    differing = apart > tolerance
    if not differing.any():
      return None
    size = float(np.linalg.norm(a))
    relative = float(np.linalg.norm(apart)) / size if size else np.inf
  return TensorDifference(
    name=name,
    shape=a.shape,
    elements=int(differing.sum()),
    largest=float(apart.max()),
    relative=np.inf if np.isnan(relative) else relative,
  )
