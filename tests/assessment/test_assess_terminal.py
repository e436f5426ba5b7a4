"""The table on the terminal."""

import numpy as np

from painformer_jax.assessment.results import summary as results
from painformer_jax.assessment.results import terminal
from painformer_jax.assessment.statistics.metrics import Predictions


def experiment(name: str, *, dataset: str = 'BioVid Part A', notes=()) -> results.Summary:
  label = np.tile([0, 1], 10)
  right = np.eye(2)[label] * 0.8 + 0.1
  right[:2] = right[:2, ::-1]
  run = Predictions(
    sample=np.arange(20).astype(str),
    subject=np.repeat(['a', 'b'], 10),
    label=label,
    probability=right,
  )
  return results.summarise(
    results.Experiment(
      name=name,
      dataset=dataset,
      task='BL1-PA4',
      modality='GSR',
      method='m',
      protocol='p',
      classes=('no pain', 'PA4'),
      runs=(run,),
      notes=tuple(notes),
    )
  )


def test_own_rows_stand_above_the_literature_with_its_marks():
  lines = terminal.table([experiment('one')]).splitlines()
  assert lines[0].split()[:4] == ['task', 'modality', 'method', 'accuracy']
  assert '90.0' in lines[1] and '80.0-100.0' in lines[1] and '50.0' in lines[1]
  assert any('PainFormer' in line and '89.0 *' in line for line in lines[2:])
  assert '* as another publication reports it' in lines
  assert '** recalled from memory, not checked' in lines


def test_it_says_how_this_run_and_others_were_tested():
  (line,) = [
    line
    for line in terminal.table([experiment('one')]).splitlines()
    if line.startswith('protocol here: p. ')
  ]
  assert line.endswith('Of the published figures: leave-one-subject-out; not stated')


def test_synthetic_data_stand_beside_no_literature():
  text = terminal.table([experiment('one', dataset='BioVid Part A, synthetic copy')])
  assert 'PainFormer' not in text and 'from memory' not in text


def test_a_note_of_all_is_said_once_and_others_with_their_names():
  text = terminal.table(
    [experiment('one', notes=('both', 'mine')), experiment('two', notes=('both',))]
  )
  assert text.count('both') == 1 and 'one: mine' in text
