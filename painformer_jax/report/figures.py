"""The figures of a report, as PNG."""

import io
import math
from collections.abc import Mapping

import numpy as np

from painformer_jax.core.errors import import_extra
from painformer_jax.report.embeddings import TaskArrays
from painformer_jax.report.probe import chance
from painformer_jax.report.run_folder import TrainedRun

CURVES, SCATTER = 'curves.png', 'embeddings.png'
WIDTH, DPI, COLUMNS = 8.4, 110, 2  # Width in inches.
NAMED_CLASSES = 10  # More are coloured along a scale, without a legend.
TRAIN, HELD_OUT, LEVEL = '#1f5fa8', '#c8501e', '#777777'


def curves(run: TrainedRun, labels: Mapping[str, np.ndarray]) -> bytes:
  """Loss and accuracy of every task over the steps, training and held-out.

  Args:
    run: whose metrics.jsonl is drawn.
    labels: task -> labels of its test split, for the level of chance.

  Returns:
    A PNG.
  """
  train = [row for row in run.history if 'loss' in row]
  held_out = [row for row in run.history if any(name.startswith('eval/') for name in row)]
  figure, axes = _figure(rows=len(labels) + 1, height=1.75, sharex=True)
  classes = {name: len(run.tasks[name].classes) for name in labels}

  progress, total = axes[0]
  for name in labels:
    steps, losses = _column(train, f'task/{name}/loss')
    progress.plot(steps, losses / math.log(classes[name]), marker='.', label=name)
  progress.axhline(1, color=LEVEL, linestyle=':')
  progress.set_ylim(bottom=0)
  _title(progress, 'all tasks: training loss as a share of that of guessing')
  figure.legend(fontsize=8, ncols=3, loc='outside upper center', frameon=False)
  total.plot(*_column(train, 'loss'), color=TRAIN, marker='.')
  _title(total, 'the weighted loss that is minimised')

  for (loss, accuracy), name in zip(axes[1:], labels):
    for axis, kind, level in (
      (loss, 'loss', math.log(classes[name])),
      (accuracy, 'accuracy', chance(labels[name])),
    ):
      axis.plot(*_column(train, f'task/{name}/{kind}'), color=TRAIN, marker='.', label='training')
      axis.plot(
        *_column(held_out, f'eval/{name}/{kind}'), color=HELD_OUT, marker='o', label='held out'
      )
      axis.axhline(
        level, color=LEVEL, linestyle=':', label='guessing' if kind == 'loss' else 'chance'
      )
      _title(axis, f'{name}: {kind}')
    loss.set_ylim(0, 1.05 * loss.get_ylim()[1])
    accuracy.set_ylim(-0.03, 1.03)
  for axis in axes[1]:
    axis.legend(fontsize=7, loc='best')
  for axis in axes[-1]:
    axis.set_xlabel('step')
  return _png(figure)


def scatter(run: TrainedRun, arrays: Mapping[str, TaskArrays]) -> bytes:
  """Held-out embeddings of every task in two dimensions, coloured by class.

  The two are the principal components of the standardised training embeddings;
  they depend on no label and on no held-out image.

  Returns:
    A PNG.
  """
  figure, axes = _figure(rows=-(-len(arrays) // COLUMNS), height=3.6)
  colormaps = import_extra('matplotlib', extra='demo').colormaps
  for axis, name in zip(axes.flat, arrays):
    points, shares = _project(arrays[name]['train'].embedding, arrays[name]['test'].embedding)
    label, classes = arrays[name]['test'].label, run.tasks[name].classes
    named = len(classes) <= NAMED_CLASSES
    colours = (
      colormaps['tab10'](label)
      if named
      else colormaps['nipy_spectral'](label / (len(classes) - 1) * 0.95)
    )
    # In a random order, so that no class covers the others.
    order = np.random.default_rng(0).permutation(len(label))
    axis.scatter(*points[order].T, s=9, alpha=0.75, linewidths=0, c=colours[order])
    if named:
      for number, text in enumerate(classes):
        axis.scatter([], [], s=16, color=colormaps['tab10'](number), label=_short(text))
      axis.legend(fontsize=7, loc='best', framealpha=0.7)
    _title(axis, name if named else f'{name} ({len(classes)} classes, one colour each)')
    axis.set_xlabel(f'component 1, {shares[0]:.0%} of variance', fontsize=8)
    axis.set_ylabel(f'component 2, {shares[1]:.0%}', fontsize=8)
    axis.set_xticks([])
    axis.set_yticks([])
  for axis in list(axes.flat)[len(arrays) :]:
    axis.set_axis_off()
  return _png(figure)


def _project(train: np.ndarray, test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """[n, width], [m, width] -> [m, 2] and the shares of variance of the two."""
  pipeline = import_extra('sklearn.pipeline', extra='demo')
  from sklearn.decomposition import PCA
  from sklearn.preprocessing import StandardScaler

  view = pipeline.make_pipeline(StandardScaler(), PCA(2, svd_solver='covariance_eigh'))
  with np.errstate(invalid='ignore'):  # The shares of no variance at all.
    points = view.fit(np.float64(train)).transform(np.float64(test))
  return points, np.nan_to_num(view[-1].explained_variance_ratio_)


def _column(rows: list[dict], name: str) -> tuple[np.ndarray, np.ndarray]:
  """Steps and values of a column, of the rows that have it."""
  points = [(row['step'], row[name]) for row in rows if name in row]
  steps, values = np.array(points, float).reshape(-1, 2).T
  return steps, values


def _short(text: str, limit: int = 18) -> str:
  return text if len(text) <= limit else text[: limit - 3] + '...'


def _title(axis, text: str) -> None:
  axis.set_title(text, fontsize=9)


def _figure(*, rows: int, height: float, sharex: bool = False):
  """A figure with a canvas of its own, which needs no screen and changes no global state.

  `height` is that of a row, in inches.
  """
  figure_module = import_extra('matplotlib.figure', extra='demo')
  from matplotlib.backends.backend_agg import FigureCanvasAgg

  figure = figure_module.Figure(figsize=(WIDTH, height * rows), dpi=DPI, layout='constrained')
  FigureCanvasAgg(figure)
  axes = figure.subplots(rows, COLUMNS, squeeze=False, sharex=sharex)
  for axis in axes.flat:
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.25)
  return figure, axes


def _png(figure) -> bytes:
  """The figure's bytes, the same for the same figure on the same machine."""
  file = io.BytesIO()
  figure.savefig(file, format='png', metadata={'Software': None})
  return file.getvalue()
