"""What a type checker sees of the package: mypy reads this file, nothing runs it."""

from typing import assert_type

import jax
import numpy as np

import painformer_jax as pj


def types(images: np.ndarray) -> None:
  assert_type(pj.__version__, str)
  assert_type(pj.list_models(), list[str])
  model = pj.load('painformer.pth', num_classes=0, image_size=112, seed=0, dtype='bfloat16')
  assert_type(model, pj.PainFormer)
  assert_type(pj.create('painformer', num_classes=2, seed=0), pj.PainFormer)
  assert_type(model.config, pj.PainFormerConfig)
  x = pj.preprocess(images, image_size=112)
  assert_type(x, jax.Array)
  assert_type(model.preprocess(images), jax.Array)
  assert_type(pj.embed(model, images, batch_size=8), np.ndarray)
  out = model(x, attention=True, stages=True)
  assert_type(out.embedding, jax.Array)
  assert_type(out.tokens, jax.Array)
  assert_type(out.logits, jax.Array | None)
  assert_type(out.attention, tuple[jax.Array, ...] | None)
