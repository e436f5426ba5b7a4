"""Embedding-Mixer and Video-Encoder: equations, masks, sizes, presets."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import mixer_numpy
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.assessment.mixers import cost
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer, embedding_mixer_config, perceiver
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig
from painformer_jax.models.perceiver import Dropout, fourier_features

# Preset -> parameters; embeddings of a sample, multiply-adds of linear layers on
# them, and with attention products. A preset without a row fails.
SIZES = {
  'mixer_published': (10_147_898, 1, 2_554_725_376, 2_907_046_912),
  'mixer_laptop': (82_358, 4, 318_016, 324_160),
  'video_encoder_published': (3_372_868, 138, 861_671_424, 1_585_188_864),
  'video_encoder_laptop': (21_442, 138, 1_561_984, 1_597_312),
}

TINY = EmbeddingMixerConfig(
  outputs=3,
  input_width=5,
  tokens='vector',
  positions=4,
  latents=3,
  width=8,
  cross_head_width=6,
  self_heads=2,
  self_head_width=4,
  self_attentions=1,
  mlp_ratio=2,
  depth=1,
)
CODE = dataclasses.replace(TINY, outputs=4, self_attentions=0)
CASES = {
  'vectors': TINY,
  'scalars': dataclasses.replace(TINY, tokens='scalar'),
  'figure': dataclasses.replace(TINY, depth=2, self_attentions=2, self_heads=8, self_head_width=2),
  'no positions': dataclasses.replace(TINY, bands=0),
  'two cross heads': dataclasses.replace(TINY, cross_heads=2, positions=1),
  'many latents': dataclasses.replace(TINY, latents=20),
  'narrow': dataclasses.replace(TINY, tokens='scalar', bands=1, cross_head_width=16),
  'narrow, two heads': dataclasses.replace(
    TINY, tokens='scalar', bands=1, cross_heads=2, cross_head_width=16, latents=20
  ),
  'code, vectors': dataclasses.replace(TINY, encoder=CODE, encoder_tokens=2),
  'code, scalars': dataclasses.replace(
    TINY, tokens='scalar', encoder=dataclasses.replace(CODE, tokens='scalar'), encoder_tokens=2
  ),
  'narrow code': dataclasses.replace(
    TINY,
    tokens='scalar',
    bands=1,
    cross_head_width=12,
    encoder=dataclasses.replace(CODE, tokens='scalar', bands=1),
    encoder_tokens=2,
  ),
}


@functools.cache
def drawn(config, seed=0):
  """NumPy arrays that fit a config: they may be asked for within a trace first."""
  rng = np.random.default_rng(seed)
  return {
    path: rng.normal(path.endswith('scale'), 0.4, a.shape).astype(a.dtype)
    for path, a in embedding_mixer.abstract_parameters(config).items()
  }


@functools.cache
def compiled(config):
  return jax.jit(lambda arrays, x, mask: embedding_mixer.from_parameters(config, arrays)(x, mask))


def run(config, x, mask=None, seed=0):
  return np.asarray(compiled(config)(drawn(config, seed), x, mask))


def embeddings(batch=4, tokens=4, width=5, seed=0):
  return np.random.default_rng(seed).standard_normal((batch, tokens, width), np.float32)


def some_mask():
  return np.array([[1, 1, 1, 1], [1, 0, 1, 0], [0, 0, 1, 1], [0, 0, 0, 0]], bool)


# --- the equations -----------------------------------------------------------


@pytest.mark.parametrize('name', CASES)
def test_equals_plain_numpy(name, measured):
  config, x = CASES[name], embeddings()
  wanted = mixer_numpy.mixer(config, drawn(config), x)
  assert np.std(wanted) > 0.1
  measured(f'Mixer, {name}', np.abs(run(config, x) - wanted).max(), limit=1e-5)
  masked = mixer_numpy.mixer(config, drawn(config), x, some_mask())
  assert np.abs(masked - wanted)[1:].max() > 1e-3
  measured(f'Mixer, {name}, masked', np.abs(run(config, x, some_mask()) - masked).max(), limit=1e-5)


def test_positions_are_those_of_the_formula():
  found = fourier_features(7, positions=5, bands=6, max_frequency=10.0)
  assert found.shape == (7, 13) and found.dtype == np.float32
  np.testing.assert_allclose(
    found, mixer_numpy.positions(7, of=5, bands=6, max_frequency=10.0), atol=1e-6
  )
  np.testing.assert_allclose(found[:, -1], [-1, -0.5, 0, 0.5, 1, 1.5, 2], atol=1e-7)
  # Few or many tokens: a position stays what it is.
  np.testing.assert_array_equal(
    found[:3], fourier_features(3, positions=5, bands=6, max_frequency=10.0)
  )
  assert fourier_features(3, positions=1, bands=0, max_frequency=10.0).shape == (3, 0)


# --- masks -------------------------------------------------------------------


@pytest.mark.parametrize('name', CASES)
def test_what_is_masked_changes_nothing(name):
  config, x, mask = CASES[name], embeddings(), some_mask()
  plain = run(config, x, mask)
  for rubbish in (1e30, np.nan, np.inf, -3.0):
    np.testing.assert_array_equal(plain, run(config, np.where(mask[:, :, None], x, rubbish), mask))
  assert np.isfinite(plain).all()
  # A sample whose tokens are all masked still has an answer, the same for all.
  nothing = run(config, x, np.zeros_like(mask))
  assert np.isfinite(nothing).all() and np.ptp(nothing, axis=0).max() == 0
  np.testing.assert_array_equal(nothing[3], plain[3])


@pytest.mark.parametrize('name', ['vectors', 'many latents', 'narrow'])
def test_gradients_do_not_see_what_is_masked(name):
  """Attention is written in two ways, by the number of latents; one sample has no token."""
  config, x, mask = CASES[name], embeddings(), some_mask()

  @jax.jit
  def gradients(x):
    loss = lambda arrays, x: jnp.square(
      embedding_mixer.from_parameters(config, arrays)(x, mask)
    ).sum()
    return jax.grad(loss, argnums=(0, 1))(drawn(config), x)

  plain, rubbish = gradients(x), gradients(np.where(mask[:, :, None], x, np.nan))
  for a, b in zip(jax.tree.leaves(plain), jax.tree.leaves(rubbish), strict=True):
    assert np.isfinite(a).all()
    np.testing.assert_array_equal(a, b)
  assert np.abs(plain[1][~mask]).max() == 0 and np.abs(plain[1][mask]).min() > 0


@pytest.mark.parametrize(
  'name', ['narrow', pytest.param('narrow, two heads', marks=pytest.mark.slow), 'narrow code']
)
def test_narrow_contexts_change_no_gradient(name, measured, monkeypatch):
  """Against keys and values worked out; masks included."""
  config, x, mask = CASES[name], embeddings(), some_mask()

  def gradients():
    loss = lambda arrays, x: jnp.square(
      embedding_mixer.from_parameters(config, arrays)(x, mask)
    ).sum()
    return jax.jit(lambda *args: jax.grad(loss, argnums=(0, 1))(*args))(drawn(config), x)

  found, calls = gradients(), []
  monkeypatch.setattr(perceiver, 'is_narrow', lambda *args, **kwargs: calls.append(args))
  wanted = gradients()
  assert len(calls) > config.depth
  for (path, a), b in zip(jax.tree.leaves_with_path(found), jax.tree.leaves(wanted), strict=True):
    measured(
      f'gradient, {name}, {jax.tree_util.keystr(path)}',
      np.abs(a - b).max() / np.abs(b).max(),
      limit=1e-5,
    )


def test_no_samples():
  assert run(TINY, embeddings(batch=0)).shape == (0, 3)


@pytest.mark.parametrize('name', ['vectors', 'scalars'])
def test_padding_with_masked_tokens_changes_rounding_at_most(name, measured):
  config, x = CASES[name], embeddings(tokens=3)
  padded = np.concatenate([x, np.full((4, 2, 5), 9, np.float32)], axis=1)
  mask = np.arange(5) < 3
  measured(
    f'Mixer, padded, {name}',
    np.abs(run(config, x) - run(config, padded, np.tile(mask, (4, 1)))).max(),
    limit=2e-6,
  )


def test_place_of_a_token_matters_only_with_positions():
  x = embeddings()
  assert np.abs(run(TINY, x) - run(TINY, x[:, ::-1])).max() > 1e-3
  bare = CASES['no positions']
  np.testing.assert_allclose(run(bare, x), run(bare, x[:, ::-1]), atol=2e-6)


@pytest.mark.parametrize(
  'name, shape, mask, message',
  [
    ('vectors', (2, 4, 6), None, 'takes .batch, 1 or more tokens, 5.'),
    ('vectors', (2, 5), None, 'have shape'),
    ('vectors', (2, 0, 5), None, '1 or more'),
    ('code, vectors', (2, 2, 5), None, '3 or more'),
    ('vectors', (2, 4, 5), (2, 3), 'mask has shape'),
  ],
)
def test_other_shapes_are_refused(name, shape, mask, message):
  config = CASES[name]
  with pytest.raises(ValueError, match=message):
    jax.eval_shape(
      compiled(config),
      drawn(config),
      jnp.zeros(shape),
      None if mask is None else jnp.ones(mask, bool),
    )


# --- training mode -----------------------------------------------------------


def test_dropout_needs_a_key_and_follows_it():
  x = embeddings()
  train = jax.jit(lambda key: embedding_mixer.apply_train(TINY, drawn(TINY), x, key=key))
  first = train(jax.random.key(0))
  np.testing.assert_array_equal(first, train(jax.random.key(0)))
  assert np.abs(first - train(jax.random.key(1))).max() > 1e-3
  assert np.abs(first - run(TINY, x)).max() > 1e-3
  with pytest.raises(ValueError, match='needs key'):
    embedding_mixer.apply_train(TINY, drawn(TINY), x, key=None)
  off = dataclasses.replace(TINY, dropout=0.0)
  np.testing.assert_allclose(
    embedding_mixer.apply_train(off, drawn(TINY), x, key=None), run(TINY, x), atol=5e-6
  )


def test_dropout_drops_its_share_and_keeps_the_mean():
  dropout, ones = Dropout(0.1), jnp.ones(1 << 18)
  y = np.asarray(dropout(ones, jax.random.bits(jax.random.key(3), ones.shape, jnp.uint8)))
  assert (y == 0).mean() == pytest.approx(26 / 256, abs=0.003)
  assert y.mean() == pytest.approx(1, abs=0.005)
  dropout.eval()
  np.testing.assert_array_equal(dropout(ones, None), ones)


def test_fresh_arrays_follow_the_seed_and_fill_every_path():
  first, other = (
    embedding_mixer.initial_parameters(TINY, 0),
    embedding_mixer.initial_parameters(TINY, 1),
  )
  shapes = {
    path: (a.shape, a.dtype) for path, a in embedding_mixer.abstract_parameters(TINY).items()
  }
  assert {path: (a.shape, a.dtype) for path, a in first.items()} == shapes
  assert all((first[p] != other[p]).any() for p in first if p.endswith('kernel') or p == 'latents')
  # The same distribution as that of the module's own constructor.
  wide = dataclasses.replace(TINY, latents=64, width=64, input_width=64)
  own = nnx.to_flat_state(
    nnx.state(embedding_mixer.EmbeddingMixer(wide, rngs=nnx.Rngs(0)), nnx.Param)
  )
  drawn_at_once = embedding_mixer.initial_parameters(wide, jax.random.key(5))
  for keys, leaf in own:
    path = '/'.join(map(str, keys))
    assert np.std(drawn_at_once[path]) == pytest.approx(float(np.std(leaf[...])), rel=0.2), path
    assert np.mean(drawn_at_once[path]) == pytest.approx(float(np.mean(leaf[...])), abs=0.1), path
  with pytest.raises(KeyError, match='latents'):
    embedding_mixer.from_parameters(TINY, {p: a for p, a in first.items() if p != 'latents'})


# --- sizes -------------------------------------------------------------------


@pytest.mark.parametrize('name', embedding_mixer_config.PRESETS)
def test_preset_has_the_size_in_the_table(name):
  assert name in SIZES, f'{name} has no row in the table'
  parameters, tokens, linear, multiply_adds = SIZES[name]
  preset = embedding_mixer_config.PRESETS[name]
  found = cost.size(preset.config, tokens=tokens)
  arrays = embedding_mixer.abstract_parameters(preset.config)
  assert sum(math.prod(a.shape) for a in arrays.values()) == parameters
  assert (found.parameters, found.linear, found.multiply_adds) == (
    parameters,
    linear,
    multiply_adds,
  )
  assert preset.parameters == parameters and preset.evidence


def test_table_has_no_stale_rows():
  assert SIZES.keys() == embedding_mixer_config.PRESETS.keys()


def test_published_presets_are_near_what_was_reported():
  parameters, _, _, multiply_adds = SIZES['mixer_published']
  assert parameters / 9.85e6 == pytest.approx(1.030, abs=5e-4)
  assert multiply_adds / 2.94e9 == pytest.approx(0.989, abs=5e-4)
  parameters, _, linear, _ = SIZES['video_encoder_published']
  assert round(parameters / 1e6, 2) == 3.37 and round(linear / 1e9, 2) == 0.86
  for name in ('mixer_published', 'mixer_laptop'):
    config = embedding_mixer_config.PRESETS[name].config
    assert (config.depth, config.cross_heads, config.self_attentions, config.self_heads) == (
      2,
      1,
      2,
      8,
    )
  for name in ('video_encoder_published', 'video_encoder_laptop'):
    config = embedding_mixer_config.PRESETS[name].config
    assert (config.depth, config.cross_heads, config.self_attentions, config.outputs) == (
      1,
      1,
      0,
      40,
    )


@settings(max_examples=10, deadline=None)
@given(st.sampled_from(list(CASES)), st.integers(1, 9), st.integers(1, 3), st.integers(0, 2))
def test_counted_parameters_are_those_of_the_arrays(name, width, ratio, attentions):
  config = dataclasses.replace(
    CASES[name], width=width, mlp_ratio=ratio, self_attentions=attentions
  )
  arrays = embedding_mixer.abstract_parameters(config)
  assert cost.size(config, tokens=5).parameters == sum(math.prod(a.shape) for a in arrays.values())


@pytest.mark.parametrize(
  'name, tokens, most',
  [('mixer_published', 1, 1.05), ('video_encoder_published', 138, 1.2), ('mixer_laptop', 4, 1.35)],
)
def test_counted_multiply_adds_are_those_of_the_compiler(name, tokens, most, monkeypatch):
  """Of the program before optimisation; it counts elementwise work too.

  That is a share of what a small network does. Narrow contexts take less than counted.
  """
  config = embedding_mixer_config.PRESETS[name].config

  def compiled_flops():
    shape = jax.ShapeDtypeStruct((2, tokens, config.input_width), jnp.float32)
    lowered = jax.jit(lambda arrays, x: embedding_mixer.from_parameters(config, arrays)(x)).lower(
      embedding_mixer.abstract_parameters(config), shape
    )
    return lowered.cost_analysis()['flops'] / 2

  counted = 2 * cost.size(config, tokens=tokens).multiply_adds
  if name != 'mixer_laptop':
    assert compiled_flops() < 0.9 * counted
    monkeypatch.setattr(perceiver, 'is_narrow', lambda *args, **kwargs: False)
  assert 0.98 * counted < compiled_flops() < most * counted


# --- configs -----------------------------------------------------------------


@pytest.mark.parametrize(
  'field, value',
  [
    ('outputs', 0),
    ('latents', 0),
    ('tokens', 'words'),
    ('dtype', 'float16'),
    ('dropout', 1.0),
    ('bands', -1),
    ('encoder_tokens', 2),
    ('encoder', EmbeddingMixerConfig(input_width=7)),
  ],
)
def test_bad_field_is_named(field, value):
  with pytest.raises(InputError, match=f'mixer_laptop.*{field}'):
    embedding_mixer_config.make_config('mixer_laptop', **{field: value})


def test_encoder_of_another_width_is_refused():
  with pytest.raises(ValueError, match='encoder takes embeddings of width 7'):
    dataclasses.replace(TINY, encoder=EmbeddingMixerConfig(input_width=7), encoder_tokens=1)


def test_unknown_names_list_the_known():
  with pytest.raises(InputError, match='known: mixer_published, mixer_laptop'):
    embedding_mixer_config.make_config('mixer')
  with pytest.raises(InputError, match="no field 'latent'"):
    embedding_mixer_config.make_config('mixer_laptop', latent=3)


@pytest.mark.parametrize('name', ['vectors', 'many latents'])
def test_bfloat16_stays_near_float32(name):
  half = dataclasses.replace(CASES[name], dtype='bfloat16')
  x = embeddings()
  out = run(half, x)
  assert out.dtype == np.float32
  assert 1e-5 < np.abs(out - run(CASES[name], x)).max() < 0.15
