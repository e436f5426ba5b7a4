"""Writes the files of a finished assessment: results.json, tables, predictions, figures."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path

from painformer_jax.assessment.results import figure, literature, table
from painformer_jax.assessment.results.paired import PairedTest
from painformer_jax.assessment.results.summary import NOTICE, Experiment, Summary, without_nan
from painformer_jax.assessment.statistics import metrics
from painformer_jax.assessment.statistics.intervals import RESAMPLES
from painformer_jax.core.errors import InputError
from painformer_jax.core.files import write_atomically

DEFINITIONS = {
  'accuracy': 'share of all samples that are right',
  'macro accuracy': 'mean over classes of the share of their samples that are right; '
  'also called balanced accuracy and macro recall',
  'macro precision': 'mean over classes of the share of their predictions that are right',
  'macro F1': "mean of the classes' F1",
  'subject accuracy': "mean of the subjects' own accuracies",
  'chance': 'accuracy of always naming the most frequent class',
  'interval': f'95 %, {RESAMPLES:,} bootstrap resamples of the subjects (or blocks of '
  'time); of several seeds, of the mean over them',
}


def write_results(
  summaries: Sequence[Summary],
  folder: str | Path,
  *,
  tests: Sequence[PairedTest] = (),
  figures: bool = True,
) -> list[Path]:
  """Writes results.json, table.csv, table.tex, subjects.csv, predictions.csv, *.png.

  Tables also hold the published figures (see `literature`) of the same datasets and
  tasks. Each file is written atomically; results.json comes last.

  Args:
    summaries: of the finished experiments.
    folder: created if missing; files of these names are replaced.
    tests: paired tests of these experiments, see `paired`.
    figures: whether to draw the *.png (needs matplotlib).

  Returns:
    The paths that were written.

  Raises:
    InputError: there is no experiment, two have one name, or the folder cannot be written.
  """
  experiments = [summary.experiment for summary in summaries]
  check_names([e.name for e in experiments])
  published = [
    figure
    for key in dict.fromkeys((e.dataset, e.task) for e in experiments)
    for figure in literature.published(*key)
  ]
  files = {
    'table.csv': table.to_csv(summaries, published).encode(),
    'table.tex': table.to_latex(summaries, published).encode(),
    'subjects.csv': _subjects_csv(summaries).encode(),
    'predictions.csv': _predictions_csv(experiments).encode(),
  }
  if figures:
    files |= {f'{slug(s.experiment.name)}.png': figure.draw(s) for s in summaries}
  files['results.json'] = (
    json.dumps(
      {
        'notice': NOTICE,
        'definitions': DEFINITIONS,
        'experiments': [s.record() for s in summaries],
        'comparisons': [without_nan(test.record()) for test in tests],
        'literature': [{**dataclasses.asdict(f), 'value': f.value} for f in published],
        'evidence': literature.EVIDENCE,
      },
      indent=2,
      allow_nan=False,
    )
    + '\n'
  ).encode()
  folder = Path(folder)
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise InputError(f'{folder} cannot be made: {error.strerror}') from error
  for name, content in files.items():
    write_atomically(folder / name, lambda file, content=content: file.write(content))
  return [folder / name for name in files]


def check_names(names: Sequence[str]) -> None:
  """Checks that names of experiments can name files.

  Raises:
    InputError: there are none, or two would name the same file.
  """
  if not names or len(set(names)) < len(names):
    raise InputError(f'results need experiments of different names, not {names}')
  if len({slug(name) for name in names}) < len(names):
    raise InputError(f'names of experiments are too alike to name files by: {names}')


def slug(name: str) -> str:
  """A file name made of the name: letters, digits, dots, minus and underscore."""
  return re.sub(r'[^\w.-]+', '-', name).strip('-.') or 'experiment'


def _subjects_csv(summaries: Sequence[Summary]) -> str:
  rows = [('experiment', 'subject', 'samples', 'accuracy', 'macro accuracy')]
  for summary in summaries:
    e = summary.experiment
    counts = e.confusion_by_subject()
    macro = metrics.macro_accuracy(counts).mean(0)
    rows += [
      (e.name, person, int(own.sum()), f'{accuracy:.6f}', f'{m:.6f}')
      for person, own, accuracy, m in zip(e.runs[0].subjects, counts[0], summary.by_subject, macro)
    ]
  return table.csv_text(rows)


def _predictions_csv(experiments: Sequence[Experiment]) -> str:
  rows = [('experiment', 'run', 'sample', 'subject', 'label', 'predicted', 'probabilities')]
  for e in experiments:
    for number, run in enumerate(e.runs):
      rows += [
        (
          e.name,
          number,
          sample,
          subject,
          e.classes[label],
          e.classes[predicted],
          ' '.join(f'{p:.9f}' for p in probability),
        )
        for sample, subject, label, predicted, probability in zip(
          run.sample, run.subject, run.label, run.predicted, run.probability
        )
      ]
  return table.csv_text(rows)
