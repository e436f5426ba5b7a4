"""A plan: a compiled program beside what its chips can do at best."""

import dataclasses
from collections.abc import Mapping

from painformer_jax.parallel.topology import Topology, parse_topology
from painformer_jax.planning.plan import Program
from painformer_jax.planning.roofline import Roofline, roofline


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
  """A compiled program beside what its chips can do at best.

  Attributes:
    program: facts about the compiled step.
    settings: what a sweep set, by name.
    epochs, samples: length of a run: so many times so many images.
  """

  program: Program
  epochs: float
  samples: int
  settings: Mapping[str, str] = dataclasses.field(default_factory=dict)

  @property
  def topology(self) -> Topology:
    return parse_topology(self.program.topology)

  @property
  def fits(self) -> bool | None:
    """Whether the step fits into a chip's memory; None where that is unknown."""
    if self.program.failure is not None:
      return False
    chip = self.topology.chip
    return self.program.peak_bytes <= chip.memory if chip else None

  @property
  def roofline(self) -> Roofline | None:
    """None where nothing compiled, or no chip's figures are known."""
    program, topology = self.program, self.topology
    if program.failure is not None or topology.chip is None:
      return None
    flops = program.flops
    if flops is None:
      flops = (
        program.images
        / program.chips
        * (program.model_flops + program.gate_flops + program.microbatch_flops)
      )
    return roofline(
      topology,
      flops=flops,
      traffic=program.traffic_bytes,
      images=program.images,
      collectives=program.collectives,
      model_flops=program.model_flops,
    )

  @property
  def uncounted(self) -> str:
    """What the estimate's arithmetic leaves out; '' for nothing that is known."""
    program = self.program
    if (
      program.failure is not None
      or program.flops is not None
      or (set(program.remat.split('-')) == {'none'})
    ):
      return ''
    return (
      f'what remat={program.remat} computes again, at most a third more: the arithmetic '
      'is by the formula, as the compiler gives no count here'
    )

  @property
  def slow_memory_seconds(self) -> float | None:
    """Seconds of traffic if on-chip memory saved none of it; None where not known."""
    accessed, chip = self.program.accessed_bytes, self.topology.chip
    return accessed / chip.bandwidth if accessed is not None and chip else None

  def record(self) -> dict:
    """The plan as JSON holds it: 'compiled' are facts, 'estimated' is the roofline."""
    estimate, chip = self.roofline, self.topology.chip
    return {
      'settings': dict(self.settings),
      'topology': self.program.topology,
      'fits': self.fits,
      'chip': dataclasses.asdict(chip) if chip else None,
      'compiled': dataclasses.asdict(self.program),
      'estimated': estimate
      and {
        'seconds': estimate.seconds,
        'bound': estimate.bound,
        'arithmetic_without': self.uncounted,
        'memory_seconds_without_on_chip_memory': self.slow_memory_seconds,
        'step_seconds': estimate.step_seconds,
        'images_per_second': estimate.images_per_second,
        'images_per_second_per_chip': estimate.images_per_second / estimate.chips,
        'mfu': estimate.mfu,
        'epochs': self.epochs,
        'samples': self.samples,
        'hours': self._hours(estimate),
        'chip_hours': self._hours(estimate) * estimate.chips,
      },
    }

  def _hours(self, estimate: Roofline) -> float:
    return estimate.hours(self.epochs * self.samples)
