"""How well a run uses its chips: what a row of metrics says of speed and time."""

import dataclasses
from collections.abc import Mapping, Sequence

import jax

from painformer_jax.models import arithmetic
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel import topology

RATE, RATE_PER_CHIP, MFU, SECONDS = (
  'images_per_second',
  'images_per_second_per_chip',
  'mfu',
  'seconds/',
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
  """What a rate is held against.

  Attributes:
    chips: devices that train together.
    image_flops: FLOP of one training image by `arithmetic.training_flops`.
    peak_flops: bfloat16 FLOP/s of a chip, whatever type the model computes in;
      None where the chip is not known.
  """

  chips: int
  image_flops: float
  peak_flops: float | None

  @classmethod
  def of(cls, model: PainFormerConfig, devices: Sequence[jax.Device]) -> 'Machine':
    """That of a run: its backbone on its devices, all of one kind."""
    chip = topology.chip_of(devices[0].device_kind)
    return cls(
      chips=len(devices),
      image_flops=arithmetic.training_flops(model),
      peak_flops=chip.flops if chip else None,
    )

  def figures(self, rate: float, spent: Mapping[str, float]) -> dict[str, float]:
    """What a row says.

    Args:
      rate: images a second of training, of all chips; 0 for not known.
      spent: of `Clock.split`.

    Returns:
      'images_per_second', 'images_per_second_per_chip' and, for chips that are
      known, 'mfu' (FLOP of the model over the chips' peak, in [0, 1]; heads and
      gates are not counted) where the rate is known; 'seconds/<activity>'.
    """
    values = {}
    if rate:
      values |= {RATE: rate, RATE_PER_CHIP: rate / self.chips}
      if self.peak_flops:
        values[MFU] = rate * self.image_flops / (self.chips * self.peak_flops)
    return values | {f'{SECONDS}{name}': seconds for name, seconds in spent.items()}


def line(values: Mapping[str, float], *, eta: str) -> str:
  """'640.0 images/s  eta 3h01m  (80.0 a chip, MFU 15%; compute 97%, input 2%)'.

  Args:
    values: of a row.
    eta: when the run will end.

  Returns:
    Shares of time of 1 % and more; 'a chip' where there are several. Without a rate,
    as after the first step, 'eta' alone.
  """
  rate = values.get(RATE)
  if not rate:
    return f'eta {eta}'
  chip = []
  if values[RATE_PER_CHIP] != rate:
    chip.append(f'{values[RATE_PER_CHIP]:.1f} a chip')
  if MFU in values:
    chip.append(f'MFU {values[MFU]:.0%}')
  spent = {
    name.removeprefix(SECONDS): seconds
    for name, seconds in values.items()
    if name.startswith(SECONDS)
  }
  total = sum(spent.values())
  shares = [
    f'{name} {seconds / total:.0%}'
    for name, seconds in spent.items()
    if seconds >= 0.01 * total > 0
  ]
  brackets = '; '.join(', '.join(part) for part in (chip, shares) if part)
  return f'{rate:.1f} images/s  eta {eta}' + (f'  ({brackets})' if brackets else '')
