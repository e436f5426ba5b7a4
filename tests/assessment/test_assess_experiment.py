"""Who trains on what: folds, the choice of hyper-parameters, normalisation, fusion."""

import dataclasses
import types

import numpy as np
import pytest
from assessment_jobs import jobs, planned
from test_assess_config import plain

from painformer_jax.assessment.config import from_config_dict
from painformer_jax.assessment.datasets import demo_study
from painformer_jax.assessment.datasets.recordings import Locator, Sample, Study
from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.experiment import frozen
from painformer_jax.assessment.experiment.job import with_permuted_labels
from painformer_jax.assessment.experiment.normalise import normalised
from painformer_jax.assessment.folds import permuted_labels, protocols
from painformer_jax.assessment.statistics import intervals
from painformer_jax.core.errors import InputError
from painformer_jax.data.demo import fetch

PEOPLE, PER_LEVEL = 6, 4


def make_study(*, lacking: frozenset[str] = frozenset()) -> Study:
  """Six people, five levels; ECG is missing in samples of the names given."""
  place = Locator(path='x.csv', columns=('a',), rate=1.0)
  samples = []
  for person in range(PEOPLE):
    for level in range(5):
      for number in range(PER_LEVEL):
        name = f'p{person}-{level}-{number}'
        data = {'gsr': place} | ({} if name in lacking else {'ecg': place})
        samples.append(Sample(subject=f'p{person}', name=name, level=level, data=data))
  return Study(
    name='study', root='.', samples=tuple(samples), levels=('BL1', 'PA1', 'PA2', 'PA3', 'PA4')
  )


def make_tokens(study: Study, source: str, *, tokens: int = 2) -> Tokens:
  rng = np.random.default_rng(len(source))
  mask = np.array([source in s.data for s in study.samples])[:, None].repeat(tokens, 1)
  values = rng.normal(3, 2, (len(study.samples), tokens, 5)).astype(np.float32)
  return Tokens(values=np.where(mask[:, :, None], values, np.nan), mask=mask, labels=('',) * tokens)


def make_config(**changes):
  return from_config_dict(
    plain(
      fit=dict(epochs=2),
      rows=dict(
        one=dict(fusion=dict(kind='add', modalities=('gsr',))),
        two=dict(fusion=dict(kind='fusion-2', modalities=('gsr', 'ecg'))),
      ),
      **changes,
    )
  )


@pytest.fixture
def fitted(monkeypatch):
  """Replaces training by a rule, and keeps what training was asked for.

  A run with the learning rate 0.5 says the truth, others the contrary.
  """
  calls = []

  def fit_folds(inputs, labels, folds, *, config, mask, **_):
    calls.append(types.SimpleNamespace(folds=folds, config=config, labels=labels, mask=mask))
    right = config.learning_rate == 0.5
    logits = [
      np.stack([np.eye(2)[labels[f.test] if right else 1 - labels[f.test]] for _ in config.seeds])
      for f in folds
    ]
    return types.SimpleNamespace(logits=logits)

  monkeypatch.setattr(frozen, 'fit_folds', fit_folds)
  return calls


def run(config, study, *, row='one', shuffle=None):
  tokens = {name: make_tokens(study, name) for name in ('gsr', 'ecg')}
  job = next(j for j in jobs(config, study, tokens) if j.row == row)
  trained = job
  if shuffle is not None:
    trained = with_permuted_labels(job, seed=shuffle, protocol=config.protocol)
  return job, frozen.train(trained, cache=None)


def test_a_grid_is_chosen_from_inside_each_fold(fitted):
  config = make_config(grid=dict(learning_rate=(0.1, 0.5)), seeds=(0, 1))
  job, outcome = run(config, make_study())
  assert {p['learning_rate'] for p in outcome.chosen.values()} == {0.5}
  assert len(outcome.runs) == 2 and all((r.predicted == r.label).all() for r in outcome.runs)
  outer = {fold.name: set(fold.test.tolist()) for fold in job.folds}
  inner = [f for call in fitted for f in call.folds if ', inner' in f.name]
  assert len(inner) == 2 * PEOPLE * config.inner_folds
  for fold in inner:
    used = set(fold.train.tolist()) | set(fold.test.tolist())
    assert not used & outer[fold.name.split(',')[0]], fold.name
  # Choosing takes one seed and folds of its own; the rest trains all seeds once.
  assert [len(call.config.seeds) for call in fitted] == [1, 1, 2]
  assert [len(call.folds) for call in fitted] == [18, 18, 6]


def test_steps_do_not_depend_on_which_folds_train_together(fitted):
  run(make_config(), make_study())
  samples = 2 * PER_LEVEL * (PEOPLE - 1)
  assert fitted[0].config.steps == -(-samples * 2 // 32)


def test_subjects_never_cross_a_fold_and_other_levels_take_no_part():
  config, study = make_config(), make_study()
  for job in planned(config, study):
    assert len(job.positions) == PEOPLE * 2 * PER_LEVEL
    assert {study.samples[p].level for p in job.positions} == {0, 4}
    protocols.check_subjects(job.folds, study.subject_array()[job.positions])
    assert len(job.folds) == PEOPLE


def test_shuffled_labels_keep_each_subjects_counts(fitted):
  job, outcome = run(make_config(), make_study(), shuffle=3)
  shuffled = fitted[0].labels
  assert (shuffled != job.label).any()
  subjects = make_study().subject_array()[job.positions]
  for person in np.unique(subjects):
    assert shuffled[subjects == person].sum() == job.label[subjects == person].sum()
  assert (outcome.runs[0].label == shuffled).all()


def test_a_missing_modality_has_no_say_and_is_not_trained_on(fitted):
  lacking = frozenset({'p0-0-0', 'p1-4-2'})
  job, outcome = run(make_config(), make_study(lacking=lacking), row='two')
  names = [make_study().samples[p].name for p in job.positions]
  gone = {names.index(name) for name in lacking}
  gsr, ecg = fitted
  assert any(gone & set(fold.train.tolist()) for fold in gsr.folds)
  assert not any(gone & set(fold.train.tolist()) for fold in ecg.folds)
  assert len(outcome.runs[0].label) == len(names)


def test_normalisation_by_study_and_by_subject():
  study = make_study()
  tokens, subjects = make_tokens(study, 'gsr'), make_study().subject_array()
  assert normalised(tokens, subjects, how='none') is tokens
  whole = normalised(tokens, subjects, how='study').values
  np.testing.assert_allclose(whole.mean(0), 0, atol=1e-5)
  np.testing.assert_allclose(whole.std(0), 1, atol=1e-5)
  own = normalised(tokens, subjects, how='subject').values
  for person in np.unique(subjects):
    np.testing.assert_allclose(own[subjects == person].mean(0), 0, atol=1e-5)


def test_normalisation_leaves_what_is_missing_out():
  study = make_study(lacking=frozenset({'p0-0-0'}))
  tokens = make_tokens(study, 'ecg')
  for how in ('study', 'subject'):
    values = normalised(tokens, study.subject_array(), how=how).values
    assert np.isnan(values[0]).all() and np.isfinite(values[1:]).all()


def test_a_task_without_samples_is_an_error():
  study = make_study()
  none = dataclasses.replace(
    study, samples=tuple(dataclasses.replace(s, level=2) for s in study.samples)
  )
  with pytest.raises(InputError, match='no sample of gsr for the task BL1-PA4'):
    planned(make_config(), none)


def test_demo_windows_of_different_blocks_are_a_gap_apart():
  onsets, edges = [40.0, 60.0, 140.0, 165.0], [0.0, 100.0, 200.0]
  found = demo_study.windows(onsets, edges, delays=(1.0, 2.0), length=5.0, gap=10.0)
  first = [w for w in found if w.block == 0]
  second = [w for w in found if w.block == 1]
  assert max(w.stop for w in first) + 10 <= min(w.start for w in second)
  assert sum(w.label for w in first) == sum(w.label for w in second) == 4
  for w in found:
    if w.label:
      assert any(w.start - o in (1.0, 2.0) for o in onsets)
    else:
      assert not any(w.start - 12 < o < w.stop for o in onsets)


def _nearest_mean(features, labels, block):
  """Accuracy of the nearer class mean, each block by the others."""
  right = 0
  for number in np.unique(block):
    test = block == number
    means = [features[~test & (labels == label)].mean(0) for label in (0, 1)]
    apart = np.stack([np.square(features[test] - mean).sum(1) for mean in means])
    right += (apart.argmin(0) == labels[test]).sum()
  return right / len(labels)


# Layouts of windows: long series of pictures ten seconds apart; tapping now and then.
LAYOUTS = {
  'pictures': dict(
    onsets=[220.0 * block + 60 + 10 * picture for block in range(6) for picture in range(12)],
    edges=[220.0 * block for block in range(7)],
    delays=(1.0, 1.5, 2.0, 2.5),
    length=5.5,
  ),
  'tapping': dict(
    onsets=np.cumsum(np.random.default_rng(8).uniform(20, 34, 26)).tolist(),
    edges=[125.0 * block for block in range(7)],
    delays=(1.0, 2.0, 3.0),
    length=8.0,
  ),
}


def _small(layout, deal, *, recordings, effect=0.0):
  """Share of recordings of noise, with so much of an effect, that have p <= 0.05."""
  found = demo_study.windows(**LAYOUTS[layout], gap=10.0)
  assert [w.start for w in found] == sorted(w.start for w in found)
  block, labels = (np.array([getattr(w, name) for w in found]) for name in ('block', 'label'))
  rng, small = np.random.default_rng(0), 0
  for number in range(recordings):
    noise = rng.standard_normal((1330 * 4, 8))
    features = np.stack([noise[int(w.start * 4) : int(w.stop * 4)].mean(0) for w in found])
    features[:, 0] += effect * labels * features[:, 0].std()
    seeds = range(19 * number, 19 * number + 19)
    chance = [_nearest_mean(features, deal(labels, block, seed=seed), block) for seed in seeds]
    small += intervals.shuffle_test(_nearest_mean(features, labels, block), chance) <= 0.05
  return small / recordings


@pytest.mark.parametrize('layout', LAYOUTS)
def test_overlapping_windows_of_noise_are_hardly_found_more_often_than_p_says(layout):
  """Of 100 recordings of noise about 5 have p <= 0.05, and an effect is found."""
  assert 0.01 <= _small(layout, permuted_labels.shift_labels, recordings=100) <= 0.12
  assert _small(layout, permuted_labels.shift_labels, recordings=20, effect=2.0) >= 0.9


def test_labels_dealt_out_one_by_one_mislead_more():
  dealt, moved = (
    _small('pictures', deal, recordings=200)
    for deal in (permuted_labels.shuffle_labels, permuted_labels.shift_labels)
  )
  assert dealt > 0.1 > moved


def test_a_demo_block_without_rest_is_an_error():
  onsets = np.arange(0.0, 100.0, 10.0).tolist()
  with pytest.raises(InputError, match='no window of rest'):
    demo_study.windows(onsets, [0.0, 100.0], delays=(1.0,), length=5.0, gap=0.0)


@pytest.fixture
def demo_cache():
  try:
    return fetch.require(fetch.default_cache_dir())
  except InputError as error:
    pytest.skip(str(error))


@pytest.mark.demo_corpus
def test_demo_study_lists_both_recordings_in_six_blocks(demo_cache, tmp_path):
  study = demo_study.open_study(demo_cache, tmp_path)
  assert study.modalities == ('ecg', 'gsr', 'resp', 'fnirs') and len(study.subjects) == 12
  for recording, levels in (('pictures', {0, 1}), ('tapping', {2, 3})):
    for block in range(1, 7):
      own = [s for s in study.samples if s.subject == f'{recording}, block {block}']
      assert {s.level for s in own} == levels
