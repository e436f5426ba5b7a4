"""What a conversion did, and the lines that say so."""

import dataclasses
from collections.abc import Collection

from painformer_jax.core.errors import InputError, listed, printable
from painformer_jax.weights.torch.state_dicts import TorchCheckpoint


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConversionReport:
  """What a conversion did, or why it was refused.

  Attributes:
    source: the file.
    sha256: of the file.
    container: the key in the file that holds the weights, '' for none.
    averaged: whether the weights are an average of weights, by their key or name.
    alternatives: keys of the file's other state dicts that would do as well.
    averaged_nothing: names of counters that are 0, of averages that are none.
    ignored: the file's other top-level keys.
    prefix: what was taken off every name.
    left_out: names without that prefix, which belong to other modules.
    model: the preset that the file says it is of, or whose names and shapes are nearest; '' for
      a model that is no preset.
    head: name of the task of the head, '' where the file does not say one.
    assumed: what the file does not say and is taken to be so, such as the number of heads, in
      one line; '' for nothing.
    config: fields of the model's config, with the input size and head of the file.
    has_head: whether the file holds a head; a file without one is converted too.
    classes: of the head; 0 for none.
    tensors: how many the file holds, without those of other modules.
    converted: how many of them are now variables of the model.
    parameters: number of learned values in the model, head included.
    dtypes: element type -> how many tensors of the file have it.
    missing: released names that the model needs and the file lacks.
    unexpected: names in the file that the model has no variable for.
    misshapen: name -> what is wrong, of tensors with another shape or type than the
      model's.
    initialised: missing or misshapen names that were allowed; their variables have the
      release's initial values.
    skipped: unexpected names that were allowed, and SpectFormer's head on tokens; they are left
      out.
    restarted: names of BatchNorm's counts that the file lacks; they begin at 0.
    complex: names of spectral filters that were stored as complex numbers.
    non_finite: names of converted tensors that hold NaN or infinity.
    zeros: names of converted tensors that hold nothing but 0 and should not; not of biases
      and means, which begin so.
  """

  source: str
  sha256: str
  container: str
  averaged: bool
  alternatives: list[str]
  averaged_nothing: list[str]
  ignored: list[str]
  prefix: str
  left_out: list[str]
  model: str
  head: str
  assumed: str
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
  restarted: list[str]
  complex: list[str]
  non_finite: list[str]
  zeros: list[str]


class ConversionError(InputError):
  """The file's tensors are not those of the model; `report` lists what differs."""

  def __init__(self, message: str, report: ConversionReport):
    super().__init__(message)
    self.report = report


def choices(report: ConversionReport | TorchCheckpoint) -> list[str]:
  """Lines that say what was taken where the file leaves a choice."""
  lines = []
  if report.alternatives:
    average = ', an average of the weights' if report.averaged else ''
    others = [f'--key {printable(key)}' if key else 'its top' for key in report.alternatives]
    where = printable(report.container) or 'its top'
    lines.append(f'takes {where}{average}; the file also holds weights under {listed(others)}')
  elif report.averaged:
    where = printable(report.container or report.prefix) or 'it'
    lines.append(f'{where} holds an average of the weights')
  if report.averaged_nothing:
    names = listed(report.averaged_nothing)
    lines.append(f'an average of no weights, perhaps untrained: {names} is 0')
  return lines


def remarks(report: ConversionReport) -> list[str]:
  """Lines that say what was taken off, added and left out, none of which is a fault."""
  lines = choices(report)
  if report.container and not report.alternatives:
    lines.append(f'takes the weights under {printable(report.container)}')
  if report.assumed:
    lines.append(unsaid(report.assumed))
  if report.prefix:
    lines.append(f'names begin with {printable(report.prefix)}, which is taken off')
  if report.complex:
    lines.append(f'{len(report.complex)} spectral filters are stored as complex numbers')
  if report.restarted:
    lines.append(f'not in the file, counts begin at 0: {listed(report.restarted)}')
  for names, what in [
    (report.skipped, 'left out'),
    (report.left_out, 'left out, of other modules'),
    (report.ignored, 'not weights, ignored'),
  ]:
    if names:
      lines.append(f'{what}: {listed(names)}')
  return lines


def unsaid(assumed: str) -> str:
  """The line that says what is assumed of a model."""
  return f'the file does not say it: {assumed}'


def warnings(report: ConversionReport) -> list[str]:
  """Lines that say why the weights may be useless."""
  return [*values_warnings(report.non_finite, report.zeros), *initial_warnings(report.initialised)]


def values_warnings(non_finite: Collection[str], zeros: Collection[str]) -> list[str]:
  lines = []
  if non_finite:
    lines.append(f'holds NaN or infinity in {listed(non_finite)}')
  if zeros:
    lines.append(f'holds nothing but 0 in {listed(zeros)}; was the file saved without its data?')
  return lines


def initial_warnings(initialised: Collection[str]) -> list[str]:
  if not initialised:
    return []
  return [f'not in the file, initial values instead: {listed(initialised)}']
