"""Embeds the test samples with a fine-tuned backbone and predicts them with its Mixers."""

import dataclasses

import jax
import numpy as np

from painformer_jax.assessment.embedding import embed as embeddings
from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.finetune.tuning import Tuning
from painformer_jax.assessment.mixers import fusion
from painformer_jax.assessment.mixers.finetune_program import TuneState, mixer_name
from painformer_jax.assessment.mixers.inputs import assemble
from painformer_jax.assessment.mixers.predict import predict
from painformer_jax.core.progress import Log
from painformer_jax.training.state import group
from painformer_jax.weights.folder import Weights


def test(
  tuning: Tuning, tuned: Weights, state: TuneState, *, mesh: jax.sharding.Mesh, log: Log
) -> np.ndarray:
  """Predicts the fold's test samples, from all their images.

  Args:
    tuning: what was trained.
    tuned: the fine-tuned backbone.
    state: after the last step, with the Mixers' parameters.
    mesh: of the devices.
    log: gets lines of progress.

  Returns:
    float32 [test samples, classes], logits.
  """
  positions = tuning.job.positions[tuning.run.fold.test]
  study = dataclasses.replace(
    tuning.study, samples=tuple(tuning.study.samples[p] for p in positions)
  )
  store = embeddings.compute_embeddings(
    study,
    tuning.settings,
    weights=tuned,
    folder=tuning.folder / 'embeddings',
    batch_size=tuning.batch_size,
    readers=tuning.config.readers,
    max_left_out=1.0,
    devices=list(mesh.devices.flat),
    log=log,
  )
  tokens = {
    name: _padded(store.tokens(name), part.mask.shape[1]) for name, part in tuning.tokens.items()
  }
  inputs = assemble(tuning.plan.fusion, tokens)
  logits = [
    predict(fit.model, group(state.params, mixer_name(number)), source)
    for number, (fit, source) in enumerate(zip(tuning.plan.fits, inputs))
  ]
  return fusion.decide(tuning.plan.fusion, logits, there=[source.there for source in inputs])


def _padded(tokens: Tokens, count: int) -> Tokens:
  """With as many token positions as in training; no test sample has more."""
  more = count - tokens.mask.shape[1]
  return dataclasses.replace(
    tokens,
    mask=np.pad(tokens.mask, ((0, 0), (0, more))),
    values=np.pad(tokens.values, ((0, 0), (0, more), (0, 0)), constant_values=np.nan),
  )
