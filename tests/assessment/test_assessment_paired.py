"""Paired tests: rows of a run, and one run against another."""

import json

import numpy as np
import pytest
import scipy.stats
from test_assessment_results import experiment, predictions

from painformer_jax.assessment.results import paired
from painformer_jax.assessment.results.paired import compare_experiments
from painformer_jax.assessment.results.read import read_experiments
from painformer_jax.assessment.results.summary import summarise
from painformer_jax.assessment.results.write import write_results
from painformer_jax.assessment.statistics.metrics import Predictions
from painformer_jax.core.errors import InputError


def write(experiments, folder):
  write_results([summarise(each) for each in experiments], folder, figures=False)


def some(run: Predictions, rows) -> Predictions:
  return Predictions(
    **{name: getattr(run, name)[rows] for name in ('sample', 'subject', 'label', 'probability')}
  )


def shuffled(run: Predictions) -> Predictions:
  return some(run, np.random.default_rng(0).permutation(len(run.label)))


def test_a_comparison_is_that_of_the_subjects_accuracies():
  good, poor = predictions(2, skill=0.95), predictions(0, skill=0.6)
  test = compare_experiments(experiment('good', (good,)), experiment('poor', (poor,)))

  def by_subject(run):
    return np.array([(run.predicted == run.label)[run.subject == p].mean() for p in run.subjects])

  own = by_subject(good) - by_subject(poor)
  assert test.comparison.difference.estimate == pytest.approx(own.mean())
  assert test.comparison.p_wilcoxon == pytest.approx(scipy.stats.wilcoxon(own).pvalue)
  assert test.samples == 120 and test.comparison.better == (own > 0).sum()
  assert str(test).startswith(f'good against poor: {100 * own.mean():+.1f} points of accuracy (')


def test_order_of_samples_does_not_matter():
  good, poor = predictions(2, skill=0.95), predictions(0, skill=0.6)
  one = compare_experiments(experiment('good', (good,)), experiment('poor', (poor,)))
  other = compare_experiments(experiment('good', (shuffled(good),)), experiment('poor', (poor,)))
  assert one.comparison.difference.estimate == pytest.approx(other.comparison.difference.estimate)


def test_only_samples_that_both_tell_of_count():
  """As where some videos show no face."""
  good, poor = predictions(2, skill=0.95), predictions(0, skill=0.6)
  without = np.setdiff1d(np.arange(120), [3, 50, 51])
  test = compare_experiments(experiment('face', (some(good, without),)), experiment('gsr', (poor,)))
  same = compare_experiments(
    experiment('face', (some(good, without),)), experiment('gsr', (some(poor, without),))
  )
  assert test.samples == 117 and test.comparison == same.comparison


@pytest.mark.parametrize(
  'other, words',
  [
    (dict(runs=(predictions(0, subjects=1),)), '1 subjects in common'),
    (dict(classes=('no pain', 'PA3')), 'different classes'),
  ],
)
def test_what_cannot_be_compared(other, words):
  with pytest.raises(InputError, match=words):
    compare_experiments(experiment('a'), experiment('b', **other))


def test_other_labels_of_the_same_samples_are_an_error():
  first = predictions(0)
  flipped = Predictions(
    sample=first.sample, subject=first.subject, label=1 - first.label, probability=first.probability
  )
  with pytest.raises(InputError, match='different labels or subjects'):
    compare_experiments(experiment('a', (first,)), experiment('b', (flipped,)))


def test_each_task_is_compared_with_its_own_reference():
  made = [
    experiment(f'{row}, {task}', (predictions(seed),), task=task, settings={'row': row})
    for seed, (row, task) in enumerate(
      (row, task) for task in ('BL1-PA4', 'BL1-PA1') for row in ('gsr', 'ecg', 'few')
    )
  ]
  made[-1] = experiment(
    'few, BL1-PA1', (predictions(0, subjects=1),), task='BL1-PA1', settings={'row': 'few'}
  )
  tests = paired.against_row(made, 'gsr')
  # One subject in common is no comparison, and no reason to fail.
  assert [(t.experiment, t.reference) for t in tests] == [
    ('ecg, BL1-PA4', 'gsr, BL1-PA4'),
    ('few, BL1-PA4', 'gsr, BL1-PA4'),
    ('ecg, BL1-PA1', 'gsr, BL1-PA1'),
  ]
  assert paired.against_row(made, '') == []


def test_a_run_is_compared_with_one_on_disk(tmp_path):
  before = experiment(
    'gsr',
    (predictions(0, skill=0.6), predictions(1, skill=0.6)),
    notes=('a note',),
    settings={'row': 'gsr'},
  )
  write([before, experiment('ecg', (predictions(3),))], tmp_path)
  read = read_experiments(tmp_path)
  assert [e.name for e in read] == ['gsr', 'ecg'] and read[0].notes == ('a note',)
  for one, other in zip(before.runs, read[0].runs):
    np.testing.assert_array_equal(one.predicted, other.predicted)
    np.testing.assert_allclose(one.probability, other.probability, atol=1e-8)
  now = experiment('gsr', (predictions(2, skill=0.95),))
  (test,) = paired.against_run([now], tmp_path)
  assert test.comparison == compare_experiments(now, before).comparison
  assert test.run == str(tmp_path) and f'gsr of {tmp_path}' in str(test)
  json.dumps(test.record())


def test_runs_that_are_not_there_or_have_nothing_in_common(tmp_path):
  with pytest.raises(InputError, match='no finished assessment'):
    read_experiments(tmp_path)
  write([experiment('gsr')], tmp_path)
  with pytest.raises(InputError, match='no experiment named like one here: gsr there, ecg here'):
    paired.against_run([experiment('ecg')], tmp_path)
  (tmp_path / 'predictions.csv').write_text('experiment\n')
  with pytest.raises(InputError, match='are damaged'):
    read_experiments(tmp_path)
