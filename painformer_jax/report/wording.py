"""Sentences that the terminal and the page share."""

from painformer_jax.core.progress import duration
from painformer_jax.report.baseline import COMPONENTS
from painformer_jax.report.results import Results


def headline(results: Results) -> str:
  """The run's name and its step."""
  return f'{results.title}: step {results.step:,} of {results.steps:,}'


def model(results: Results) -> str:
  """What was trained."""
  return (
    f'{results.model}, {results.image_size} x {results.image_size} pixels, '
    f'{results.parameters:,} parameters.'
  )


def unfinished(results: Results) -> str:
  """A warning where the run has not ended, else ''."""
  if results.finished:
    return ''
  return (
    f'UNFINISHED: {results.steps - results.step:,} steps are to come. All '
    'figures are of the newest checkpoint, not of the end of the run.'
  )


def effort(results: Results) -> str:
  """Images, time, speed and devices of the training."""
  start = results.initial_weights or 'random values'
  where = f' on {results.devices}' if results.devices else ''
  return (
    f'Trained from {start} on {results.images:,} images: '
    f'{duration(results.train_seconds)} of pure training, '
    f'{results.images_per_second:.1f} images/s{where}.'
  )


def own_effort(results: Results) -> str:
  """How long this report's embeddings took."""
  if not results.embedded_images:
    return 'Embeddings: read again from the last report on this checkpoint.'
  return (
    f'Embeddings: {results.embedded_images:,} images through the trained and the '
    f'untrained backbone in {duration(results.embed_seconds)}.'
  )


def findings(results: Results) -> list[str]:
  """What the table says, in words; the unwelcome first."""
  tasks = results.tasks
  lines = []
  for label, names, meaning in (
    (
      'At chance',
      [t.name for t in tasks if t.verdict == 'at chance'],
      "the probe's interval includes chance: it does not separate the classes",
    ),
    (
      'Below chance',
      [t.name for t in tasks if t.verdict == 'below chance'],
      'what was learned on the training split misleads on the test split',
    ),
    (
      'Pixels do as well or better',
      [t.name for t in tasks if t.pixels.accuracy >= t.probe.accuracy],
      'the baseline without any network reaches the probe',
    ),
    (
      'Untrained does as well or better',
      [t.name for t in tasks if t.untrained.accuracy >= t.probe.accuracy],
      'training has not made these classes easier to separate',
    ),
  ):
    if names:
      lines.append(f'{label}: {", ".join(names)} ({meaning}).')
  return lines or [
    'On every task the probe is above chance, the pixels and the untrained backbone.'
  ]


def _untrained(results: Results) -> str:
  if results.initial_weights:
    return (
      'the same probe on a backbone of the same shape with random values, by the '
      f'seed of the run, not on {results.initial_weights}, from which it started: '
      'the probe minus this is what those weights and the training add together.'
    )
  return (
    'the same probe on the same backbone before training, with the seed of the '
    'run: what training adds is the probe minus this.'
  )


def methods(results: Results) -> dict[str, str]:
  """Column -> how its figures are computed."""
  size = results.tasks[0].pixels.size  # All tasks have the model's image size.
  folds = {t.probe.folds for t in results.tasks} | {t.untrained.folds for t in results.tasks}
  spread = ' to '.join(str(f) for f in sorted({min(folds), max(folds)}))
  explained = {
    'probe': 'accuracy on the test split of a logistic regression on frozen, '
    'standardised embeddings of the training split; its penalty is chosen '
    f'by cross-validation (folds: {spread}) inside the training split.',
    '95 %': "Wilson's interval of the probe, by the effective sample size n_eff.",
    'head': "accuracy of the task's own head, as trained.",
    'pixels': f'baseline without a network: up to {COMPONENTS} principal components '
    f'of the image in grey, {size} x {size} pixels, and the nearest '
    'training image.',
    'untrained': _untrained(results),
    'chance': 'of always naming the most frequent class of the test split.',
    'n_eff': 'effective sample size: how many independent images tell as much as the test '
    'images do; fewer where neighbours, such as windows of one recording, are right or wrong '
    'together.',
  }
  if any(t.unbalanced for t in results.tasks):
    explained['F1'] = (
      "mean of the classes' F1 scores of the probe, where the test "
      'classes differ in size by more than half.'
    )
  return explained
