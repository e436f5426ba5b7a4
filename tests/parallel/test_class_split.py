"""Heads whose classes are divided over devices, against whole ones."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from painformer_jax.models import heads
from painformer_jax.parallel import class_split, layout
from painformer_jax.parallel.mesh import batch_sharding
from painformer_jax.training import losses

WIDTH, ROWS = 16, 24
QUICK = {'xla_backend_optimization_level': 0}


def head(classes, *, seed=0, scale=1.0):
  rng = np.random.default_rng(seed)
  kernel = np.zeros((WIDTH, heads.columns(classes)), np.float32)
  bias = np.zeros(heads.columns(classes), np.float32)
  kernel[:, :classes] = scale * rng.standard_normal((WIDTH, classes))
  bias[:classes] = scale * rng.standard_normal(classes)
  # Padding must never be read.
  kernel[:, classes:], bias[classes:] = 1e3, 1e3
  return {
    'kernel': kernel,
    'bias': bias,
    'embedding': rng.standard_normal((ROWS, WIDTH)).astype(np.float32),
  }


def placed(mesh, arrays):
  rows = batch_sharding(mesh)
  by_class = {'kernel': PartitionSpec(None, layout.MODEL), 'bias': PartitionSpec(layout.MODEL)}
  return {
    name: jax.device_put(array, NamedSharding(mesh, by_class[name]) if name in by_class else rows)
    for name, array in arrays.items()
  }


def split_loss(mesh, arrays, labels, others, *, classes, share, smoothing, **options):
  sums = class_split.logit_sums(
    mesh,
    arrays['kernel'],
    bias=arrays['bias'],
    embedding=arrays['embedding'],
    labels=labels,
    partner_labels=others,
    classes=classes,
    **options,
  )
  loss = losses.cross_entropy_of_sums(sums, mixup_lambda=share, label_smoothing=smoothing)
  return loss, sums.predicted


def whole_loss(arrays, labels, others, *, classes, share, smoothing):
  logits = heads.logits(
    {f't/{name}': a for name, a in arrays.items()}, 't', arrays['embedding'], classes=classes
  )
  if share is None:
    loss = losses.cross_entropy(logits, labels, label_smoothing=smoothing)
  else:
    loss = losses.cross_entropy(
      logits, labels, partner_labels=others, mixup_lambda=share, label_smoothing=smoothing
    )
  return loss, logits.argmax(-1)


def compare():
  """Errors of loss and gradients over their largest value, by case."""
  errors, best = {}, True
  for number, (data, shared, classes, share, smoothing, scale) in enumerate(
    [
      (8, 1, 1500, None, 0.0, 1.0),
      (4, 2, 1500, None, 0.1, 1.0),
      (2, 4, 1024, 0.3, 0.1, 1.0),
      (1, 8, 9131, 0.8, 0.0, 30.0),
      (1, 8, 1153, None, 0.1, 1.0),
    ]
  ):
    mesh = layout.training_mesh(layout.Strategy(model_parallelism=shared))
    assert dict(mesh.shape) == {'dcn': 1, 'data': data, 'model': shared}
    arrays = head(classes, seed=number, scale=scale)
    labels, others = np.random.default_rng(number).integers(0, classes, (2, ROWS), np.int32)
    labels[:2] = 0, classes - 1
    case = dict(classes=classes, share=share, smoothing=smoothing)
    (loss, top), gradient = jax.jit(
      jax.value_and_grad(
        # The last case in pieces of 4 rows.
        lambda a: split_loss(
          mesh,
          a,
          labels,
          others,
          **case,
          **({'most_logits': 5 * 1280 // 8} if classes == 1153 else {}),
        ),
        has_aux=True,
      ),
      compiler_options=QUICK,
    )(placed(mesh, arrays))
    (expected, expected_top), expected_gradient = jax.jit(
      jax.value_and_grad(lambda a: whole_loss(a, labels, others, **case), has_aux=True),
      compiler_options=QUICK,
    )(arrays)
    best &= bool((np.asarray(top) == np.asarray(expected_top)).all())
    found = {'loss': abs(float(loss - expected)) / float(expected)}
    for name, g in gradient.items():
      reference = np.asarray(expected_gradient[name])
      found[name] = float(np.abs(np.asarray(g) - reference).max() / np.abs(reference).max())
      if name != 'embedding':
        assert not np.asarray(g)[..., classes:].any(), 'padding has no gradient'
    errors[f'{classes} classes on {shared}'] = found
  return {'errors': errors, 'best': best}


def ties():
  """The first of equal logits counts, on whichever device it lies."""
  mesh = layout.training_mesh(layout.Strategy(model_parallelism=8))
  arrays = head(1024)
  arrays['kernel'][:], arrays['bias'][:] = 0, 0
  arrays['bias'][[900, 131, 700]] = 2
  labels = np.zeros(ROWS, np.int32)
  return np.asarray(
    split_loss(mesh, placed(mesh, arrays), labels, labels, classes=1024, share=None, smoothing=0.0)[
      1
    ]
  ).tolist()


def compiled(classes, shared):
  mesh = layout.training_mesh(layout.Strategy(model_parallelism=shared))
  shapes = {
    'kernel': (WIDTH, heads.columns(classes)),
    'bias': (heads.columns(classes),),
    'embedding': (1024, WIDTH),
  }
  rows = batch_sharding(mesh)
  specs = {'kernel': PartitionSpec(None, layout.MODEL), 'bias': PartitionSpec(layout.MODEL)}
  arrays = {
    name: jax.ShapeDtypeStruct(
      shape, jnp.float32, sharding=NamedSharding(mesh, specs[name]) if name in specs else rows
    )
    for name, shape in shapes.items()
  }
  labels = jax.ShapeDtypeStruct((1024,), jnp.int32, sharding=rows)
  return (
    jax.jit(
      jax.grad(
        lambda a, label: split_loss(
          mesh, a, label, label, classes=classes, share=None, smoothing=0.1
        )[0]
      )
    )
    .lower(arrays, labels)
    .compile()
  )


def programs():
  """Widths of every array of the program, and bytes of one device, by classes."""
  text = compiled(9131, 8).as_text()
  widths = {
    int(n) for dims in re.findall(r'(?:f32|s32|pred)\[([\d,]+)\]', text) for n in dims.split(',')
  }
  memory = {}
  for classes in (100_000, 1_000_000):
    found = compiled(classes, 8).memory_analysis()
    memory[classes] = [found.argument_size_in_bytes, found.temp_size_in_bytes]
  return {'widths': sorted(widths), 'memory': memory}


def on_mesh():
  return {'compare': compare(), 'ties': ties(), 'programs': programs()}


@pytest.fixture(scope='module')
def ran(on_devices):
  return on_devices(8, on_mesh)


def test_values_and_gradients_are_those_of_the_whole_head(ran, measured):
  for case, errors in ran['compare']['errors'].items():
    for name, error in errors.items():
      measured(f'head of {case} devices, {name}', error, limit=2e-6)
  assert ran['compare']['best']


def test_of_equal_logits_the_first_counts(ran):
  assert ran['ties'] == [131] * ROWS


def test_no_device_has_all_logits_of_a_row(ran):
  """The widest array of the program is a device's own share of the classes."""
  assert max(ran['programs']['widths']) == 9216 // 8


def test_memory_of_a_device_follows_its_share(ran):
  """With a million classes: an eighth of the head, and logits of an eighth."""
  for classes, (arguments, temporaries) in ran['programs']['memory'].items():
    share = heads.columns(int(classes)) / 8
    assert arguments < 1.02 * share * (WIDTH + 1) * 4 + 20_000
    # A few arrays of logits, which do not grow with the classes, and the gradient.
    assert temporaries < 4 * class_split.MOST_LOGITS * 4 + 2 * WIDTH * share * 4
