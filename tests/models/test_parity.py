"""Parity with the released PyTorch code, from vectors measured on it.

`launch/test.sh tests/models/test_parity.py` ends with the table of largest errors; `--all` adds
ten steps of training. A gate's tests share one compilation for evaluation and one for training.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import reference
import torch_names

from painformer_jax.models import functional
from painformer_jax.models.registry import make_config

GATES = ('fft', 'dft')


@pytest.fixture(scope='module')
def expected():
  with np.load(reference.FOLDER / 'painformer_seed0.npz') as file:
    return dict(file)


@pytest.fixture(scope='module')
def arrays():
  """The reference weights, with the 1000-way head."""
  return jax.device_put(torch_names.variables(reference.state_dict()))


def config_of(gate):
  return make_config('painformer', num_classes=1000, gate=gate)


def images(seed):
  return reference.images(4, seed).transpose(0, 2, 3, 1)


def released(name: str) -> str:
  """Path of the array that the release calls so."""
  return torch_names.path(name, len(reference.manifest()[name]))


def largest(actual, wanted) -> float:
  actual = np.asarray(actual)
  assert actual.shape == wanted.shape
  return float(np.max(np.abs(actual.astype(np.float64) - wanted)))


# --- evaluation mode ---------------------------------------------------------


@pytest.fixture(scope='module', params=GATES)
def evaluated(request, arrays):
  """Gate and everything the model can return."""
  config = config_of(request.param)

  @jax.jit
  def run(arrays, x):
    return functional.from_variables(config, arrays)(x, attention=True, stages=True)

  return request.param, jax.device_get(run(arrays, images(0)))


def test_embedding_logits_and_tokens(evaluated, expected, measured):
  gate, output = evaluated
  for name, limit in ('embedding', 1e-5), ('logits', 1e-5), ('tokens', 2e-5):
    error = largest(getattr(output, name), expected[f'eval/{name}'])
    measured(f'{name}, {gate}', error, limit=limit)


@pytest.mark.parametrize('stage', [1, 2, 3, 4])
def test_every_stage(evaluated, expected, measured, stage):
  gate, output = evaluated
  tokens = output.stages[stage - 1]
  tokens = tokens.reshape(4, -1, tokens.shape[-1])
  rows = tokens[:, :: tokens.shape[1] // 7]
  mean = tokens.mean(1)
  measured(
    f'stage {stage}, mean over tokens, {gate}',
    largest(mean, expected[f'eval/stage{stage}_mean']),
    limit=2e-5,
  )
  measured(
    f'stage {stage}, every {tokens.shape[1] // 7}th token, {gate}',
    largest(rows, expected[f'eval/stage{stage}_rows']),
    limit=2e-5,
  )


def test_attention_maps(evaluated, expected, measured):
  gate, output = evaluated
  maps = output.attention
  assert len(maps) == expected['eval/attention_count'] == 15
  assert [m.shape for m in maps] == [(4, 10, 196, 196)] * 12 + [(4, 16, 49, 49)] * 3
  for m in maps:
    np.testing.assert_allclose(m.sum(-1), 1, atol=1e-5)
  measured(
    f'first attention map, {gate}',
    largest(maps[0][:, :, ::28], expected['eval/attention_first']),
    limit=1e-6,
  )
  measured(
    f'last attention map, {gate}', largest(maps[-1], expected['eval/attention_last']), limit=1e-6
  )


# --- training mode -----------------------------------------------------------


@functools.cache
def gradients(gate):
  """(parameters, statistics, images, labels) -> loss, new statistics, gradients."""
  config = config_of(gate)

  def loss(parameters, statistics, x, labels):
    output, new = functional.apply_train(config, {**parameters, **statistics}, x)
    log_p = jax.nn.log_softmax(output.logits)
    value = -jnp.take_along_axis(log_p, labels[:, None], axis=1).mean()
    return value, {path: new[path] for path in statistics}

  return jax.jit(jax.value_and_grad(loss, has_aux=True))


def split(arrays):
  """Parameters, running statistics."""
  paths = functional.parameter_paths(config_of('fft'))
  return (
    {k: v for k, v in arrays.items() if k in paths},
    {k: v for k, v in arrays.items() if k not in paths},
  )


@pytest.fixture(scope='module', params=GATES)
def trained(request, arrays, expected):
  """Gate, loss, running statistics and gradients of one training step."""
  (loss, statistics), gradient = gradients(request.param)(
    *split(arrays), images(0), expected['train/labels']
  )
  return request.param, float(loss), statistics, gradient


def test_training_loss(trained, expected, measured):
  gate, loss, _, _ = trained
  measured(f'training loss, {gate}', abs(loss - expected['train/loss']), limit=1e-5)


def test_gradient_norm_of_every_parameter(trained, expected, measured):
  gate, _, _, gradient = trained
  names = [str(name) for name in expected['train/grad_names']]
  assert {released(name) for name in names} == gradient.keys() and len(names) == 366
  norms = [np.linalg.norm(np.asarray(gradient[released(name)], np.float64)) for name in names]
  relative = np.abs(norms / expected['train/grad_norms'] - 1)
  worst = names[relative.argmax()]
  measured(f'gradient norms, relative (worst: {worst}), {gate}', relative.max(), limit=2e-4)


def test_gradient_samples(trained, expected, measured):
  gate, _, _, gradient = trained
  samples = {
    'train/grad_spectral_b1_0': gradient['block1/0/attn/complex_weight'][::8, ::4, ::8],
    'train/grad_qkv_b4_2': gradient['block4/2/attn/kv/kernel'].T[::16, ::16],
  }
  for name, sample in samples.items():
    scale = np.abs(expected[name]).max()
    measured(
      f'{name.removeprefix("train/")}, over its largest value, {gate}',
      largest(sample, expected[name]) / scale,
      limit=2e-4,
    )


def test_running_statistics_after_one_step(trained, arrays, expected, measured):
  gate, _, statistics, _ = trained
  names = [name for name in expected if name.startswith('train/after/')]
  errors = []
  for name in names:
    path = released(name.removeprefix('train/after/'))
    errors.append(largest(statistics[path], expected[name]))
    assert largest(arrays[path], expected[name]) > 1e-3, 'the step moved nothing'
  assert len(errors) == 6
  assert {int(v) for k, v in statistics.items() if k.endswith('count')} == {1}
  measured(f'running statistics, {gate}', max(errors), limit=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('gate', GATES)
def test_ten_steps_of_sgd(gate, arrays, expected, measured):
  parameters, statistics = split(arrays)
  update = jax.jit(lambda p, g: jax.tree.map(lambda p, g: p - 1e-3 * g, p, g))
  losses = []
  for step in range(10):
    labels = (np.arange(4) * 53 + step) % 1000
    (loss, statistics), gradient = gradients(gate)(
      parameters, statistics, images(1000 + step), labels
    )
    parameters = update(parameters, gradient)
    losses.append(float(loss))
  measured(f'ten losses of SGD, {gate}', largest(losses, expected['sgd/loss']), limit=2e-5)
