"""Held-out figures of heads: whole, divided by class, divided by row."""

import re
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_tasks import store_tiny

from painformer_jax.models import heads
from painformer_jax.parallel import layout
from painformer_jax.parallel.mesh import batch_sharding, replicated
from painformer_jax.training import evaluate as module

WIDTH, CLASSES, TEST = 16, {'few': 3, 'many': 1100}, 21
STRATEGIES = {
  'one device': (1, layout.Strategy()),
  'rows': (8, layout.Strategy()),
  'fsdp': (8, layout.Strategy(state='fsdp')),
  'classes': (8, layout.Strategy(model_parallelism=8)),
  'both': (8, layout.Strategy(state='fsdp', model_parallelism=4)),
}


def params():
  rng = np.random.default_rng(0)
  found = {}
  for task, classes in CLASSES.items():
    shapes = {'kernel': (WIDTH, heads.columns(classes)), 'bias': (heads.columns(classes),)}
    for name, shape in shapes.items():
      array = rng.standard_normal(shape).astype(np.float32)
      array[..., classes:] = 1e3  # Padding must never be read.
      found[f'heads/{task}/{name}'] = array
  return found


def embedding_of(images):
  """Stands for the backbone, which is the same for all: 16 pixels."""
  return images[:, :4, :4, 0].reshape(-1, WIDTH).astype(jnp.float32) / 64


def figures(data_dir):
  """By strategy, and the widths of what a program makes whose classes are divided."""
  found = {}
  for name, (devices, strategy) in STRATEGIES.items():
    mesh = layout.training_mesh(strategy, jax.devices()[:devices])
    placed = jax.device_put(params(), layout.state_shardings(mesh, params(), strategy))
    embed = jax.jit(lambda arrays, images: embedding_of(images), out_shardings=replicated(mesh))
    found[name] = module.evaluate(
      types.SimpleNamespace(evaluated=placed, stats={'count': jnp.zeros(())}),
      embed,
      mesh=mesh,
      tasks=CLASSES,
      data_dir=data_dir,
      image_size=8,
      batch_size=8,
      threads=1,
    )
  rows = batch_sharding(mesh)
  batch = {
    'label': jax.ShapeDtypeStruct((8,), jnp.int32, sharding=rows),
    'mask': jax.ShapeDtypeStruct((8,), bool, sharding=rows),
  }
  text = (
    module._judged.lower(
      {path: array for path, array in placed.items() if 'many' in path},
      jax.ShapeDtypeStruct((8, WIDTH), jnp.float32, sharding=replicated(mesh)),
      batch,
      mesh=mesh,
      task='many',
      classes=CLASSES['many'],
    )
    .compile()
    .as_text()
  )
  return found, max(
    int(n) for dims in re.findall(r'\b(?:f32|s32|pred)\[([\d,]+)\]', text) for n in dims.split(',')
  )


@pytest.fixture(scope='module')
def ran(on_devices, tmp_path_factory):
  folder = tmp_path_factory.mktemp('evaluate')
  for name, classes in CLASSES.items():
    store_tiny(folder, name, train=4, test=TEST, classes=classes, image_size=8)
  return on_devices(8, figures, data_dir=str(folder)), folder


def expected(folder):
  """With NumPy, on all rows at once."""
  from painformer_jax.data.mixture import eval_batches

  found = {}
  for task, classes in CLASSES.items():
    with eval_batches(task, 'test', data_dir=folder, image_size=8, batch_size=TEST) as batches:
      (batch,) = batches
    arrays = {
      path.split('/')[-1]: array.astype(np.float64)[..., :classes]
      for path, array in params().items()
      if f'/{task}/' in path
    }
    logits = np.asarray(embedding_of(batch['image'])) @ arrays['kernel'] + arrays['bias']
    own = logits[np.arange(TEST), batch['label']]
    found[f'eval/{task}/accuracy'] = float((logits.argmax(-1) == batch['label']).mean())
    found[f'eval/{task}/loss'] = float((np.logaddexp.reduce(logits, -1) - own).mean())
  return found


def test_the_figures_are_right_wherever_heads_lie(ran):
  (found, _), folder = ran
  for name in STRATEGIES:
    assert found[name] == pytest.approx(expected(folder), rel=1e-6), name
  assert 0 < found['both']['eval/few/accuracy'] < 1


def test_no_device_has_all_logits_of_a_row(ran):
  (_, widest), _ = ran
  assert widest == heads.columns(CLASSES['many']) // 4
