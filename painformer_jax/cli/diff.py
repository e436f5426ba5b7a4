"""`painformer diff`: how two sets of weights differ."""

import dataclasses
import json
import math

from painformer_jax.cli import file_options

EXAMPLE = """painformer diff painformer.pth weights/
  painformer diff checkpoint.pth checkpoint.pth --key state_dict --key-b state_dict_ema

exit status: 0 equal, 1 different, 2 bad input. A difference of the element type alone, such as
float16 for float32, is printed and is none."""

_ROWS = 10


def add_arguments(parser):
  for name in ('a', 'b'):
    parser.add_argument(
      name,
      metavar=name.upper(),
      help='.pth or .safetensors file, folder of them, weights folder or run folder',
    )
  parser.add_argument(
    '--tolerance',
    type=float,
    default=0.0,
    metavar='X',
    help='largest absolute difference of values that are equal all the same (default: 0)',
  )
  parser.add_argument('--json', action='store_true', help='print everything as JSON')
  file_options.add_arguments(parser, allow_missing=False)
  parser.add_argument(
    '--key-b', metavar='KEY', help='the state dict to take of B (default: as --key)'
  )


def run(args):
  from painformer_jax.core.errors import InputError
  from painformer_jax.core.targets import VERSION_FIELD
  from painformer_jax.weights.difference import difference
  from painformer_jax.weights.sources import read_tensors

  if not args.tolerance >= 0:
    raise InputError(f'--tolerance {args.tolerance} is no number of 0 or more')
  options = file_options.options_of(args)
  a = read_tensors(args.a, options)
  b = read_tensors(args.b, dataclasses.replace(options, key=args.key_b or options.key))
  found = difference(a.tensors, b.tensors, tolerance=args.tolerance)
  if args.json:
    content = {**VERSION_FIELD, 'equal': found.is_none, **_json(found)}
    print(json.dumps(content, indent=2, allow_nan=False))
  else:
    print('\n'.join(_page(found, args, a, b)))
  return 0 if found.is_none else 1


def _json(found) -> dict:
  content = dataclasses.asdict(found)
  for tensor in content['values']:  # JSON has no infinity.
    for name in ('largest', 'relative'):
      tensor[name] = tensor[name] if math.isfinite(tensor[name]) else None
  return {('same' if name == 'equal' else name): value for name, value in content.items()}


def _page(found, args, a, b) -> list[str]:
  from painformer_jax.core.errors import listed
  from painformer_jax.core.tables import aligned

  lines = []
  for name, path, read in (('A', args.a, a), ('B', args.b, b)):
    lines.append('; '.join([f'{name}: {path}, {len(read.tensors):,} tensors', *read.choices]))
  for names, where in ((found.only_a, 'A'), (found.only_b, 'B')):
    if names:
      lines.append(f'only in {where}, {len(names):,}: {listed(names)}')
  for pairs, what in ((found.shapes, 'shapes'), (found.types, 'types')):
    if pairs:
      shown = [f'{name} ({_text(one)}, {_text(other)})' for name, (one, other) in pairs.items()]
      lines.append(f'other {what}, {len(pairs):,}: {listed(shown)}')
  if found.values:
    rows = [['other values', 'elements', 'largest', 'relative']]
    for tensor in found.values[:_ROWS]:
      rows.append(
        [
          listed([tensor.name]),
          f'{tensor.elements:,}',
          f'{tensor.largest:.4g}',
          f'{tensor.relative:.4g}',
        ]
      )
    lines += aligned(rows, right=(1, 2, 3))
    if len(found.values) > _ROWS:
      lines.append(f'and {len(found.values) - _ROWS:,} more')
  verdict = 'no difference' if found.is_none else f'{len(found.values):,} have other values'
  return [*lines, f'{found.equal:,} tensors are equal, {verdict}']


def _text(value) -> str:
  return value if isinstance(value, str) else str(list(value))
