"""Fusion against plain loops over numbers, and what the Mixer makes of it."""

import dataclasses

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.mixers import fusion
from painformer_jax.assessment.mixers import inputs as mixer_inputs
from painformer_jax.assessment.mixers.fusion import FusionConfig, decide
from painformer_jax.assessment.mixers.inputs import assemble
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig

WIDTH = 3


def tokens(count, *, samples=6, seed=0, present=0.7, name='x'):
  """Random embeddings, some of them missing."""
  rng = np.random.default_rng([seed, count, samples])
  mask = rng.random((samples, count)) < present
  values = rng.normal(size=(samples, count, WIDTH)).astype(np.float32)
  return Tokens(
    values=np.where(mask[..., None], values, np.float32(np.nan)),
    mask=mask,
    labels=tuple(f'{name} {k}' for k in range(count)),
  )


def plain_sum(vectors, *, of, scale):
  """One vector from the list of those that are there; None where there is none."""
  if not vectors:
    return None
  total = [0.0] * WIDTH
  for vector in vectors:
    for k in range(WIDTH):
      total[k] += float(vector[k])
  factor = {'mean': 1, 'sum': of}[scale] / len(vectors)
  return [factor * value for value in total]


def plain_within(part, sample, scale):
  count = part.mask.shape[1]
  return plain_sum(
    [part.values[sample, k] for k in range(count) if part.mask[sample, k]], of=count, scale=scale
  )


def plain_fusion(config, parts, sample):
  """For each Mixer the list of a sample's tokens, None for one that is masked."""
  named = [parts[name] for name in config.modalities]
  row = [
    part.values[sample, k] if part.mask[sample, k] else None
    for part in named
    for k in range(part.mask.shape[1])
  ]
  within = {name: plain_within(parts[name], sample, config.scale) for name in config.modalities}
  if config.kind == 'concat':
    return [row]
  if config.kind == 'add':
    return [[plain_sum([v for v in row if v is not None], of=len(row), scale=config.scale)]]
  if config.kind == 'fusion-1':
    return [
      [plain_sum([v for v in within.values() if v is not None], of=len(named), scale=config.scale)]
    ]
  if config.kind == 'fusion-2':
    return [[vector] for vector in within.values()]
  coded = [parts[name] for name in config.modalities if name in config.coded]
  frames = []
  for k in range(coded[0].mask.shape[1]):
    there = [part.values[sample, k] for part in coded if part.mask[sample, k]]
    frames.append(plain_sum(there, of=len(coded), scale=config.scale))
  return [frames + [within[name] for name in config.modalities if name not in config.coded]]


@st.composite
def fusions(draw):
  """A config, and embeddings of its modalities (and of one more) that fit it."""
  kind = draw(st.sampled_from(fusion.KINDS))
  names = draw(
    st.lists(st.sampled_from('abcd'), min_size=1 + (kind == 'fusion-n'), max_size=4, unique=True)
  )
  coded = ()
  if kind == 'fusion-n':
    coded = tuple(names[: draw(st.integers(1, len(names) - 1))])
    names = draw(st.permutations(names))
  frames = draw(st.integers(1, 5))
  samples = draw(st.integers(1, 5))
  parts = {
    name: tokens(
      frames if name in coded else draw(st.integers(1, 5)),
      samples=samples,
      seed=ord(name),
      present=draw(st.sampled_from((0.0, 0.5, 1.0))),
      name=name,
    )
    for name in [*names, 'u']
  }
  config = FusionConfig(
    kind=kind, modalities=tuple(names), coded=coded, scale=draw(st.sampled_from(('mean', 'sum')))
  )
  return config, parts


@settings(deadline=None, max_examples=150)
@given(fusions(), st.integers(1, 400))
def test_every_fusion_is_that_of_plain_loops(case, bytes_at_once):
  config, parts = case
  before, mixer_inputs._BYTES_AT_ONCE = mixer_inputs._BYTES_AT_ONCE, bytes_at_once
  try:
    inputs = assemble(config, parts)
  finally:
    mixer_inputs._BYTES_AT_ONCE = before
  samples = len(parts['u'].values)
  for sample in range(samples):
    plain = plain_fusion(config, parts, sample)
    assert len(plain) == len(inputs)
    for vectors, result in zip(plain, inputs):
      assert result.mask[sample].tolist() == [v is not None for v in vectors]
      want = [[np.nan] * WIDTH if v is None else v for v in vectors]
      np.testing.assert_allclose(result.values[sample], want, rtol=1e-5, atol=1e-6)
  for result in inputs:
    assert result.values.dtype == np.float32 and result.mask.dtype == bool
    assert result.values.shape == (*result.mask.shape, WIDTH)
    assert len(result.labels) == result.values.shape[1]
    assert result.there.tolist() == [any(row) for row in result.mask.tolist()]
  frames = parts[config.coded[0]].values.shape[1] if config.coded else 0
  assert [i.encoder_tokens for i in inputs] == [frames] * len(inputs)


def three():
  return {
    'rgb': tokens(5, name='rgb'),
    'thermal': tokens(5, seed=1, name='thermal'),
    'gsr': tokens(2, seed=2, name='gsr'),
  }


NAMES = ('rgb', 'thermal', 'gsr')


def test_names_and_labels_say_what_each_token_is():
  def of(kind, **options):
    return [
      (i.name, i.labels)
      for i in assemble(FusionConfig(kind=kind, modalities=NAMES, **options), three())
    ]

  frames = tuple(f'rgb {k}' for k in range(5))
  assert of('add') == of('fusion-1') == [('rgb+thermal+gsr', ('rgb+thermal+gsr',))]
  assert of('fusion-2') == [(name, (name,)) for name in NAMES]
  assert of('fusion-n', coded=('rgb', 'thermal')) == [('rgb+thermal+gsr', (*frames, 'gsr'))]
  [(name, labels)] = of('concat')
  assert labels[:5] == frames and labels[-2:] == ('gsr 0', 'gsr 1') and len(labels) == 12


def test_a_sample_without_any_token_is_masked_by_every_fusion():
  parts = three()
  for part in parts.values():
    part.mask[2], part.values[2] = False, np.nan
  for kind in fusion.KINDS:
    coded = ('rgb', 'thermal') if kind == 'fusion-n' else ()
    for result in assemble(FusionConfig(kind=kind, modalities=NAMES, coded=coded), parts):
      assert not result.mask[2].any() and np.isnan(result.values[2]).all()
      assert not result.there[2]


def test_a_single_modality_in_a_row_stays_on_disk(tmp_path):
  part = three()['rgb']
  np.save(tmp_path / 'values.npy', part.values)
  mapped = dataclasses.replace(part, values=np.load(tmp_path / 'values.npy', mmap_mode='r'))
  [result] = assemble(FusionConfig(kind='concat', modalities=('rgb',)), {'rgb': mapped})
  assert result.values is mapped.values


# --- decisions ---------------------------------------------------------------


def plain_decision(logits, there, how):
  """Of one sample: the mean over the Mixers that have a say."""
  voices = [own for own, t in zip(logits, there) if t] or list(logits)
  if how == 'logits':
    return np.mean(voices, axis=0)
  shares = [np.exp(v - v.max()) / np.exp(v - v.max()).sum() for v in voices]
  return np.log(np.mean(shares, axis=0))


@settings(deadline=None, max_examples=100)
@given(
  st.integers(2, 4),
  st.integers(0, 2),
  st.sampled_from(['probabilities', 'logits']),
  st.integers(0, 999),
)
def test_decisions_are_plain_means(mixers, seeds, how, seed):
  rng = np.random.default_rng(seed)
  shape = (seeds, 5, 3) if seeds else (5, 3)
  logits = rng.normal(0, 3, (mixers, *shape)).astype(np.float32)
  there = rng.random((mixers, 5)) < 0.6
  config = FusionConfig(kind='fusion-2', decision=how)
  said = decide(config, list(logits), there=list(there))
  assert said.shape == shape and said.dtype == np.float32
  for place in np.ndindex(shape[:-1]):
    want = plain_decision(logits[(slice(None), *place)], there[:, place[-1]], how)
    np.testing.assert_allclose(said[place], want, rtol=1e-4, atol=1e-5)
  np.testing.assert_array_equal(
    decide(config, list(logits)), decide(config, list(logits), there=np.ones((mixers, 5), bool))
  )


def test_probabilities_and_logits_can_decide_differently():
  sure = [np.array([[-20.0, 0, 0]]), np.array([[3.0, 0, 0]]), np.array([[3.0, 0, 0]])]
  joined = {
    how: decide(FusionConfig(kind='fusion-2', decision=how), sure).argmax()
    for how in ('probabilities', 'logits')
  }
  assert joined == {'probabilities': 0, 'logits': 1}
  assert np.exp(decide(FusionConfig(kind='fusion-2'), sure)).sum() == pytest.approx(1)


def test_decisions_stay_finite_and_one_stays_as_it_is():
  config = FusionConfig(kind='fusion-2')
  extreme = np.array([[2000.0, -2000.0]], np.float32)
  assert np.isfinite(decide(config, [extreme, extreme])).all()
  np.testing.assert_array_equal(decide(config, [extreme]), extreme)


# --- the Mixer ---------------------------------------------------------------

SMALL = EmbeddingMixerConfig(
  tokens='vector',
  latents=2,
  width=8,
  cross_head_width=4,
  self_heads=2,
  self_head_width=4,
  dropout=0.0,
  bands=2,
  self_attentions=1,
)
CODE = dataclasses.replace(SMALL, outputs=4, depth=1, self_attentions=0)


@pytest.mark.parametrize('kind', ['concat', 'fusion-n'])
def test_a_mixer_fits_every_fusion_and_ignores_what_is_not_there(kind):
  coded = ('rgb', 'thermal') if kind == 'fusion-n' else ()
  inputs = assemble(FusionConfig(kind=kind, modalities=NAMES, coded=coded), three())
  one = inputs[0]
  config = one.fitted(SMALL, encoder=CODE if coded else None)
  assert config.input_width == WIDTH
  assert config.positions == one.values.shape[1] - one.encoder_tokens
  assert config.encoder_tokens == one.encoder_tokens == (5 if coded else 0)
  if coded:
    assert config.encoder == dataclasses.replace(CODE, input_width=WIDTH, positions=5)
  network = embedding_mixer.from_parameters(config, embedding_mixer.initial_parameters(config, 0))
  run = jax.jit(lambda x, mask: network(x, mask))
  filled = np.where(one.mask[..., None], one.values, 7.0)
  said = np.asarray(run(one.values, one.mask))
  assert np.isfinite(said).all() and said.shape == (6, 2)
  np.testing.assert_array_equal(said, np.asarray(run(filled, one.mask)))
  moved = np.where(np.arange(6)[:, None, None] == 1, one.values + 1, one.values)
  changed = np.abs(np.asarray(run(moved, one.mask)) - said).max(axis=1) > 1e-6
  assert changed.tolist() == [False, bool(one.there[1]), False, False, False, False]


def test_a_fitted_config_drops_an_encoder_that_has_no_tokens():
  with_encoder = dataclasses.replace(SMALL, encoder=CODE, input_width=160, encoder_tokens=3)
  [one] = assemble(FusionConfig(kind='add', modalities=NAMES), three())
  assert one.fitted(with_encoder) == dataclasses.replace(SMALL, input_width=WIDTH, positions=1)


def test_fusion_n_needs_an_encoder():
  [one] = assemble(FusionConfig(kind='fusion-n', modalities=NAMES, coded=('rgb',)), three())
  with pytest.raises(InputError, match='needs the sizes of a Video-Encoder'):
    one.fitted(SMALL)


# --- what does not fit -------------------------------------------------------


@pytest.mark.parametrize(
  'fields, message',
  [
    (dict(kind='fusion-3'), "kind 'fusion-3' is none of add, concat, fusion-1"),
    (dict(scale='max'), "scale 'max' is none of mean, sum"),
    (dict(decision='vote'), "decision 'vote' is none of probabilities, logits"),
    (dict(modalities=()), 'one or more, each once'),
    (dict(modalities=('gsr', 'gsr')), 'one or more, each once'),
    (dict(coded=('gsr',)), 'coded modalities are for fusion-n, not for add'),
    (dict(kind='fusion-n', modalities=NAMES), 'coded must name one or more'),
    (dict(kind='fusion-n', modalities=NAMES, coded=NAMES), 'and not all'),
    (dict(kind='fusion-n', modalities=NAMES, coded=('ecg',)), 'coded must name one or more'),
  ],
)
def test_configs_that_do_not_fit(fields, message):
  with pytest.raises(InputError, match=message):
    FusionConfig(**fields)


def test_embeddings_that_do_not_fit_one_another():
  parts = three()
  with pytest.raises(InputError, match='no embeddings of ecg, only of rgb, thermal, gsr'):
    assemble(FusionConfig(modalities=('ecg', 'gsr')), parts)
  parts['gsr'] = tokens(2, samples=4)
  with pytest.raises(InputError, match='differ in samples or width: rgb 6 x 3, gsr 4 x 3'):
    assemble(FusionConfig(modalities=('rgb', 'gsr')), parts)
  parts = three()
  with pytest.raises(InputError, match='same number of tokens, not rgb 5, gsr 2'):
    assemble(FusionConfig(kind='fusion-n', modalities=NAMES, coded=('rgb', 'gsr')), parts)


@pytest.mark.parametrize(
  'logits, there',
  [
    ([], None),
    ([np.zeros((2, 3)), np.zeros((3, 3))], None),
    ([np.zeros((2, 3))] * 2, [np.ones(2, bool)]),
    ([np.zeros((2, 3))] * 2, [np.ones(3, bool)] * 2),
  ],
)
def test_decisions_that_do_not_fit(logits, there):
  with pytest.raises(InputError):
    decide(FusionConfig(kind='fusion-2'), logits, there=there)
