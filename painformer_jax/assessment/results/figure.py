"""The figure of an experiment: confusion matrix, calibration, and accuracy by subject."""

import io
import math

import numpy as np

from painformer_jax.assessment.results.summary import Summary
from painformer_jax.core.errors import import_extra

WIDTH, HEIGHT, DPI = 9.0, 6.6, 130  # Inches, dots an inch.
BLUE, LIGHT_BLUE, ORANGE, GREY = '#1f5fa8', '#8fb4dc', '#e3936f', '#777777'
# With more subjects than this, bars have no names.
_NAMED = 40


def draw(summary: Summary) -> bytes:
  """The figure as PNG. Uses no display and leaves matplotlib's global state alone.

  Raises:
    InputError: matplotlib is not installed.
  """
  figure_module = import_extra('matplotlib.figure', extra='demo')
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  figure = figure_module.Figure(figsize=(WIDTH, HEIGHT), dpi=DPI, layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.subplot_mosaic(
    [['confusion', 'calibration'], ['subjects', 'subjects']], height_ratios=(1.15, 1)
  )
  figure.suptitle(_heading(summary), fontsize=11)
  _confusion(axes['confusion'], summary)
  _calibration(axes['calibration'], summary)
  _subjects(axes['subjects'], summary)
  file = io.BytesIO()
  figure.savefig(file, format='png', metadata={'Software': None})
  return file.getvalue()


def _heading(summary: Summary) -> str:
  e, accuracy = summary.experiment, summary.scores['accuracy']
  interval = (
    ''
    if math.isnan(accuracy.low)
    else f'  (95 %: {100 * accuracy.low:.1f} to {100 * accuracy.high:.1f})'
  )
  return (
    f'{e.dataset}: {e.task}, {e.modality}, {e.protocol}\n{e.method}: accuracy '
    f'{100 * accuracy.estimate:.1f} %{interval}, chance {100 * summary.chance:.1f} %'
  )


def _confusion(axis, summary: Summary) -> None:
  counts, classes = summary.confusion, summary.experiment.classes
  total = counts.sum(axis=1, keepdims=True)
  share = counts / np.maximum(total, 1)
  axis.imshow(share, vmin=0, vmax=1, cmap='Blues')
  for row in range(len(classes)):
    for column in range(len(classes)):
      axis.text(
        column,
        row,
        f'{share[row, column]:.0%}\n{counts[row, column]:,}',
        ha='center',
        va='center',
        fontsize=9 if len(classes) < 4 else 7.5,
        color='white' if share[row, column] > 0.55 else '#1c1c1c',
      )
  axis.set_xticks(range(len(classes)), classes, fontsize=8)
  axis.set_yticks(range(len(classes)), classes, fontsize=8)
  axis.set_xlabel('predicted', fontsize=8)
  axis.set_ylabel('true', fontsize=8)
  seeds = len(summary.experiment.runs)
  axis.set_title(
    'Share of each true class' + (f', {seeds} seeds added' if seeds > 1 else ''), fontsize=9
  )


def _calibration(axis, summary: Summary) -> None:
  c = summary.calibration
  used = c.count > 0
  axis.plot([0, 1], [0, 1], color=GREY, linestyle=':', linewidth=1, label='perfect')
  axis.plot(c.confidence[used], c.accuracy[used], color=BLUE, linewidth=1, zorder=2)
  axis.scatter(
    c.confidence[used],
    c.accuracy[used],
    s=12 + 90 * c.count[used] / c.count.max(),
    color=BLUE,
    zorder=3,
    label='measured; larger: more predictions',
  )
  low = 1 / len(summary.experiment.classes)
  axis.set_xlim(low - 0.03, 1.03)
  axis.set_ylim(-0.04, 1.04)
  axis.set_xlabel('confidence: probability of the predicted class', fontsize=8)
  axis.set_ylabel('share that is right', fontsize=8)
  axis.set_title(f'Calibration: error {100 * c.error:.1f} %, Brier {c.brier:.2f}', fontsize=9)
  axis.tick_params(labelsize=8)
  axis.legend(fontsize=7, loc='upper left')
  axis.grid(alpha=0.25)


def _subjects(axis, summary: Summary) -> None:
  e = summary.experiment
  names = np.array(e.runs[0].subjects)
  order = np.argsort(-summary.by_subject, kind='stable')
  values = 100 * summary.by_subject[order]
  below = values <= 100 * summary.chance
  axis.bar(np.arange(len(values)), values, width=0.8, color=np.where(below, ORANGE, LIGHT_BLUE))
  axis.axhline(100 * summary.chance, color='#1c1c1c', linestyle=':', linewidth=1.3)
  axis.axhline(100 * summary.subject_accuracy, color='#1c1c1c', linewidth=1)
  axis.set_xlim(-0.7, len(values) - 0.3)
  axis.set_ylim(0, 105)
  if len(names) <= _NAMED:
    axis.set_xticks(
      range(len(names)), names[order], rotation=90 if len(names) > 8 else 0, fontsize=7
    )
  else:
    axis.set_xticks([])
  axis.tick_params(axis='y', labelsize=8)
  axis.set_ylabel('accuracy, %', fontsize=8)
  at_chance = (
    f'; {int(below.sum())} not above chance, orange' if below.any() else '; all above chance'
  )
  axis.set_title(
    f'Each of {len(values)} {e.unit}s: mean {100 * summary.subject_accuracy:.1f} % '
    f'(line), chance (dotted){at_chance}',
    fontsize=9,
  )
