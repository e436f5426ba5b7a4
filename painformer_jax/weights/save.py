"""Writes models and weights in any form: a .pth or .safetensors file, or a weights folder."""

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import ml_dtypes
import numpy as np

from painformer_jax.core.errors import ArgumentError, InputError
from painformer_jax.models import functional, registry
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.models.painformer import PainFormer
from painformer_jax.weights import folder, model_record, safetensors_file
from painformer_jax.weights.convert import export
from painformer_jax.weights.folder import Weights, WeightsSource
from painformer_jax.weights.load import origin_of, read_weights
from painformer_jax.weights.model_record import ModelRecord
from painformer_jax.weights.options import file_options
from painformer_jax.weights.torch import write as torch_file

Path = str | os.PathLike[str]
Dtype = Literal['float32', 'bfloat16', 'float16']

_DTYPES = {
  'float32': np.dtype(np.float32),
  'bfloat16': np.dtype(ml_dtypes.bfloat16),
  'float16': np.dtype(np.float16),
}
DTYPES = tuple(_DTYPES)

_PTH = (torch_file.check_target, torch_file.write_pth)
# Ending of a file -> what checks the target and what writes it.
_WRITERS: dict[str, tuple[Any, Any]] = {
  '.pth': _PTH,
  '.pt': _PTH,
  '.safetensors': (safetensors_file.check_target, safetensors_file.write_safetensors),
}
SUFFIXES = tuple(_WRITERS)


def save(model: PainFormer, path: Path, *, dtype: Dtype = 'float32') -> None:
  """Writes a model with its config: `pj.load(path)` gives it back.

  Files have the released names and layouts, and the model's config beside them: PyTorch reads
  them as it reads the release. `painformer_jax.load` gives the same model again, with its
  attention heads, input size and arithmetic. Whom a loaded model was fine-tuned on is written
  with it.

  Args:
    model: from `load` or `create`, or of `PainFormer` itself.
    path: its ending chooses the form: .pth, .pt or .safetensors for a file; none for a weights
      folder. What is there is replaced only if this program wrote it.
    dtype: of the numbers in a file. bfloat16 and float16 halve the file and round the weights;
      docs/weights.md says what that costs. A weights folder holds float32.

  Raises:
    ArgumentError: `model` is no model; it is a ValueError.
    InputError: `path` cannot be written, `dtype` is unknown, or a weight is too large for it.
  """
  if not isinstance(model, PainFormer):
    raise ArgumentError(f'save takes a model first, not a value of type {type(model).__name__}')
  source = origin_of(model)
  if source is None:
    name = registry.name_of(model.config)
    source = WeightsSource(name=name or 'a model', model=name)
  write(path, Weights(variables=_arrays(model), config=model.config, source=source), dtype=dtype)


def convert(
  source: Path, target: Path, *, head: str | None = None, dtype: Dtype = 'float32', **options: Any
) -> Weights:
  """Converts weights from any form to any other.

  Args:
    source: a .pth or .safetensors file, a weights folder, or the folder of a run of `painformer
      pretrain`, as `load` takes it.
    target: its ending chooses the form, as in `save`.
    head: name of the task whose head to take with the backbone of a run; None for none.
    dtype: of the numbers in a file, as in `save`.
    **options: `key`, `prefix`, `rename`, `allow_missing` and `heads`, as in `load`: what to take
      from a file, and what it does not say.

  Returns:
    What was written: the variables and the config of the model, where they come from, and what
    `assumed` says was not in the source.

  Raises:
    InputError: there are no weights at `source`, they are damaged or do not fit, or `target`
      cannot be written; nothing is left behind.
  """
  check_target(target, dtype=dtype, inputs=(source,))
  stored = read_weights(source, file_options(**options), head=head)
  write(target, stored, dtype=dtype)
  return stored


def to_torch_names(
  model: PainFormer | Mapping[str, Any], *, dtype: Dtype = 'float32'
) -> dict[str, np.ndarray]:
  """The state dict of the released PyTorch code, as NumPy arrays.

  `{name: torch.from_numpy(array) for name, array in to_torch_names(model).items()}` is what
  `load_state_dict` takes (of float32 and float16; PyTorch takes no bfloat16 from NumPy).

  Args:
    model: a model, or its arrays by path, as `models.functional.variables` gives them.
    dtype: of the floating point numbers.

  Returns:
    Released name -> array, in the released layouts and order. BatchNorm's counts are int64.

  Raises:
    ArgumentError: it is neither; it is a ValueError.
    InputError: an array has no counterpart in the release, `dtype` is unknown, or a number is
      too large for it.
  """
  if not isinstance(model, PainFormer | Mapping):
    raise ArgumentError(
      f'to_torch_names takes a model or its arrays, not a value of type {type(model).__name__}'
    )
  arrays = _arrays(model) if isinstance(model, PainFormer) else model
  return _cast(export(arrays), dtype)


def check_target(path: Path, *, dtype: str = 'float32', inputs: Iterable[Path] = ()) -> None:
  """Refuses a place that `write` would refuse, before any work.

  Raises:
    InputError: see `save`; or it is one of `inputs`.
  """
  if dtype not in _DTYPES:
    raise InputError(f'dtype {dtype!r} is none of {", ".join(_DTYPES)}')
  suffix = _suffix(path)
  if suffix:
    _WRITERS[suffix][0](path, inputs=inputs)
    return
  if dtype != 'float32':
    raise InputError(f'{path} would be a weights folder, which holds float32, not {dtype}')
  folder.check_target(path, inputs=inputs)


def write(path: Path, stored: Weights, *, dtype: str = 'float32') -> None:
  """Writes weights in the form that the ending of the path says.

  Raises:
    InputError: see `save`.
  """
  check_target(path, dtype=dtype)
  suffix, source = _suffix(path), stored.source
  if not suffix:
    folder.save_weights(path, stored.variables, config=stored.config, source=source)
    return
  record = ModelRecord(
    config=stored.config, model=source.model, head=source.head, initialised=source.initialised
  )
  _WRITERS[suffix][1](
    path,
    _cast(export(stored.variables), dtype),
    record=model_record.to_json(record),
    tuned_on=source.trained_on,
  )


def differing(config: PainFormerConfig) -> list[str]:
  """Fields by which a model is another than the one that the released code makes."""
  released = registry.preset('painformer').config
  fields = (
    'image_size',
    'stem_width',
    'widths',
    'mixers',
    'heads',
    'mlp_ratios',
    'post_heads',
    'post_mlp_ratio',
    'post_blocks',
  )
  return [field for field in fields if getattr(config, field) != getattr(released, field)]


def _suffix(path: Path) -> str:
  """The ending that chooses a file's form; '' for a folder."""
  suffix = pathlib.Path(path).suffix.lower()
  if suffix and suffix not in _WRITERS and not os.path.isdir(path):
    raise InputError(
      f'{path} must end in {", ".join(_WRITERS)} for a file, or have no ending for a weights folder'
    )
  return suffix if suffix in _WRITERS else ''


def _arrays(model: PainFormer) -> dict[str, np.ndarray]:
  return {path: np.asarray(array) for path, array in functional.variables(model).items()}


def _cast(tensors: Mapping[str, np.ndarray], dtype: str) -> dict[str, np.ndarray]:
  """The tensors with their floating point numbers in another type, and the counts as they are."""
  if dtype not in _DTYPES:
    raise InputError(f'dtype {dtype!r} is none of {", ".join(_DTYPES)}')
  target, result = _DTYPES[dtype], {}
  for name, array in tensors.items():
    if array.dtype.kind != 'f':
      result[name] = array
      continue
    with np.errstate(over='ignore'):
      result[name] = array.astype(target)
    lost = np.isfinite(array) & ~np.isfinite(result[name].astype(np.float32))
    if lost.any():
      raise InputError(
        f'{name} holds {float(array[lost][0]):.6g}, too large for {dtype}: export as bfloat16 '
        'or float32'
      )
  return result
