"""Divides a batch among tasks: each task's batch size."""

import math
from collections.abc import Mapping
from typing import Literal, get_args

from painformer_jax.core.errors import InputError

# 'equal': the same for each task (as in papers by the same authors, reconstructed).
# 'proportional': to the tasks' numbers of images.
# 'temperature': proportional to the numbers of images to the power 1 / temperature.
# 'explicit': the shares given.
Shares = Literal['equal', 'proportional', 'temperature', 'explicit']


def divide_batch(
  sizes: Mapping[str, int],
  batch_size: int,
  *,
  shares: Shares = 'equal',
  temperature: float = 2.0,
  explicit: Mapping[str, float] | None = None,
  multiple: int = 1,
) -> dict[str, int]:
  """Divides a batch among tasks; every batch is divided alike.

  Each task gets one `multiple` at least. The rest follows the shares by the method of
  largest remainders, ties in the order of names.

  Args:
    sizes: task -> number of its images.
    batch_size: of the global batch.
    shares: the rule.
    temperature: of the rule 'temperature'; 1 is 'proportional', infinity 'equal'.
    explicit: task -> share, of the rule 'explicit'; need not add up to 1.
    multiple: every task's batch size is a multiple of this, such as the number of devices.

  Returns:
    task -> batch size, adding up to `batch_size`.

  Raises:
    InputError: no such rule, a share that is not positive, a batch size that is no
      multiple of `multiple` or too small.
  """
  if shares not in get_args(Shares):
    raise InputError(f"no shares '{shares}', only {', '.join(get_args(Shares))}")
  if multiple < 1 or batch_size % multiple or batch_size < multiple * len(sizes):
    raise InputError(
      f'a batch size of {batch_size} cannot be divided among {len(sizes)} tasks in '
      f'multiples of {multiple}'
    )
  if shares == 'explicit':
    missing = sorted(set(sizes) - set(explicit or {}))
    if missing:
      raise InputError(f"task '{missing[0]}' has no share")
    weights = {name: explicit[name] for name in sizes}
  elif shares == 'equal':
    weights = dict.fromkeys(sizes, 1.0)
  else:
    if not temperature > 0:
      raise InputError(f'the temperature, {temperature}, is not above 0')
    power = 1.0 if shares == 'proportional' else 1 / temperature
    weights = {name: size**power for name, size in sizes.items()}
  for name, weight in weights.items():
    if not (math.isfinite(weight) and weight > 0):
      raise InputError(f"the share of task '{name}', {weight}, is not a positive number")

  parts = batch_size // multiple - len(sizes)
  total = math.fsum(weights.values())
  # The least a task gets counts towards its share.
  wanted = {n: w / total * (parts + len(sizes)) - 1 for n, w in weights.items()}
  counts = dict.fromkeys(sizes, 1)
  # Tasks that have more than their share by now leave less for the others.
  open_ = {n: w for n, w in wanted.items() if w > 0}
  scale = parts / math.fsum(open_.values()) if open_ else 0.0
  exact = {n: open_.get(n, 0.0) * scale for n in sizes}
  for name, value in exact.items():
    counts[name] += int(value)
  left = parts - sum(int(v) for v in exact.values())
  by_remainder = sorted(sizes, key=lambda n: (-(exact[n] - int(exact[n])), n))
  for name in by_remainder[:left]:
    counts[name] += 1
  return {name: count * multiple for name, count in counts.items()}
