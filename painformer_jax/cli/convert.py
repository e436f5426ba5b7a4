"""`painformer convert`: PyTorch weights to a weights folder."""

import dataclasses

from painformer_jax.cli import file_options

EXAMPLE = 'painformer convert painformer.pth weights --report report.json'


def add_arguments(parser):
  parser.add_argument('src', metavar='SRC', help='.pth or .safetensors file, or a folder of them')
  parser.add_argument(
    'out', metavar='OUT', help='weights folder to write; older weights are replaced'
  )
  parser.add_argument(
    '--report',
    metavar='FILE.json',
    help='also write a report: names, counts, parameters and the SHA-256 of SRC; it is written '
    'even if the conversion fails because names do not match; an older report is replaced',
  )
  file_options.add_arguments(parser)


def run(args):
  from painformer_jax.core.targets import check_file_target, check_lies_apart, json_kind
  from painformer_jax.weights import folder as weights
  from painformer_jax.weights.convert import ConversionError, convert
  from painformer_jax.weights.load import source_of
  from painformer_jax.weights.torch import read as torch_file

  weights.check_target(args.out, inputs=(args.src,))
  if args.report:
    check_lies_apart(args.report, args.out)
    check_file_target(args.report, json_kind('conversion'), inputs=(args.src,))
  options = file_options.options_of(args)
  checkpoint = torch_file.read(args.src, options)
  try:
    conversion = convert(
      checkpoint, source=args.src, allow_missing=args.allow_missing, heads=args.heads
    )
  except ConversionError as error:
    _write_report(args.report, error.report, converted=False)
    raise
  weights.save_weights(
    args.out,
    conversion.variables,
    config=conversion.config,
    source=source_of(args.src, conversion, checkpoint),
  )
  _write_report(args.report, conversion.report, converted=True)
  print(_summary(conversion.report, args.out))


def _write_report(path, report, *, converted: bool):
  from painformer_jax.core.files import write_json
  from painformer_jax.core.targets import json_fields

  if path:
    write_json(path, {**json_fields('conversion'), 'done': converted, **dataclasses.asdict(report)})


def _summary(report, out: str) -> str:
  from painformer_jax.weights.report import remarks, warnings

  model = report.model or 'a model that is no preset'
  head = f'a head of {report.classes:,} classes' if report.has_head else 'no head'
  return '\n'.join(
    [
      f'{report.source}: {report.tensors} tensors, SHA-256 {report.sha256}',
      f'{out}: {model}, {report.parameters:,} parameters, {head}',
      *remarks(report),
      *(f'WARNING: {line}' for line in warnings(report)),
    ]
  )
