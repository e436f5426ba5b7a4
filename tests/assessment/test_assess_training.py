"""Real training in small: what a fold may see, the coded fusion, the Mixer that is kept."""

import dataclasses

import numpy as np
import pytest
from assessment_jobs import jobs
from test_assess_config import plain
from test_assess_experiment import make_study, make_tokens

from painformer_jax.assessment.config import from_config_dict
from painformer_jax.assessment.experiment import frozen
from painformer_jax.assessment.experiment.normalise import normalised
from painformer_jax.assessment.folds.batches import Fold
from painformer_jax.assessment.mixers.fit import fit_all, fit_folds
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.inputs import MixerInput
from painformer_jax.assessment.mixers.predict import predict
from painformer_jax.models import embedding_mixer_config

TINY = dict(
  latents=2,
  width=8,
  cross_head_width=8,
  self_heads=2,
  self_head_width=4,
  depth=1,
  self_attentions=0,
)


@pytest.mark.parametrize('how', ['study', 'subject'])
def test_labels_of_the_people_tested_on_change_nothing(how):
  """To the bit: training, normalisation and the choice among a grid."""
  study, folds = make_study(), {}
  config = from_config_dict(
    plain(
      rows=dict(one=dict(fusion=dict(kind='add', modalities=('gsr',)))),
      normalise=how,
      mixer=dict(name='mixer_laptop', **TINY),
      fit=dict(steps=3, batch=4),
      grid=dict(learning_rate=(1e-3, 1e-1)),
      inner_folds=2,
    )
  )
  tokens = {
    'gsr': normalised(make_tokens(study, 'gsr'), study.subject_array(), how=config.normalise)
  }
  (job,) = jobs(config, study, tokens)
  tested = job.folds[0]
  flipped = dataclasses.replace(
    job, label=np.where(np.isin(np.arange(len(job.label)), tested.test), 1 - job.label, job.label)
  )
  for name, each in (('true', job), ('flipped', flipped)):
    outcome = frozen.train(each, cache=None)
    folds[name] = outcome.runs[0].probability, outcome.chosen[tested.name]
  (true, point), (other, other_point) = folds['true'], folds['flipped']
  np.testing.assert_array_equal(true[tested.test], other[tested.test])
  assert point == other_point
  # Those who train on them do change.
  assert not np.array_equal(np.delete(true, tested.test, 0), np.delete(other, tested.test, 0))


@pytest.mark.slow
@pytest.mark.parametrize(
  'name, fields',
  [
    ('mixer_laptop', {}),
    (
      'mixer_published',
      dict(latents=24, width=32, self_heads=4, self_head_width=8, cross_head_width=32),
    ),
  ],
)
def test_each_fold_of_a_preset_equals_itself_alone(name, fields, measured):
  """With the optimisations of real runs; the second as large in kind, attention and all."""
  rng = np.random.default_rng(0)
  inputs, labels = rng.normal(size=(40, 1, 20)).astype(np.float32), np.arange(40) % 2
  model = embedding_mixer_config.make_config(name, input_width=20, positions=1, **fields)
  config = FitConfig(model=model, batch=8, steps=6)
  folds = [
    Fold(name=f'{i}', test=part, train=np.setdiff1d(np.arange(40), part))
    for i, part in enumerate(np.array_split(np.arange(40), 3))
  ]
  together = fit_folds(inputs, labels, folds, config=config)
  worst = 0
  for number, fold in enumerate(folds):
    alone = fit_folds(inputs, labels, [fold], config=config)
    worst = max(
      worst,
      np.abs(alone.logits[0] - together.logits[number]).max(),
      np.abs(alone.losses[0] - together.losses[number]).max(),
    )
  measured(f'fold with others and alone, {name}', worst, limit=1e-5)
  assert np.ptp(together.losses[:, 0], axis=0).min() > 1e-4


def test_coded_modalities_go_through_the_encoder():
  study = make_study()
  tokens = {name: make_tokens(study, name) for name in ('gsr', 'ecg')}
  config = from_config_dict(
    plain(
      rows=dict(n=dict(fusion=dict(kind='fusion-n', modalities=('gsr', 'ecg'), coded=('ecg',)))),
      mixer=dict(name='mixer_laptop', **TINY),
      encoder=dict(name='video_encoder_laptop', outputs=3, **TINY),
      fit=dict(steps=2, batch=4),
    )
  )
  (job,) = jobs(config, study, tokens)
  (source,) = job.inputs
  model = job.fits[0][0].model
  assert model.encoder.outputs == 3 and model.encoder_tokens == 2 and model.outputs == 2
  outcome = frozen.train(job, cache=None)
  assert len(outcome.runs[0].label) == len(job.positions)
  # What the encoder reads reaches the decision.
  first = outcome.runs[0].probability
  other = dataclasses.replace(
    job,
    inputs=(
      dataclasses.replace(
        source, values=np.where(np.arange(3)[:, None] < 2, -source.values, source.values)
      ),
    ),
  )
  assert not np.allclose(first, frozen.train(other, cache=None).runs[0].probability)


@pytest.mark.slow
def test_what_is_kept_is_what_a_fold_would_have_trained():
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(12, 2, 5)).astype(np.float32)
  labels = np.arange(12) % 2
  mask = np.ones((12, 2), bool)
  mask[0] = mask[3, 1] = False  # A sample without any embedding is not trained on.
  model = embedding_mixer_config.make_config('mixer_laptop', input_width=5, positions=2, **TINY)
  config = FitConfig(model=model, batch=4, steps=5, seeds=(0, 7), class_weights='balanced')
  fold = Fold(name='all samples', train=np.arange(1, 12), test=np.array([0]))
  # The tested sample must be there to be told apart: it is given to both as it is.
  expected = fit_folds(inputs, labels, [fold], config=config, mask=mask).logits[0]
  learned = fit_all(inputs, labels, config=config, mask=mask)
  assert {a.shape[0] for a in learned.values()} == {2}
  found = predict(
    model, learned, MixerInput(name='x', values=inputs[:1], mask=mask[:1]), seeds=True
  )
  np.testing.assert_allclose(found, expected, atol=1e-5)
