"""Converts a released state dict to this package's variables and back, strictly.

Pure functions: arrays in, arrays out. `torch.read` reads the file before, and `folder`
stores the result after.
"""

import dataclasses
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from painformer_jax.core.errors import InputError, listed, printable
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.weights import key_map
from painformer_jax.weights.infer import Inference, infer
from painformer_jax.weights.options import FileOptions
from painformer_jax.weights.report import ConversionError as ConversionError
from painformer_jax.weights.report import ConversionReport as ConversionReport
from painformer_jax.weights.torch.state_dicts import TorchCheckpoint

# The least share of the backbone's values that a file must give, whatever may be missing.
_LEAST_TAKEN = 0.5

_MAX_COUNT = np.iinfo(np.int32).max
# Files of that size are not read.
_MAX_ELEMENTS = 1 << 32

# SpectFormer's second head, on the tokens of the image, which serves in its training alone.
_TOKEN_HEAD = ('aux_head.weight', 'aux_head.bias')


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
  """The result: variables, as `functional.from_variables` takes them, of NumPy arrays."""

  variables: dict[str, np.ndarray]
  config: PainFormerConfig
  report: ConversionReport


def convert(
  checkpoint: TorchCheckpoint,
  *,
  source: str,
  allow_missing: str | None = None,
  heads: Sequence[int] | None = None,
) -> Conversion:
  """Converts a released state dict to a model's variables.

  `infer` tells the model. float32 values stay bit-identical;
  other floats are cast to float32.

  Args:
    checkpoint: from `torch.read.read`.
    source: what to call the file in messages and in the report.
    allow_missing, heads: see `FileOptions`.

  Raises:
    ConversionError: a name is missing, unexpected or misshapen and not
      allowed, or less than half of the model would be taken from the file; its report
      lists every name.
    InputError: `allow_missing` is no regular expression or matches the empty
      string, a name falls under several rules of the table, or `heads` do not fit.
  """
  allowed = FileOptions(allow_missing=allow_missing).allowed()
  tensors = {name: modern(name, array) for name, array in checkpoint.tensors.items()}
  beside = [name for name in tensors if name in _TOKEN_HEAD]
  tensors = {name: array for name, array in tensors.items() if name not in beside}
  try:
    inferred = infer(tensors, record=checkpoint.record, heads=heads)
  except InputError as error:
    raise InputError(f'{source}: {error}') from error
  config = inferred.config
  abstract = _abstract(config, source)
  targets = {path: key_map.to_torch(path) for path in abstract}
  expected = _expected(abstract, targets)
  misshapen = {
    name: fault
    for name, array in tensors.items()
    if name in expected and (fault := _fault(array, expected[name]))
  }
  lacking = [name for name in expected if name not in tensors]
  # PyTorch before 0.4.1 kept no counts.
  restarted = [name for name in lacking if expected[name].dtype == 'int64']
  missing = [name for name in lacking if expected[name].dtype != 'int64']
  sources = {name: key_map.to_ours(name) for name in tensors}
  known = {
    name: match for name, match in sources.items() if match is not None and match.name in abstract
  }
  unexpected = [name for name in tensors if name not in known]
  variables = {
    match.name: _ours(tensors[name], match)
    for name, match in known.items()
    if name not in misshapen
  }
  initialised = [
    name for name in expected if (name in missing or name in misshapen) and allowed(name)
  ]
  report = ConversionReport(
    source=source,
    sha256=checkpoint.sha256,
    container=checkpoint.container,
    averaged=checkpoint.averaged,
    alternatives=checkpoint.alternatives,
    averaged_nothing=checkpoint.averaged_nothing,
    ignored=checkpoint.ignored,
    prefix=checkpoint.prefix,
    left_out=checkpoint.left_out,
    model=inferred.model,
    head=inferred.head,
    assumed=inferred.assumed,
    config=dataclasses.asdict(config),
    has_head=config.num_classes > 0,
    classes=config.num_classes,
    tensors=len(checkpoint.tensors),
    converted=len(variables),
    parameters=functional.count_parameters(config),
    dtypes=_dtypes(checkpoint.tensors),
    missing=missing,
    unexpected=unexpected,
    misshapen=misshapen,
    initialised=initialised,
    skipped=beside + [name for name in unexpected if allowed(name)],
    restarted=restarted,
    complex=[n for n in known if checkpoint.tensors[n].dtype.kind == 'c'],
    non_finite=[targets[path].name for path in non_finite(variables)],
    zeros=[targets[path].name for path in zeros(variables)],
  )
  _refuse_faults(report, allowed, other=_other(inferred, tensors))
  _refuse_untrained(report, expected, taken={targets[path].name for path in variables})
  for path, match in targets.items():
    if match.name in restarted:
      variables[path] = np.zeros((), np.int32)
  if initialised:
    variables |= initial_arrays(
      config, [path for path, match in targets.items() if match.name in initialised], seed=0
    )
  ordered = {path: variables[path] for path in targets}
  return Conversion(variables=ordered, config=config, report=report)


def export(variables: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """Converts a model's variables to a released state dict.

  Args:
    variables: path -> array.

  Returns:
    Released name -> array, in the released layouts, types and order.

  Raises:
    InputError: a variable has no counterpart in the release.
  """
  targets = {path: key_map.to_torch(path) for path in variables}
  paths = sorted(variables, key=lambda path: key_map.torch_order(targets[path]))
  return {
    targets[path].name: np.array(
      targets[path].layout.torch(np.asarray(variables[path])), targets[path].layout.dtype, order='C'
    )
    for path in paths
  }


def initial_arrays(
  config: PainFormerConfig, paths: Collection[str], *, seed: int
) -> dict[str, np.ndarray]:
  """The release's initial values of some of a model's variables.

  Args:
    config: of the model.
    paths: of the variables.
    seed: of the random numbers.
  """
  # Within jit, the compiler leaves out the values of all other variables.
  compute = jax.jit(
    lambda: {
      path: array
      for path, array in functional.initial_variables(config, seed).items()
      if path in paths
    }
  )
  return {path: np.asarray(array) for path, array in compute().items()}


def non_finite(variables: Mapping[str, np.ndarray]) -> list[str]:
  """Paths of the arrays that hold NaN or infinity."""
  return [path for path, array in variables.items() if not np.isfinite(array).all()]


def zeros(variables: Mapping[str, np.ndarray]) -> list[str]:
  """Paths of the arrays that hold nothing but 0 and should not.

  Biases, means and counts are 0 in a model that was never trained.
  """
  may_be = ('bias', 'mean', 'count')
  return [
    path
    for path, array in variables.items()
    if path.rpartition('/')[2] not in may_be and array.size and not array.any()
  ]


@dataclasses.dataclass(frozen=True)
class _Expected:
  shape: tuple[int, ...]
  dtype: str


def _expected(
  abstract: Mapping[str, jax.ShapeDtypeStruct], targets: Mapping[str, key_map.Match]
) -> dict[str, _Expected]:
  """Released name -> what it must be, in the released order."""
  paths = sorted(targets, key=lambda path: key_map.torch_order(targets[path]))
  return {
    targets[path].name: _Expected(
      key_map.torch_shape(targets[path], abstract[path].shape), targets[path].layout.dtype
    )
    for path in paths
  }


def modern(name: str, array: np.ndarray) -> np.ndarray:
  """A tensor in the form of the release, whatever form a trainer gave it.

  Spectral filters may be complex, and counts may be averaged or have a dimension.
  """
  if name.endswith('complex_weight') and array.dtype.kind == 'c':
    return np.stack([array.real, array.imag], axis=-1)
  if name.endswith('num_batches_tracked') and array.size == 1:
    array = array.reshape(())
    # Not by kind, which bfloat16 has none of.
    if jnp.issubdtype(array.dtype, jnp.floating) and 0 <= float(array) <= _MAX_COUNT:
      return np.asarray(round(float(array)), np.int64)
  return array


def _fault(array: np.ndarray, expected: _Expected) -> str:
  """What is wrong with the shape, type or value of a tensor; '' for nothing."""
  if array.shape != expected.shape:
    return f'shape {list(array.shape)} instead of {list(expected.shape)}'
  kind = jnp.integer if expected.dtype == 'int64' else jnp.floating
  if not jnp.issubdtype(array.dtype, kind):
    return f'{array.dtype} instead of {expected.dtype}'
  if kind is jnp.integer and not 0 <= int(array) <= _MAX_COUNT:
    return f'count {int(array)} instead of 0 to {_MAX_COUNT}'
  return ''


def _ours(array: np.ndarray, match: key_map.Match) -> np.ndarray:
  dtype = np.int32 if match.layout.dtype == 'int64' else np.float32
  with np.errstate(over='ignore'):  # The report names what became infinite.
    return np.array(match.layout.ours(array), dtype, order='C')


def _dtypes(tensors: Mapping[str, np.ndarray]) -> dict[str, int]:
  names = [array.dtype.name for array in tensors.values()]
  return {name: names.count(name) for name in dict.fromkeys(names)}


def _refuse_faults(report: ConversionReport, allowed: Callable[[str], bool], *, other: str) -> None:
  faults = {
    'missing': [n for n in report.missing if not allowed(n)],
    'unexpected': [n for n in report.unexpected if not allowed(n)],
    'misshapen': [f'{n} ({fault})' for n, fault in report.misshapen.items() if not allowed(n)],
  }
  found = [f'{len(names):,} {kind}: {listed(names)}' for kind, names in faults.items() if names]
  if not found:
    return
  if other:
    raise ConversionError(f'{report.source} {other}', report)
  quantised = {'int8', 'uint8'} & report.dtypes.keys()
  hint = '; quantised weights are not read: give those from before' if quantised else ''
  if any(fault.startswith('shape [0] ') for fault in report.misshapen.values()):
    hint += "; empty tensors are DeepSpeed's (ZeRO-3): run the zero_to_fp32.py in its folder first"
  named = f', names without {printable(report.prefix)}' if report.prefix else ''
  raise ConversionError(
    f'{report.source} does not hold the weights of {_model(report)}{named}; '
    f'{"; ".join(found)}{hint} (--allow-missing REGEX of convert and embed lets pass '
    'what it names, --rename REGEX=NAME changes names)',
    report,
  )


def _model(report: ConversionReport) -> str:
  return f'{report.model}, the nearest model' if report.model else 'the model of its config'


def _abstract(config: PainFormerConfig, source: str) -> dict[str, jax.ShapeDtypeStruct]:
  """Paths, shapes and dtypes of the variables; the config may be of a file."""
  try:
    abstract = functional.abstract_variables(config)
    if any(math.prod(entry.shape) >= _MAX_ELEMENTS for entry in abstract.values()):
      raise ValueError(f'an array of more than {_MAX_ELEMENTS:,} numbers')
    return abstract
  except Exception as error:  # Flax and JAX raise many kinds for sizes that cannot be.
    line = (str(error).splitlines() or [type(error).__name__])[0]
    raise InputError(
      f'{source} says that it is of a model that cannot be ({line[:300]})'
    ) from error


def _other(inferred: Inference, tensors: Mapping[str, np.ndarray]) -> str:
  """What to do with the weights of a whole model that is no preset; '' where they are none."""
  if inferred.other is None:
    return ''
  config = inferred.other
  abstract = functional.abstract_variables(config)
  expected = _expected(abstract, {path: key_map.to_torch(path) for path in abstract})
  counts = {name for name, entry in expected.items() if entry.dtype == 'int64'}
  if tensors.keys() | counts != expected.keys():
    return ''
  if any(_fault(array, expected[name]) for name, array in tensors.items()):
    return ''
  return (
    f'is of a whole model with other shapes than any preset, widths {config.widths} and mixers '
    f'{config.mixers}; say how many attention heads its stages have, if that is what it should '
    f'be: --heads N,N,N,N (the nearest preset is {inferred.model})'
  )


def _refuse_untrained(
  report: ConversionReport, expected: Mapping[str, _Expected], taken: Collection[str]
) -> None:
  """Refuses a model of which most would have initial values."""
  sizes = {
    name: math.prod(entry.shape)
    for name, entry in expected.items()
    if entry.dtype != 'int64' and not name.startswith('head.')
  }
  all_values = sum(sizes.values())
  from_file = sum(size for name, size in sizes.items() if name in taken)
  if from_file < _LEAST_TAKEN * all_values:
    raise ConversionError(
      f'{report.source} gives {from_file:,} of the {all_values:,} values of '
      f'{_model(report)} ({sum(n in taken for n in sizes)} of {len(sizes)} tensors, no head); '
      '--allow-missing needs at least half of them, since the rest would be untrained',
      report,
    )
