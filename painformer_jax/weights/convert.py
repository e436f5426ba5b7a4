"""Converts a released state dict to this package's variables and back, strictly.

Pure functions: arrays in, arrays out. `torch.read` reads the file before, and `folder`
stores the result after.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.weights import key_map
from painformer_jax.weights.infer import infer
from painformer_jax.weights.torch.read import TorchCheckpoint

_MAX_COUNT = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionReport:
  """What a conversion did, or why it was refused.

  Attributes:
    source: the file.
    sha256: of the file.
    container: the file's top-level key that holds the weights, '' for none.
    ignored: the file's other top-level keys.
    model: the preset whose names and shapes are nearest to the file's.
    config: fields of the model's config, with the input size and head of the file.
    has_head: whether the file holds a head; a file without one is converted too.
    classes: of the head; 0 for none.
    tensors: how many the file holds.
    converted: how many of them are now variables of the model.
    parameters: number of learned values in the model, head included.
    dtypes: element type -> how many tensors of the file have it.
    missing: released names that the model needs and the file lacks.
    unexpected: names in the file that the model has no variable for.
    misshapen: name -> what is wrong, of tensors with another shape or type than the
      model's.
    initialised: missing or misshapen names that were allowed; their variables have the
      release's initial values.
    skipped: unexpected or misshapen names that were allowed; they are left out.
    non_finite: names of converted tensors that hold NaN or infinity.
  """

  source: str
  sha256: str
  container: str
  ignored: list[str]
  model: str
  config: dict
  has_head: bool
  classes: int
  tensors: int
  converted: int
  parameters: int
  dtypes: dict[str, int]
  missing: list[str]
  unexpected: list[str]
  misshapen: dict[str, str]
  initialised: list[str]
  skipped: list[str]
  non_finite: list[str]


class ConversionError(InputError):
  """The file's tensors are not those of the model; `report` lists what differs."""

  def __init__(self, message: str, report: ConversionReport):
    super().__init__(message)
    self.report = report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
  """The result: variables, as `functional.from_variables` takes them, of NumPy arrays."""

  variables: dict[str, np.ndarray]
  config: PainFormerConfig
  report: ConversionReport


def convert(
  checkpoint: TorchCheckpoint, *, source: str, allow_missing: str | None = None
) -> Conversion:
  """Converts a released state dict to a model's variables.

  `infer` tells the preset, the input size and the head. float32 values stay bit-identical;
  other floats are cast to float32.

  Args:
    checkpoint: from `torch.read.read`.
    source: what to call the file in messages and in the report.
    allow_missing: regular expression, searched for anywhere in a released name; it must
      not match the empty string. A tensor that it matches may be missing or misshapen,
      and its variable then gets the release's initial values (seed 0); or unexpected, and
      is then left out.

  Raises:
    ConversionError: a name is missing, unexpected or misshapen and not
      allowed; the message lists every one.
    InputError: `allow_missing` is no regular expression or matches the empty
      string, or a name falls under several rules of the table.
  """
  tensors = checkpoint.tensors
  allowed = _allowed(allow_missing)
  model, config = infer(tensors)
  abstract = functional.abstract_variables(config)
  targets = {path: key_map.to_torch(path) for path in abstract}
  expected = _expected(abstract, targets)
  misshapen = {
    name: fault
    for name, array in tensors.items()
    if name in expected and (fault := _fault(array, expected[name]))
  }
  missing = [name for name in expected if name not in tensors]
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
    ignored=checkpoint.ignored,
    model=model,
    config=dataclasses.asdict(config),
    has_head=config.num_classes > 0,
    classes=config.num_classes,
    tensors=len(tensors),
    converted=len(variables),
    parameters=functional.count_parameters(config),
    dtypes=_dtypes(tensors),
    missing=missing,
    unexpected=unexpected,
    misshapen=misshapen,
    initialised=initialised,
    skipped=[name for name in [*unexpected, *misshapen] if allowed(name)],
    non_finite=[
      targets[path].name for path, array in variables.items() if not np.isfinite(array).all()
    ],
  )
  _refuse_faults(report, allowed)
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


def _allowed(pattern: str | None) -> Callable[[str], bool]:
  if pattern is None:
    return lambda name: False
  try:
    compiled = re.compile(pattern)
  except re.error as error:
    raise InputError(f'--allow-missing {pattern!r} is no regular expression: {error}') from error
  if compiled.search('') is not None:
    raise InputError(
      f'--allow-missing {pattern!r} also matches the empty string, and so every name; '
      "name what may be missing, such as '^head' or 'norm4'"
    )
  return lambda name: compiled.search(name) is not None


def _refuse_faults(report: ConversionReport, allowed: Callable[[str], bool]) -> None:
  faults = {
    'missing': [n for n in report.missing if not allowed(n)],
    'unexpected': [n for n in report.unexpected if not allowed(n)],
    'misshapen': [f'{n} ({fault})' for n, fault in report.misshapen.items() if not allowed(n)],
  }
  listed = [f'{len(names)} {kind}: {", ".join(names)}' for kind, names in faults.items() if names]
  if listed:
    raise ConversionError(
      f'{report.source} does not hold the weights of {report.model}, the '
      f'nearest model; {"; ".join(listed)} (--allow-missing REGEX lets pass '
      'what it names)',
      report,
    )
