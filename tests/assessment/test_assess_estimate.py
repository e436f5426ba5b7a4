"""What an assessment is said to cost, against what it does."""

import dataclasses

import pytest
from assessment_jobs import jobs as make_all
from test_assess_config import plain
from test_assess_experiment import PEOPLE, PER_LEVEL, make_study, make_tokens

from painformer_jax.assessment.config import from_config_dict
from painformer_jax.assessment.estimate import report, speed
from painformer_jax.assessment.estimate.workload import train_flops
from painformer_jax.assessment.experiment.description import modality_label
from painformer_jax.assessment.mixers import cost
from painformer_jax.core.progress import duration


def make_jobs(**changes):
  rows = dict(
    one=dict(fusion=dict(kind='add', modalities=('gsr',))),
    again=dict(fusion=dict(kind='add', modalities=('ecg',))),
    two=dict(fusion=dict(kind='fusion-2', modalities=('gsr', 'ecg'))),
    n=dict(fusion=dict(kind='fusion-n', modalities=('gsr', 'ecg'), coded=('ecg',))),
  )
  config = from_config_dict(plain(**{'rows': rows, **changes}))
  study = make_study()
  tokens = {name: make_tokens(study, name) for name in ('gsr', 'ecg')}
  return config, {job.row: job for job in make_all(config, study, tokens)}


def per_sample(job):
  size = cost.size(job.fits[0][0].model, tokens=job.inputs[0].values.shape[1])
  return 6 * (size.linear + size.attention)  # A multiply-add is 2, training 3 passes.


def test_operations_are_those_of_every_sample_of_every_step():
  _, jobs = make_jobs(fit=dict(epochs=3, batch=8), seeds=(0, 1, 2))
  trained = 2 * PER_LEVEL * (PEOPLE - 1) * 3
  samples = -(-trained // 8) * 8
  (once,) = train_flops(jobs['one'], shuffled=0)
  assert once == PEOPLE * 3 * samples * per_sample(jobs['one'])
  # A Mixer for each modality.
  assert train_flops(jobs['two'], shuffled=0) == (once, once)
  assert train_flops(jobs['one'], shuffled=4) == pytest.approx(
    [PEOPLE * (3 + 4) * samples * per_sample(jobs['one'])]
  )


def test_hours_are_those_of_each_network_at_its_own_rate(monkeypatch):
  config, jobs = make_jobs(fit=dict(steps=50, batch=8))
  rates = []

  def measured(fit, *, tokens, runs, steps):
    rates.append(1e6 if fit.model.encoder is None else 3e5)
    return rates[-1]

  monkeypatch.setattr(speed, 'measured_rate', measured)
  lines = []
  report._report_mixers(config, list(jobs.values()), log=lines.append)
  seconds = sum(
    sum(train_flops(job, shuffled=0)) / (3e5 if row == 'n' else 1e6) for row, job in jobs.items()
  )
  assert sorted(rates) == [3e5, 1e6]  # Networks of one shape are measured once.
  assert lines[-1].endswith(f'altogether, about {duration(seconds)} here')
  assert f'{2 * PER_LEVEL * PEOPLE} samples x {PEOPLE} folds x 1 seeds x 50 steps, ' in lines[1]
  epochs, jobs = make_jobs(fit=dict(epochs=7))
  report._report_mixers(epochs, [jobs['one']], log=lines.append)
  assert 'x 7 epochs, ' in lines[-2]


def test_a_stand_in_is_named_in_tables():
  config, _ = make_jobs()
  assert modality_label(config, 'two') == 'gsr+ecg'
  marked = dataclasses.replace(
    config,
    modalities=dict(
      config.modalities, ecg=dataclasses.replace(config.modalities['ecg'], stand_in=True)
    ),
  )
  assert modality_label(marked, 'two') == 'gsr+ecg (stand-in)'
  assert modality_label(marked, 'one') == 'gsr'
