"""Plans as text: one program in lines, several in a table."""

from collections.abc import Sequence

from painformer_jax.core.progress import duration
from painformer_jax.core.tables import aligned
from painformer_jax.parallel.topology import Topology
from painformer_jax.planning.plan import FLAGS
from painformer_jax.planning.result import Plan
from painformer_jax.planning.roofline import MEMORY, PARTS

# By platform: what differs from the program of a run, beside flags.
_OPTIONS = {'cuda': "without Triton's kernels for products, which are chosen on a GPU; "}
_KINDS = {'cpu': 'cpu', 'cuda': 'gpu', 'tpu': 'tpu'}  # As launch/with.sh calls them.


def size(amount: float) -> str:
  """Bytes in words: '3 B', '97.4 MB', '11.4 GB' (powers of 1000)."""
  units = ['B', 'kB', 'MB', 'GB', 'TB']
  while abs(amount) >= 1000 and len(units) > 1:
    amount /= 1000
    del units[0]
  return f'{amount:.{0 if units[0] == "B" else 1}f} {units[0]}'


def describe(plan: Plan) -> str:
  """One plan in lines: facts about the program first, then the estimate."""
  program, chip = plan.program, plan.topology.chip
  lines = [
    f'{program.model}: {program.images:,} images a step on {program.topology}, '
    f'{program.images / program.chips:g} a chip, {program.chips} '
    f'chip{"s" * (program.chips > 1)}',
    '',
    f'Compiled in {duration(program.compile_seconds)} by {program.compiler}. '
    'Facts about the program, each chip:',
  ]
  rows = [
    ('compiled', _compiled(plan)),
    ('mesh', _mesh(plan)),
    ('parameters', size(program.parameter_bytes)),
    ('optimizer state', size(program.optimizer_bytes)),
    ('statistics, counters', size(program.other_state_bytes)),
    ('images, labels', size(program.batch_bytes)),
  ]
  if program.failure is not None:
    return '\n'.join([*lines, *aligned(rows, indent=2), '', f'It does not fit: {program.failure}'])
  capacity = ''
  if chip:
    capacity = f' of {size(chip.memory)} ({program.peak_bytes / chip.memory:.1%})'
  per_image = program.images / program.chips
  by_formula = f'{program.model_flops / 1e9:.4g} GFLOP by the formula of the model'
  rows += [
    ('activations, temporaries', size(program.temporary_bytes)),
    (
      'peak memory',
      size(program.peak_bytes) + capacity + ('' if plan.fits in (True, None) else ': does not fit'),
    ),
    (
      'arithmetic',
      f'an image {by_formula}'
      if program.flops is None
      else f'{program.flops / 1e12:.4g} TFLOP; an image {program.flops / per_image / 1e9:.4g} '
      f'GFLOP, {by_formula}',
    ),
    (
      'memory traffic',
      size(program.traffic_bytes)
      + ' by the text of the program'
      + (
        ''
        if program.accessed_bytes is None
        else f'; {size(program.accessed_bytes)} by the compiler, on-chip memory included'
      ),
    ),
  ]
  what = _group_name(plan.topology)
  rows += [
    (
      'collectives',
      f'{c.count} {c.kind} over {c.group} chips'
      + (f' of {c.nodes} {what}s' if c.nodes > 1 else '')
      + f', {size(c.bytes)}',
    )
    for c in program.collectives
  ] or [('collectives', 'none')]
  if program.unknown_loops:
    rows.append(('loops of unknown length', f'{program.unknown_loops}, counted once'))
  return '\n'.join([*lines, *aligned(rows, indent=2), '', *_estimate(plan)])


def _compiled(plan: Plan) -> str:
  platform = plan.topology.platform
  name = FLAGS[platform]
  with_flags = (
    f'with {name}={plan.program.flags}'
    if plan.program.flags
    else f'without {name}; launch/with.sh {_KINDS[platform]} sets some'
  )
  return _OPTIONS.get(platform, '') + (with_flags if platform != 'cpu' else 'not optimised')


def _mesh(plan: Plan) -> str:
  """The axes, and how their slices lie on nodes of GPUs or slices of TPUs."""
  mesh, topology = plan.program.mesh, plan.topology
  text = ', '.join(f'{axis} {count}' for axis, count in mesh.items())
  what, there = _group_name(topology), topology.nodes
  if mesh['dcn'] != there and topology.chip:
    text += (
      f'; config.sharding.dcn_parallelism says so, the chips are {there} {what}'
      f'{"s" * (there > 1)}: only what leaves one is priced as network'
    )
    if topology.platform == 'tpu' and there == 1:
      text += f'. Several are named {mesh["dcn"]}*{topology.text.rpartition("*")[2]}'
  elif there > 1:
    text += (
      f'; a slice {"is a node of" if topology.platform == "cuda" else "has"} '
      f'{topology.chips // there} chips, the network between takes '
      f'{size(topology.chip.network)}/s a chip'
    )
    if topology.platform == 'tpu':
      text += ', an assumption'
  return text


def _group_name(topology: Topology) -> str:
  return 'node' if topology.platform == 'cuda' else 'slice'


def _estimate(plan: Plan) -> list[str]:
  estimate = plan.roofline
  if estimate is None:
    return ['No estimate of time: the devices are pretended.']
  hours = estimate.hours(plan.epochs * plan.samples)
  times = {part: f'{part} {estimate.seconds[part] * 1e3:.3g} ms' for part in PARTS}
  if slow := plan.slow_memory_seconds:
    times[MEMORY] += f' ({slow * 1e3:.3g} if on-chip memory saved nothing)'
  left_out = [('not counted', plan.uncounted)] if plan.uncounted else []
  return [
    'Roofline, an estimate from peak rates that all overlap; real steps take longer:',
    *aligned(
      [
        ('time of a step', f'{", ".join(times.values())}: bound by {estimate.bound}'),
        (
          'images',
          f'{estimate.images_per_second / estimate.chips:,.0f} a second and chip, '
          f'{estimate.images_per_second:,.0f} in all, at best',
        ),
        ('MFU', f'{estimate.mfu:.1%} of bfloat16 peak, at best'),
        (
          f'{plan.epochs:g} epochs of {plan.samples / 1e6:.3g} M',
          f'{hours:,.1f} hours, {hours * estimate.chips:,.0f} chip-hours, at best',
        ),
        *left_out,
      ],
      indent=2,
    ),
  ]


def table(plans: Sequence[Plan]) -> str:
  """Several plans, one a line; swept settings come first."""
  swept = list(plans[0].settings)
  header = [
    *swept,
    'chips',
    'a chip',
    'temporaries',
    'peak',
    'of HBM',
    'TFLOP',
    'traffic',
    'collectives',
    'step ms',
    'bound by',
    'images/s/chip',
    'MFU',
    'hours',
    'chip-hours',
  ]
  rows = [header]
  for plan in plans:
    program, estimate, chip = plan.program, plan.roofline, plan.topology.chip
    row = [
      *(str(plan.settings[name]) for name in swept),
      str(program.chips),
      f'{program.images / program.chips:g}',
    ]
    if program.failure is not None:
      row += ['does not fit'] + [''] * 11
    else:
      flops = program.flops
      row += [
        size(program.temporary_bytes),
        size(program.peak_bytes),
        f'{program.peak_bytes / chip.memory:.0%}' if chip else '',
        f'{flops / 1e12:.3g}' if flops is not None else '',
        size(program.traffic_bytes),
        size(sum(c.bytes for c in program.collectives)),
      ]
      if estimate is None:
        row += [''] * 6
      else:
        hours = estimate.hours(plan.epochs * plan.samples)
        row += [
          f'{estimate.step_seconds * 1e3:.1f}',
          estimate.bound,
          f'{estimate.images_per_second / estimate.chips:,.0f}',
          f'{estimate.mfu:.1%}',
          f'{hours:,.1f}',
          f'{hours * estimate.chips:,.0f}',
        ]
    rows.append(row)
  lines = aligned(rows, right=range(len(header)))
  lines.append(
    'Up to "collectives": facts about compiled programs. '
    'From "step ms" on: roofline estimates, at best.'
  )
  if any(plan.uncounted for plan in plans):
    lines.append(
      'Where TFLOP is empty, what remat computes again is not in the estimate: at '
      'most a third more arithmetic.'
    )
  lines += sorted(
    {
      f'{plan.topology.platform}: compiled {_compiled(plan)}.'
      for plan in plans
      if plan.topology.chip
    }
  )
  return '\n'.join(lines)
