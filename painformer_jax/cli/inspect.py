"""`painformer inspect`: what a file of weights holds."""

import dataclasses
import itertools
import json

from painformer_jax.cli import file_options

EXAMPLE = """painformer inspect checkpoint.pth
  painformer inspect lightning.ckpt --json"""

_GROUPS = 40  # Rows of the table.


def add_arguments(parser):
  parser.add_argument(
    'weights',
    metavar='WEIGHTS',
    help='.pth or .safetensors file, folder of them, weights folder or run folder',
  )
  parser.add_argument(
    '--json', action='store_true', help='print everything as JSON, every tensor included'
  )
  file_options.add_arguments(parser)


def run(args):
  from painformer_jax.core.targets import VERSION_FIELD
  from painformer_jax.weights.inspection import inspect

  found = inspect(args.weights, file_options.options_of(args))
  if args.json:
    print(json.dumps({**VERSION_FIELD, **dataclasses.asdict(found)}, indent=2))
  else:
    print('\n'.join(_page(found)))


def _page(found) -> list[str]:
  from painformer_jax.core.errors import listed, printable
  from painformer_jax.core.tables import aligned

  size = f', {found.size:,} bytes' if found.size else ''
  source = f' of {found.source}' if found.source else ''
  lines = [f'{found.path}: {found.kind}{source}{size}']
  if found.sha256:
    lines.append(f'SHA-256 {found.sha256}')
  if found.keys:
    lines.append(f'keys: {listed(found.keys)}')
  if found.state_dicts:
    header = ['state dict', 'tensors', 'PainFormer names', '']
    rows = [
      [
        printable(state.key) or '(top)',
        f'{state.tensors:,}',
        f'{state.fitting:,}',
        ', '.join(['an average'] * state.averaged + ['taken'] * state.taken),
      ]
      for state in found.state_dicts[:_GROUPS]
    ]
    lines += ['', *aligned([header, *rows], right=(1, 2))]
  if found.tensors:
    lines += ['', *_groups(found.tensors), '', _totals(found)]
    bad = [tensor.name for tensor in found.tensors if tensor.non_finite]
    zero = [tensor.name for tensor in found.tensors if tensor.all_zero and tensor.shape]
    lines.append(f'NaN or infinity: {listed(bad) or "none"}')
    lines.append(f'nothing but 0: {listed(zero) or "none"}')
  if found.config:
    config = found.config
    model = f'nearest preset: {found.model}' if found.model else 'a model that is no preset'
    head = f'a head of {config["num_classes"]:,} classes' if config['num_classes'] else 'no head'
    attention = ','.join(map(str, (*config['heads'], config['post_heads'])))
    lines.append(f'{model}, {config["image_size"]} pixels, {head}, attention heads {attention}')
  if found.source:
    return lines + found.remarks
  lines.append(f'painformer convert: {"takes it" if found.converts else "refuses it"}')
  return lines + [f'  {line}' for line in found.remarks]


def _groups(tensors) -> list[str]:
  """A table with a row for each module of the first level."""
  from painformer_jax.core.errors import printable
  from painformer_jax.core.tables import aligned, cut

  groups = {}
  for tensor in tensors:
    groups.setdefault(tensor.name.split('.')[0], []).append(tensor)
  rows = [['module', 'tensors', 'parameters', 'types', 'largest', 'shapes']]
  for name, group in itertools.islice(groups.items(), _GROUPS):
    shapes = dict.fromkeys('×'.join(map(str, t.shape)) or 'scalar' for t in group)
    rows.append(
      [
        printable(name),
        f'{len(group):,}',
        f'{sum(t.parameters for t in group):,}',
        ', '.join(dict.fromkeys(t.dtype for t in group)),
        f'{max(t.largest for t in group):.4g}',
        cut(', '.join(itertools.islice(shapes, 20)), 60),
      ]
    )
  more = [f'and {len(groups) - _GROUPS:,} more'] if len(groups) > _GROUPS else []
  return aligned(rows, right=(1, 2, 4)) + more


def _totals(found) -> str:
  types = {}
  for tensor in found.tensors:
    types[tensor.dtype] = types.get(tensor.dtype, 0) + 1
  counts = ', '.join(f'{count:,} {dtype}' for dtype, count in types.items())
  return f'{len(found.tensors):,} tensors ({counts}), {found.parameters:,} parameters'
