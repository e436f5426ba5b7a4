"""Draws plans: time at the roofline and peak memory of each."""

from collections.abc import Sequence
from typing import BinaryIO

from painformer_jax.core.errors import import_extra
from painformer_jax.core.targets import NAME, FileKind
from painformer_jax.planning.result import Plan
from painformer_jax.planning.roofline import PARTS

# Of metadata, by the kind of picture.
FIELD = {'png': 'Software', 'pdf': 'Creator', 'svg': 'Creator'}
# What matplotlib makes of it; a PDF has it at its end.
_FORMS = {
  b'\x89PNG': f'tEXtSoftware\0{NAME}',
  b'%PDF-': f'/Creator ({NAME})',
  b'<?xml': f'<dc:creator>\n     <cc:Agent>\n      <dc:title>{NAME}</dc:title>',
}


def _is_own(file: BinaryIO) -> bool:
  content = file.read()
  return any(content.startswith(k) and form.encode() in content for k, form in _FORMS.items())


KIND = FileKind(suffixes=('.png', '.pdf', '.svg'), is_own=_is_own)


def draw(plans: Sequence[Plan], file: BinaryIO, *, kind: str) -> None:
  """Draws time at the roofline and peak memory of each plan.

  Args:
    plans: one group of bars each.
    file: gets the picture.
    kind: 'png', 'pdf' or 'svg'.

  Raises:
    InputError: matplotlib is missing.
  """
  import_extra('matplotlib', extra='demo')
  from matplotlib.figure import Figure
  from matplotlib.patches import Patch

  labels = [
    ', '.join(f'{v}' for v in plan.settings.values()) or plan.program.topology for plan in plans
  ]
  figure = Figure(figsize=(11, 1.6 + 0.45 * len(plans)), layout='constrained')
  times, memory = figure.subplots(1, 2, sharey=True)
  for number, plan in enumerate(plans):
    program, estimate, chip = plan.program, plan.roofline, plan.topology.chip
    for offset, part in enumerate(PARTS):
      if estimate:
        times.barh(
          number + 0.25 * (offset - 1), estimate.seconds[part] * 1e3, 0.22, color=f'C{offset}'
        )
    if program.failure is None:
      memory.barh(number, program.peak_bytes / 1e9, 0.6, color='C3' if plan.fits is False else 'C4')
    else:
      memory.annotate(
        'does not fit', (0, number), xytext=(4, 0), textcoords='offset points', va='center'
      )
    if chip:
      memory.plot([chip.memory / 1e9] * 2, [number - 0.45, number + 0.45], color='black')
  times.set(
    yticks=range(len(plans)),
    yticklabels=labels,
    xlabel='ms a step at peak rates (roofline estimate)',
  )
  times.invert_yaxis()
  figure.legend(
    loc='outside upper left',
    ncols=3,
    handles=[Patch(color=f'C{offset}', label=part) for offset, part in enumerate(PARTS)],
  )
  memory.set(xlabel='peak memory of a chip in GB (compiled); line: what there is')
  figure.suptitle(plans[0].program.model.split(' at ')[0])
  figure.savefig(file, format=kind, dpi=120, metadata={FIELD[kind]: NAME})
