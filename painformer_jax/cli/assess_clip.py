"""`painformer assess-clip`: a trained assessor on one recording."""

import argparse

EXAMPLE = """painformer assess-clip skin.csv --assessor runs/biovid/assessors/gsr-BL1-PA4 \\
      --rate 512 --column gsr --out levels.csv"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'recordings',
    nargs='+',
    metavar='RECORDING',
    help='a video or a file of signals; if the assessor needs several, SOURCE=FILE for each, '
    'such as gsr=skin.csv',
  )
  parser.add_argument(
    '--assessor',
    required=True,
    metavar='DIR',
    help='folder in assessors/ of an assessment that ran with --config.assessor=True',
  )
  parser.add_argument(
    '--weights',
    metavar='W',
    help='weights of the backbone (default: where they were when the assessor was trained)',
  )
  parser.add_argument(
    '--rate',
    action='append',
    default=[],
    metavar='[SOURCE=]HZ',
    help='samples a second; SOURCE=HZ, such as gsr=512, if the signals differ (default: by the '
    "file's column of times)",
  )
  parser.add_argument(
    '--column',
    action='append',
    default=[],
    metavar='[SOURCE=]A,B',
    help='columns of the file that are the channels, by name or number from 0',
  )
  parser.add_argument(
    '--time',
    action='append',
    default=[],
    metavar='[SOURCE=]NAME',
    help='column of times, by name or number from 0 (default: found by its name); none to go by '
    '--rate alone',
  )
  parser.add_argument(
    '--step',
    type=float,
    default=1.0,
    metavar='S',
    help="seconds from one window's start to the next one's (default: 1)",
  )
  parser.add_argument(
    '--batch-size', type=int, default=16, metavar='N', help='images at once (default: %(default)s)'
  )
  parser.add_argument(
    '--out',
    metavar='FILE',
    help='.csv or .json file to write, an older result is replaced (default: print CSV)',
  )


def run(args: argparse.Namespace) -> int:
  import pathlib

  from painformer_jax.assessment.clips import assessor, clip, curve
  from painformer_jax.assessment.clips.recording import Recording
  from painformer_jax.core.errors import InputError, counted
  from painformer_jax.core.files import write_text
  from painformer_jax.core.progress import log
  from painformer_jax.core.targets import check_file_target

  kind = pathlib.Path(args.out).suffix.lower().lstrip('.') if args.out else 'csv'
  if kind not in ('csv', 'json'):
    raise InputError(f'--out {args.out}: name a .csv or .json file')
  loaded = assessor.load(args.assessor)
  sources = sorted({each.source for each in loaded.settings.values()})
  columns = {
    source: tuple(text.split(','))
    for source, text in _by_source(args.column, sources, what='--column').items()
  }
  signals = sorted(
    {each.source for name, each in loaded.settings.items() if loaded.sources[name].channels}
  )
  rates = _rates(args.rate, signals)
  if args.time and not signals:
    raise InputError(f'--time {args.time[0]}: this assessor takes no signals')
  times = _by_source(args.time, signals, what='--time')
  recordings = {
    source: Recording(
      path=path,
      rate=rates.get(source, 0.0),
      columns=columns.get(source, ()),
      time=times.get(source, ''),
    )
    for source, path in _by_source(args.recordings, sources, what='recording').items()
  }
  if args.out:
    read = [each.path for each in recordings.values()]
    check_file_target(args.out, curve.KINDS[kind], inputs=[*read, *filter(None, [args.weights])])
  log(loaded.notice)
  levels = clip.assess_clip(
    loaded, recordings, step=args.step, weights=args.weights, batch_size=args.batch_size, log=log
  )
  text = curve.as_text(levels, loaded)[kind]
  if args.out:
    write_text(args.out, text)
    abstained = sum(map(bool, levels.reason))
    print(f'{args.out}: {counted(len(levels.start), "window")}, {abstained} abstained from')
  else:
    print(text, end='')
  return 0


def _by_source(given: list[str], sources: list[str], *, what: str) -> dict[str, str]:
  """Source -> value, of texts 'value' or 'source=value'."""
  from painformer_jax.core.errors import InputError

  found = {}
  for text in given:
    source, equals, value = text.partition('=')
    if not equals or source not in sources:
      if len(sources) > 1:
        raise InputError(
          f'{what} {text!r}: write SOURCE={text}, where SOURCE is one of {", ".join(sources)}'
        )
      source, value = sources[0], text
    if source in found:
      raise InputError(f'{what}: {source} is named twice')
    found[source] = value
  return found


def _rates(given: list[str], signals: list[str]) -> dict[str, float]:
  """Signal -> Hz, of texts 'Hz', which is for all that are not named, or 'signal=Hz'."""
  import math

  from painformer_jax.core.errors import InputError

  found = {}
  for text in given:
    source, equals, number = text.rpartition('=')
    if equals and source not in signals:
      raise InputError(
        f'--rate {text}: there is no signal {source!r}; this assessor takes '
        f'{", ".join(signals) or "none"}'
      )
    try:
      rate = float(number)
    except ValueError:
      rate = math.nan
    if not 0 < rate < math.inf:
      raise InputError(f'--rate {text}: {number!r} is no number of samples a second above 0')
    if source in found:
      raise InputError(f'--rate {text}: {source or "the rate of all signals"} is given twice')
    found[source] = rate
  return {source: found.get(source, found.get('', 0.0)) for source in signals}
