"""Fine-tuning inside: which layer learns how fast, fusion on the device, the compiled step."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from test_models import drawn

from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.mixers import cost, finetune_config, finetune_program, fusion
from painformer_jax.assessment.mixers.finetune_batches import choose, frames_a_step
from painformer_jax.assessment.mixers.finetune_config import FinetuneConfig
from painformer_jax.assessment.mixers.finetune_program import TunePlan
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.fusion import FusionConfig
from painformer_jax.assessment.mixers.inputs import assemble
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer, functional
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig
from painformer_jax.models.registry import make_config
from painformer_jax.parallel.mesh import data_mesh, put_batch, replicated
from painformer_jax.training.state import group

BACKBONE = make_config(
  'painformer_nano',
  widths=(8, 16),
  mixers=('s', 'a'),
  heads=(1, 2),
  mlp_ratios=(2, 2),
  image_size=16,
  stem_width=4,
)
MIXER = EmbeddingMixerConfig(
  outputs=2,
  input_width=16,
  tokens='vector',
  latents=2,
  width=8,
  cross_head_width=8,
  self_heads=2,
  self_head_width=4,
  depth=1,
  self_attentions=0,
  mlp_ratio=1,
)
FIT = FitConfig(model=MIXER, learning_rate=1e-2, warmup=0.0)
TOKENS = {'ecg': 3, 'gsr': 4}
BATCH, FRAMES = 8, 2
PAPER = make_config('painformer')


# --- rates -------------------------------------------------------------------


def test_each_layer_learns_slower_than_the_one_above():
  rates = finetune_config.learning_rates(FinetuneConfig(learning_rate=1.0, layer_decay=0.5), PAPER)
  assert rates.keys() == functional.parameter_paths(PAPER)
  layer = {path: round(-np.log2(rate)) for path, rate in rates.items()}
  assert layer['post_network/0/attn/q/kernel'] == layer['norm4/scale'] == 0
  assert layer['block4/2/mlp/fc1/kernel'] == 1
  assert layer['block4/0/norm1/scale'] == layer['patch_embed4/proj/kernel'] == 3
  assert layer['block3/11/attn/q/kernel'] == layer['norm3/bias'] == 4
  assert layer['block3/1/attn/q/kernel'] == 14
  assert layer['block1/0/attn/complex_weight'] == PAPER.depth == 22
  assert layer['patch_embed1/conv1/kernel'] == 23


def test_frozen_parts_have_no_rate():
  tune = FinetuneConfig(frozen=('(patch_embed|block|norm)[12]/.*', r'.*/dwconv/.*'))
  rates = finetune_config.learning_rates(tune, PAPER)
  assert rates and not any('dwconv' in path for path in rates)
  assert {path.split('/')[0] for path in rates} == {
    'patch_embed3',
    'block3',
    'norm3',
    'patch_embed4',
    'block4',
    'norm4',
    'post_network',
  }
  assert 'of 19,596,704 parameters of the backbone learn' in finetune_config.describe(rates, PAPER)


@pytest.mark.parametrize(
  'frozen, words', [(('blok1/.*',), "'blok1/.*' matches no parameter"), (('.*',), 'leaves nothing')]
)
def test_expressions_that_freeze_nothing_or_all(frozen, words):
  with pytest.raises(InputError, match=words.replace('*', r'\*')):
    finetune_config.learning_rates(FinetuneConfig(frozen=frozen), BACKBONE)


@pytest.mark.parametrize(
  'values',
  [
    dict(epochs=0),
    dict(batch=0),
    dict(frames=0),
    dict(images_at_once=-1),
    dict(readers=0),
    dict(learning_rate=-1.0),
    dict(layer_decay=0.0),
    dict(layer_decay=1.1),
    dict(frozen=('(',)),
  ],
)
def test_values_that_no_training_can_use(values):
  with pytest.raises(InputError, match=next(iter(values))):
    FinetuneConfig(**values)


@pytest.mark.parametrize('change', [{}, {'clip_norm': 0.5}, {'weight_decay': 0.7, 'b1': 0.8}])
def test_with_one_rate_for_all_the_optimizer_is_adamw(change):
  fit = dataclasses.replace(FIT, learning_rate=0.1, warmup=0.2, **change)
  rng = np.random.default_rng(0)
  draw = lambda: {
    path: np.float32(rng.normal(size=(3, 2)))
    for path in (
      'mixer0/latents',
      'mixer0/encoder/latents',
      'backbone/a/kernel',
      'backbone/a/bias',
      'backbone/a/complex_weight',
      'mixer0/norm/scale',
    )
  }
  ours = theirs = draw()
  own = finetune_program.make_optimizer(fit, dict.fromkeys(ours, 0.1), steps=20)
  adamw = optax.chain(
    optax.clip_by_global_norm(fit.clip_norm or np.inf),
    optax.adamw(
      optax.warmup_cosine_decay_schedule(0, 0.1, 4, 20, 0.1 * fit.end_learning_rate_ratio),
      b1=fit.b1,
      b2=fit.b2,
      weight_decay=fit.weight_decay,
      mask={p: p.endswith(('kernel', 'complex_weight')) for p in ours},
    ),
  )
  states = [own.init(ours), adamw.init(theirs)]
  start = ours
  for _ in range(6):
    gradients = draw()
    updates, states[0] = own.update(gradients, states[0], ours)
    ours = optax.apply_updates(ours, updates)
    updates, states[1] = adamw.update(gradients, states[1], theirs)
    theirs = optax.apply_updates(theirs, updates)
  for path in ours:
    np.testing.assert_allclose(ours[path], theirs[path], atol=1e-6)
    assert np.abs(ours[path] - start[path]).max() > 1e-2


def test_each_parameter_follows_its_own_rate():
  params = {'backbone/a/kernel': np.ones(2, np.float32), 'mixer0/a/kernel': np.ones(2, np.float32)}
  optimizer = finetune_program.make_optimizer(
    dataclasses.replace(FIT, weight_decay=0.0), dict(zip(params, (1e-4, 1e-2))), steps=10
  )
  updates, _ = optimizer.update(params, optimizer.init(params), params)
  np.testing.assert_allclose(updates['backbone/a/kernel'], -1e-4, rtol=1e-4)
  np.testing.assert_allclose(updates['mixer0/a/kernel'], -1e-2, rtol=1e-4)


# --- what a step sees --------------------------------------------------------


def test_images_are_chosen_among_those_there_each_as_often():
  mask = np.array([True, False, True, True, False, True])
  counts = np.zeros(6)
  for seed in range(300):
    chosen = choose(mask, 2, np.random.default_rng(seed))
    assert len(chosen) == 2 and chosen[0] < chosen[1] and mask[list(chosen)].all()
    counts[list(chosen)] += 1
  assert counts[mask].min() > 110  # Of 150 expected; deviation 9.
  assert choose(mask, 9, np.random.default_rng(0)) == (0, 2, 3, 5)
  assert choose(mask & False, 2, np.random.default_rng(0)) == ()


def test_no_more_room_than_images_there_are():
  part = lambda counts: Tokens(
    values=np.zeros((2, 4, 1)), labels=('',) * 4, mask=np.arange(4) < np.array(counts)[:, None]
  )
  assert frames_a_step({'a': part([1, 3]), 'b': part([0, 0])}, frames=8) == {'a': 3, 'b': 1}
  assert frames_a_step({'a': part([4, 3])}, frames=2) == {'a': 2}


# --- fusion ------------------------------------------------------------------


@pytest.mark.parametrize('scale', ['mean', 'sum'])
@pytest.mark.parametrize('kind', fusion.KINDS)
def test_fusion_on_the_device_is_that_of_embeddings(kind, scale):
  rng = np.random.default_rng(0)
  coded = ('a', 'b') if kind == 'fusion-n' else ()
  config = FusionConfig(kind=kind, modalities=('c', 'a', 'b'), coded=coded, scale=scale)
  tokens, parts = {}, {}
  for name, count in (('a', 3), ('b', 3), ('c', 2)):
    mask = rng.random((40, count)) < 0.5
    values = rng.normal(size=(40, count, 5)).astype(np.float32)
    tokens[name] = Tokens(
      values=np.where(mask[:, :, None], values, np.nan), mask=mask, labels=('',) * count
    )
    parts[name] = fusion.MaskedTokens(
      values=jnp.where(mask[:, :, None], values, 0), mask=jnp.asarray(mask)
    )
  wanted, found = assemble(config, tokens), fusion.fuse(config, parts, xp=jnp)
  assert len(found) == len(wanted) == (3 if kind == 'fusion-2' else 1)
  for one, other in zip(wanted, found):
    np.testing.assert_array_equal(other.mask, one.mask)
    np.testing.assert_allclose(
      np.where(one.mask[:, :, None], other.values, 0), np.nan_to_num(one.values), atol=1e-5
    )
    assert np.isfinite(other.values).all()


# --- the step ----------------------------------------------------------------


def make_plan(kind='fusion-2', **options):
  fits = (FIT, FIT) if kind == 'fusion-2' else (FIT,)
  return TunePlan(
    tokens=TOKENS,
    fits=fits,
    fusion=FusionConfig(kind=kind, modalities=('gsr', 'ecg')),
    **{'backbone': BACKBONE} | options,
  )


def make_batch(batch=BATCH):
  rng = np.random.default_rng(0)
  parts = {}
  for name, tokens in TOKENS.items():
    token = np.sort(np.argsort(rng.random((batch, tokens)), axis=1)[:, :FRAMES], axis=1)
    image = rng.integers(0, 256, (batch, FRAMES, 16, 16, 3), np.uint8)
    if name == 'ecg':
      token[0], token[1, 1] = tokens, tokens  # Not there.
    parts[name] = {'image': image, 'token': token.astype(np.int32)}
  return parts | {
    'label': np.arange(batch, dtype=np.int32) % 2,
    'weight': np.ones(batch, np.float32),
  }


FROZEN = FinetuneConfig(
  frozen=('(patch_embed|block|norm)1/.*',), learning_rate=1e-3, layer_decay=1.0
)


def one_step(plan, *, batch=None, devices=None, tune=FROZEN):
  """The state before and after, what stays, and the metrics."""
  arrays = {path: np.asarray(a) for path, a in drawn(BACKBONE).items()}
  learned = finetune_config.learning_rates(tune, BACKBONE)
  rates = {f'backbone/{path}': rate for path, rate in learned.items()} | {
    f'mixer{n}/{path}': 1e-2
    for n in range(len(plan.fits))
    for path in embedding_mixer.abstract_parameters(MIXER)
  }
  mesh = data_mesh(devices)
  optimizer = finetune_program.make_optimizer(FIT, rates, steps=10)
  state = finetune_program.initial_state(
    plan, optimizer, backbone={p: arrays[p] for p in learned}, key=np.array([0, 1], np.uint32)
  )
  before = jax.device_get(state)
  fixed = {path: a for path, a in arrays.items() if path not in learned}
  state = jax.device_put(state, replicated(mesh))
  after, metrics = finetune_program.make_step(plan, optimizer, mesh)(
    state, fixed, put_batch(mesh, make_batch() if batch is None else batch)
  )
  return before, jax.device_get(after), fixed, jax.device_get(metrics)


@pytest.fixture(scope='module')
def whole():
  return one_step(make_plan())


def moved(before, after):
  return {
    path: float(np.abs(after.params[path] - before.params[path]).max()) for path in before.params
  }


def test_everything_that_is_not_frozen_learns(whole):
  before, after, fixed, metrics = whole
  assert metrics['backbone_gradient_norm'] > 1e-4 and np.isfinite(metrics['loss'])
  by_path = moved(before, after)
  backbone = {path.split('/')[1] for path in by_path if path.startswith('backbone/')}
  assert backbone == {'patch_embed2', 'block2', 'norm2', 'post_network'}
  assert {path.split('/')[0] for path in by_path} == {'backbone', 'mixer0', 'mixer1'}
  # Where there is one token to attend to, what asks for it does not matter.
  asking = {f'mixer{n}/attentions/0/norm/{name}' for n in (0, 1) for name in ('bias', 'scale')}
  assert {path for path, distance in by_path.items() if not distance} == asking
  assert 'patch_embed1/bn1/mean' in fixed and 'block1/0/attn/complex_weight' in fixed
  assert after.step == 1


def furthest(state, other):
  """Gradients as the first moments hold them: largest difference over largest value."""
  ours, theirs = (found.opt_state[1].mu for found in (state, other))
  return max(
    np.abs(ours[path] - theirs[path]).max() / np.abs(theirs[path]).max()
    for path in theirs
    if np.abs(theirs[path]).max() > 1e-5
  )


@pytest.mark.parametrize(
  'batch, most, count',
  [(32, 0, 1), (32, 32, 1), (32, 31, 2), (32, 5, 8), (12, 5, 3), (7, 3, 7), (7, 1, 7)],
)
def test_microbatches_are_equal(batch, most, count):
  assert cost.count_microbatches(batch, most=most) == count


def test_pieces_give_the_gradient_of_the_whole(whole, measured):
  _, after, _, metrics = one_step(make_plan(images_at_once=5))
  _, expected, _, wanted = whole
  measured('loss in pieces', abs(metrics['loss'] - wanted['loss']), limit=1e-6)
  measured('gradient in pieces', furthest(after, expected), limit=1e-4)


@pytest.mark.slow
def test_half_precision_is_near(whole):
  _, after, _, metrics = one_step(
    make_plan(backbone=dataclasses.replace(BACKBONE, dtype='bfloat16'))
  )
  _, expected, _, wanted = whole
  assert 0 < abs(metrics['loss'] - wanted['loss']) < 0.02
  assert metrics['backbone_gradient_norm'] == pytest.approx(
    wanted['backbone_gradient_norm'], rel=0.1
  )
  assert {a.dtype for a in after.params.values()} == {np.dtype(np.float32)}


def test_what_is_not_there_changes_nothing(whole):
  batch = make_batch()
  batch['ecg']['image'][0] = 255
  batch['ecg']['image'][1, 1] = 0
  _, after, _, metrics = one_step(make_plan(), batch=batch)
  _, expected, _, wanted = whole
  assert metrics['loss'] == wanted['loss']
  for path in expected.params:
    np.testing.assert_array_equal(after.params[path], expected.params[path])


def spread():
  """On several devices, in pieces and whole."""
  found = {'devices': len(jax.devices())}
  for name, most in (('whole', 0), ('pieces', 3)):
    _, after, _, metrics = one_step(make_plan(images_at_once=most))
    found[name] = {
      'loss': float(metrics['loss']),
      'norm': float(metrics['backbone_gradient_norm']),
      'kernel': after.opt_state[1].mu['backbone/block2/0/mlp/fc1/kernel'].tolist(),
    }
  return found


@pytest.mark.slow
def test_eight_devices_step_as_one(whole, on_devices, measured):
  found = on_devices(8, spread)
  _, after, _, metrics = whole
  assert found.pop('devices') == 8
  wanted = after.opt_state[1].mu['backbone/block2/0/mlp/fc1/kernel']
  for name, each in found.items():
    measured(f'loss on 8 devices, {name}', abs(each['loss'] - metrics['loss']), limit=1e-5)
    measured(
      f'gradient norm on 8 devices, {name}',
      abs(each['norm'] / metrics['backbone_gradient_norm'] - 1),
      limit=1e-4,
    )
    measured(
      f'gradient on 8 devices, {name}',
      np.abs(np.array(each['kernel']) - wanted).max() / np.abs(wanted).max(),
      limit=1e-4,
    )


def test_every_parameter_has_a_decay_rule():
  paths = [f'backbone/{p}' for p in functional.parameter_paths(PAPER)]
  encoder = dataclasses.replace(MIXER, encoder=MIXER, encoder_tokens=1)
  paths += [f'mixer12/{p}' for p in embedding_mixer.abstract_parameters(encoder)]
  finetune_program.make_optimizer(FIT, dict.fromkeys(paths, 1.0), steps=2)
  assert group({'mixer12/encoder/latents': 1}, 'mixer12') == {'encoder/latents': 1}
