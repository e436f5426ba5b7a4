"""Real training in small: the coded fusion, and the Mixer that is kept."""

import dataclasses

import numpy as np

from painformer_jax.assessment import assessor, experiment
from painformer_jax.assessment.config import from_config_dict
from painformer_jax.assessment.fit import fit_folds
from painformer_jax.assessment.fit_program import FitConfig
from painformer_jax.assessment.fold_batches import Fold
from painformer_jax.assessment.fusion import MixerInput
from painformer_jax.assessment.predict import predict
from painformer_jax.models import mixer
from test_assess_config import plain
from test_assess_experiment import make_study, make_tokens

TINY = dict(latents=2, width=8, cross_head_width=8, self_heads=2, self_head_width=4, depth=1,
            self_attentions=0)


def test_coded_modalities_go_through_the_encoder():
  study = make_study()
  tokens = {name: make_tokens(study, name) for name in ('gsr', 'ecg')}
  config = from_config_dict(plain(
      rows=dict(n=dict(fusion=dict(kind='fusion-n', modalities=('gsr', 'ecg'), coded=('ecg',)))),
      mixer=dict(name='mixer_laptop', **TINY),
      encoder=dict(name='video_encoder_laptop', outputs=3, **TINY), fit=dict(steps=2, batch=4)))
  job, = experiment.jobs(config, study, tokens=tokens)
  source, = job.inputs
  model = experiment.model_of(config, job, source)
  assert model.encoder.outputs == 3 and model.encoder_tokens == 2 and model.outputs == 2
  outcome = experiment.run(config, job, study, cache=None)
  assert len(outcome.runs[0].label) == len(job.positions)
  # What the encoder reads reaches the decision.
  first = outcome.runs[0].probability
  other = dataclasses.replace(job, inputs=(dataclasses.replace(
      source, values=np.where(np.arange(3)[:, None] < 2, -source.values, source.values)),))
  assert not np.allclose(first, experiment.run(
      config, other, study, cache=None).runs[0].probability)


def test_what_is_kept_is_what_a_fold_would_have_trained():
  rng = np.random.default_rng(0)
  inputs = rng.normal(size=(12, 2, 5)).astype(np.float32)
  labels = np.arange(12) % 2
  mask = np.ones((12, 2), bool)
  mask[0] = mask[3, 1] = False  # A sample without any embedding is not trained on.
  model = mixer.make_config('mixer_laptop', input_width=5, positions=2, **TINY)
  config = FitConfig(model=model, batch=4, steps=5, seeds=(0, 7), class_weights='balanced')
  fold = Fold(name='all samples', train=np.arange(1, 12), test=np.array([0]))
  # The tested sample must be there to be told apart: it is given to both as it is.
  expected = fit_folds(inputs, labels, [fold], config=config, mask=mask).logits[0]
  learned = assessor.train(inputs, labels, mask, config=config, steps=5)
  assert {a.shape[0] for a in learned.values()} == {2}
  found = predict(model, learned, MixerInput(
      name='x', values=inputs[:1], mask=mask[:1]), seeds=True)
  np.testing.assert_allclose(found, expected, atol=1e-5)
