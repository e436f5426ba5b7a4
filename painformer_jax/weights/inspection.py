"""Describes a file or folder of weights, and what `painformer convert` would do with it."""

import dataclasses
import itertools
import os
from collections.abc import Mapping

import ml_dtypes
import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.weights import report as reports
from painformer_jax.weights.convert import ConversionError, convert, export
from painformer_jax.weights.options import DEFAULTS, FileOptions
from painformer_jax.weights.sources import Source, open_source
from painformer_jax.weights.torch import state_dicts, tree

_NO_PARAMETERS = ('running_mean', 'running_var', 'num_batches_tracked')


@dataclasses.dataclass(frozen=True, kw_only=True)
class FoundStateDict:
  """One state dict of a file: its key, number of tensors, and of names that a PainFormer has."""

  key: str
  tensors: int
  fitting: int
  averaged: bool
  taken: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class TensorSummary:
  """One tensor; `largest` is the largest absolute value that is finite, 0 for none."""

  name: str
  shape: tuple[int, ...]
  dtype: str
  parameters: int
  non_finite: int
  all_zero: bool
  largest: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inspection:
  """What there is at a path.

  Attributes:
    path, kind: what was read.
    size: bytes; 0 of folders of this package.
    sha256: of what was read, '' if unknown.
    source: where weights in a folder of this package come from.
    keys: top-level keys of a file.
    state_dicts: those in the file.
    prefix: what is taken off the names.
    left_out: names of other modules.
    tensors: of the model, under the released names.
    parameters: learned values among them.
    model: the nearest preset, '' where nothing fits.
    config: its config, None where nothing fits.
    converts: whether `painformer convert` takes it.
    remarks: what it would say, or why it would refuse.
  """

  path: str
  kind: str
  size: int
  sha256: str
  source: str
  keys: list[str]
  state_dicts: list[FoundStateDict]
  prefix: str
  left_out: list[str]
  tensors: list[TensorSummary]
  parameters: int
  model: str
  config: dict | None
  converts: bool
  remarks: list[str]


def inspect(path: str | os.PathLike[str], options: FileOptions = DEFAULTS) -> Inspection:
  """Describes weights in any form.

  Args:
    path: of the file or folder.
    options: what to take from a file, as for `convert`.

  Raises:
    InputError: there is nothing at `path` that is read, or it is damaged.
  """
  source = open_source(path)
  if source.stored is not None:
    return _of_folder(path, source)
  opened = source.opened
  found = state_dicts.find(opened.root, opened.arrays)
  remarks, checkpoint, conversion, failed = [], None, None, None
  try:
    checkpoint = state_dicts.select(opened, options)
    conversion = convert(
      checkpoint, source=str(path), allow_missing=options.allow_missing, heads=options.heads
    ).report
    remarks = [*reports.remarks(conversion), *reports.warnings(conversion)]
  except ConversionError as error:
    failed, conversion = str(error), error.report
    remarks = [*(reports.remarks(conversion) if conversion.converted else ()), failed]
  except InputError as error:
    failed = str(error)
    remarks = [failed]
  tensors = _summaries(checkpoint.tensors if checkpoint else {})
  fits = conversion is not None and conversion.converted > 0
  return Inspection(
    path=str(path),
    kind=opened.kind,
    size=opened.size,
    sha256=opened.sha256,
    source='',
    # Those of a file that is nothing but a state dict are its tensors.
    keys=[
      tree.key_name(key)
      for key, value in itertools.islice(_items(opened.root), 1000)
      if not tree.is_tensor(value)
    ],
    state_dicts=[
      FoundStateDict(
        key=state.key,
        tensors=len(state.tensors),
        fitting=state.fitting,
        averaged=state.averaged,
        taken=checkpoint is not None and state.key == checkpoint.container,
      )
      for state in found
    ],
    prefix=checkpoint.prefix if checkpoint else '',
    left_out=checkpoint.left_out if checkpoint else [],
    tensors=tensors,
    parameters=sum(tensor.parameters for tensor in tensors),
    model=conversion.model if fits else '',
    config=conversion.config if fits else None,
    converts=failed is None,
    remarks=remarks,
  )


def _of_folder(path: str | os.PathLike[str], source: Source) -> Inspection:
  stored = source.stored
  tensors = _summaries(export(stored.variables))
  return Inspection(
    path=str(path),
    kind=source.kind,
    size=0,
    sha256=stored.source.sha256,
    source=stored.source.name,
    keys=[],
    state_dicts=[],
    prefix='',
    left_out=list(stored.source.left_out),
    tensors=tensors,
    parameters=sum(tensor.parameters for tensor in tensors),
    model=stored.source.model,
    config=dataclasses.asdict(stored.config),
    converts=False,
    remarks=[
      *reports.initial_warnings(stored.source.initialised),
      'it is of this package already, so that nothing is to be converted',
    ],
  )


def _items(root: object):
  return root.items() if isinstance(root, dict) else ()


def _summaries(tensors: Mapping[str, np.ndarray]) -> list[TensorSummary]:
  return [_summary(name, array) for name, array in tensors.items()]


def _summary(name: str, array: np.ndarray) -> TensorSummary:
  # bfloat16 knows no arithmetic of its own that is quick.
  values = array.astype(np.float32) if array.dtype == ml_dtypes.bfloat16 else array
  finite = np.isfinite(values)
  bad = int(values.size - np.count_nonzero(finite))
  size = np.abs(values[finite] if bad else values)
  is_float = values.dtype.kind in 'fc'
  learned = is_float and name.rpartition('.')[2] not in _NO_PARAMETERS
  return TensorSummary(
    name=name,
    shape=array.shape,
    dtype=array.dtype.name,
    parameters=array.size if learned else 0,
    non_finite=bad,
    all_zero=bool(array.size) and not np.count_nonzero(values),
    largest=float(size.max()) if size.size else 0.0,
  )
