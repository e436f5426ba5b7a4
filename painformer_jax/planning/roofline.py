"""What a program can reach at best on given chips: an estimate, nothing runs.

Every part works at its peak rate and all parts overlap, so that the slowest one
alone decides. Real steps take longer.
"""

import dataclasses
from collections.abc import Sequence

from painformer_jax.parallel.topology import Topology
from painformer_jax.planning.collectives import Collective

ARITHMETIC, MEMORY, INTERCONNECT = 'arithmetic', 'memory', 'interconnect'
PARTS = (ARITHMETIC, MEMORY, INTERCONNECT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Roofline:
  """The least time of a step, and what follows from it.

  Attributes:
    seconds: ARITHMETIC, MEMORY, INTERCONNECT -> how long each takes at its peak.
    images: of the global batch.
    chips: how many share them.
    model_flops: of one training image by the model's formula.
    peak_flops: FLOP/s of a chip.
  """

  seconds: dict[str, float]
  images: int
  chips: int
  model_flops: float
  peak_flops: float

  @property
  def bound(self) -> str:
    """What takes longest."""
    return max(self.seconds, key=self.seconds.get)

  @property
  def step_seconds(self) -> float:
    return max(self.seconds.values())

  @property
  def images_per_second(self) -> float:
    """Of all chips together, at most."""
    return self.images / self.step_seconds

  @property
  def mfu(self) -> float:
    """Model FLOP over what the chips could do in that time, in [0, 1], at most.

    Recomputation and the gate do not count as model FLOP.
    """
    return (self.images_per_second * self.model_flops) / (self.chips * self.peak_flops)

  def hours(self, images: float) -> float:
    """Hours for so many images, at least."""
    return images / self.images_per_second / 3600


def collective_seconds(collectives: Sequence[Collective], topology: Topology) -> float:
  """Seconds that collectives take at full bandwidth, without latency.

  All links of a chip are in use. A group that spans nodes, or slices of TPUs, first does
  what it can within them; its members are taken to be divided evenly among them.
  """
  chip, total = topology.chip, 0.0
  for collective in collectives:
    nodes = collective.nodes
    by_link, by_network = _sent(
      collective.kind, inside=max(collective.group // nodes, 1), nodes=nodes
    )
    total += collective.bytes * by_link / chip.link
    if nodes > 1:
      total += collective.bytes * by_network / chip.network
  return total


def _sent(kind: str, *, inside: int, nodes: int) -> tuple[float, float]:
  """Bytes that a device sends by link and by network for one that enters, at least."""
  if kind in ('all-reduce', 'reduce-scatter'):  # All-reduce is reduce-scatter and all-gather.
    passes = 2 if kind == 'all-reduce' else 1
    return passes * (inside - 1) / inside, passes * (nodes - 1) / nodes / inside
  if kind == 'all-gather':
    return (inside - 1) * nodes, nodes - 1
  if kind in ('all-to-all', 'ragged-all-to-all'):
    return (inside - 1) / (inside * nodes), (nodes - 1) / nodes
  return (0, 1) if nodes > 1 else (1, 0)  # One piece; the slowest way decides.


def roofline(
  topology: Topology,
  *,
  flops: float,
  traffic: float,
  collectives: Sequence[Collective],
  images: int,
  model_flops: float,
) -> Roofline:
  """The roofline of a step.

  Args:
    topology: of real chips.
    flops, traffic: FLOP and bytes of main memory of a step on one chip.
    collectives: of a step.
    images: of the global batch.
    model_flops: of one training image.
  """
  chip = topology.chip
  return Roofline(
    seconds={
      ARITHMETIC: flops / chip.flops,
      MEMORY: traffic / chip.bandwidth,
      INTERCONNECT: collective_seconds(collectives, topology),
    },
    images=images,
    chips=topology.chips,
    model_flops=model_flops,
    peak_flops=chip.flops,
  )
