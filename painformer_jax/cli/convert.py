"""`painformer convert`: PyTorch weights to a weights folder."""

import dataclasses
import pathlib

EXAMPLE = 'painformer convert painformer.pth weights --report report.json'


def add_arguments(parser):
  parser.add_argument('src', metavar='SRC', help='.pth or .safetensors file')
  parser.add_argument('out', metavar='OUT', help='weights folder to write')
  parser.add_argument(
    '--allow-missing',
    metavar='REGEX',
    help='accept arrays whose released name contains a match of REGEX although they are missing '
    'or of another shape (they get initial values) or unexpected (they are left out); ^norm4 '
    'matches names that begin with norm4',
  )
  parser.add_argument(
    '--report',
    metavar='FILE.json',
    help='also write a report: names, counts, parameters and the SHA-256 of SRC; it is written '
    'even if the conversion fails because names do not match',
  )


def run(args):
  from painformer_jax.core.targets import JSON_MARK, check_file_target
  from painformer_jax.weights import folder as weights
  from painformer_jax.weights.convert import ConversionError, convert
  from painformer_jax.weights.torch import read as torch_file

  weights.check_target(args.out, inputs=(args.src,))
  if args.report:
    check_file_target(args.report, mark=JSON_MARK, inputs=(args.src,))
  checkpoint = torch_file.read(args.src)
  try:
    conversion = convert(checkpoint, source=args.src, allow_missing=args.allow_missing)
  except ConversionError as error:
    _write_report(args.report, error.report, converted=False)
    raise
  report = conversion.report
  weights.save_weights(
    args.out,
    conversion.variables,
    config=conversion.config,
    source=weights.WeightsSource(
      name=pathlib.Path(args.src).name,
      sha256=checkpoint.sha256,
      model=report.model,
      trained_on=checkpoint.trained_on,
    ),
  )
  _write_report(args.report, report, converted=True)
  print(_summary(report, args.out))


def _write_report(path, report, *, converted: bool):
  from painformer_jax.core.files import write_json
  from painformer_jax.core.targets import VERSION_FIELD

  if path:
    write_json(path, {**VERSION_FIELD, 'done': converted, **dataclasses.asdict(report)})


def _summary(report, out: str) -> str:
  head = f'a head of {report.classes:,} classes' if report.has_head else 'no head'
  lines = [
    f'{report.source}: {report.tensors} tensors, SHA-256 {report.sha256}',
    f'{out}: {report.model}, {report.parameters:,} parameters, {head}',
  ]
  for names, what in [
    (report.initialised, 'not in the file, initial values instead'),
    (report.skipped, 'left out'),
    (report.ignored, 'not weights, ignored'),
    (report.non_finite, 'WARNING: hold NaN or infinity'),
  ]:
    if names:
      lines.append(f'{what}: {", ".join(names)}')
  return '\n'.join(lines)
