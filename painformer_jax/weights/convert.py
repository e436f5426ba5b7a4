"""Released state dict to this package's variables and back, strictly.

Pure functions: arrays in, arrays out. `torch_file` reads the file before,
`weights` stores the result after.
"""

import dataclasses
import re
from collections.abc import Callable, Collection, Mapping

import jax
import jax.numpy as jnp
import numpy as np

from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.config import ATTENTION, PRESETS, SPECTRAL, PainFormerConfig
from painformer_jax.weights import key_map
from painformer_jax.weights.torch.read import TorchCheckpoint

_MAX_COUNT = np.iinfo(np.int32).max


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionReport:
  """What a conversion did, or why it did not.

  Attributes:
    source: the file.
    sha256: of the file.
    container: its top-level key that held the weights, '' for none.
    ignored: its other top-level keys.
    model: the preset whose shapes the file has, or nearly has.
    config: the model's fields, with the input size and head of the file.
    has_head: whether the file holds a head; having none is no fault.
    classes: width of the head; 0 for none.
    tensors: how many the file holds.
    converted: how many of them the model took.
    parameters: learned values in the model, head included.
    dtypes: element type -> how many tensors of the file have it.
    missing: released names that the model needs and the file lacks.
    unexpected: names in the file that the model has no place for.
    misshapen: names whose shape or type is not the model's, with both.
    initialised: missing or misshapen names that were allowed, and have the
      release's initial values now.
    skipped: unexpected or misshapen names that were allowed, and left out.
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
  """The file's tensors are not the model's. `report` holds the lists."""

  def __init__(self, message: str, report: ConversionReport):
    super().__init__(message)
    self.report = report


@dataclasses.dataclass(frozen=True, kw_only=True)
class Conversion:
  """Variables as `functional.from_variables` takes them, as NumPy arrays."""

  variables: dict[str, np.ndarray]
  config: PainFormerConfig
  report: ConversionReport


def convert(
  checkpoint: TorchCheckpoint, *, source: str, allow_missing: str | None = None
) -> Conversion:
  """Translates a released state dict into a model's variables.

  The preset, the input size and the head are told by the names and shapes.
  float32 stays bit for bit; other floats are cast to float32.

  Args:
    checkpoint: from `torch_file.read`.
    source: what to call the file in messages and in the report.
    allow_missing: regular expression that is found anywhere in a released name, and not
      in an empty one. What it names may be missing or misshapen, and then gets the
      release's initial values (seed 0), or unexpected, and is then left out.

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
  """A model's variables in the released names, layouts, types and order.

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
  """The release's initial values for some of a model's variables."""
  # Compiled, so that the values of all others are never computed.
  compute = jax.jit(
    lambda: {
      path: array
      for path, array in functional.initial_variables(config, seed).items()
      if path in paths
    }
  )
  return {path: np.asarray(array) for path, array in compute().items()}


def infer(tensors: Mapping[str, np.ndarray]) -> tuple[str, PainFormerConfig]:
  """The preset nearest to a state dict, and its config with the file's input
  size and head."""

  def score(name: str) -> int:
    config = PRESETS[name].config
    blocks = [
      f'block{stage}.{index}.attn.' + {SPECTRAL: 'complex_weight', ATTENTION: 'q.weight'}[mixer]
      for stage, pattern in enumerate(config.mixers, start=1)
      for index, mixer in enumerate(pattern)
    ]
    widths = sum(
      _size(tensors, f'patch_embed{stage}.proj.weight') == width
      for stage, width in enumerate(config.widths, start=1)
    )
    return 2 * widths + sum(block in tensors for block in blocks)

  model = max(PRESETS, key=score)  # the first of equals
  config = PRESETS[model].config
  classes = _size(tensors, 'head.weight') or _size(tensors, 'head.bias')
  return model, dataclasses.replace(
    config, num_classes=classes, image_size=_image_size(tensors, config)
  )


def _size(tensors: Mapping[str, np.ndarray], name: str) -> int:
  """First dimension of a tensor; 0 if there is none, or nothing in it."""
  array = tensors.get(name)
  return array.shape[0] if array is not None and array.ndim and array.size else 0


def _image_size(tensors: Mapping[str, np.ndarray], config: PainFormerConfig) -> int:
  """The input size whose grids the spectral filters have."""
  for stage, pattern in enumerate(config.mixers):
    name = f'block{stage + 1}.{pattern.find(SPECTRAL)}.attn.complex_weight'
    grid = _size(tensors, name)
    if grid == config.grid(stage):
      return config.image_size
    if 1 < grid <= 1024:
      return grid * 2 ** (stage + 2)
  return config.image_size


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
  """What is wrong with a tensor, '' for nothing."""
  if array.shape != expected.shape:
    return f'shape {list(array.shape)} where {list(expected.shape)} is due'
  kind = jnp.integer if expected.dtype == 'int64' else jnp.floating
  if not jnp.issubdtype(array.dtype, kind):
    return f'{array.dtype} where {expected.dtype} is due'
  if kind is jnp.integer and not 0 <= int(array) <= _MAX_COUNT:
    return f'count {int(array)} where 0 to {_MAX_COUNT} is due'
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
      f'--allow-missing {pattern!r} also matches nothing at all, and so lets every '
      "name pass; name what may be missing, such as '^head' or 'norm4'"
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
