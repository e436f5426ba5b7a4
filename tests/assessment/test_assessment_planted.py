"""The planted study: sound as a folder, and as hard as it says."""

import json
import math

import numpy as np
import pytest
import scipy.signal
import scipy.stats
from assessment_layouts import load_signal

from painformer_jax.assessment.datasets import biovid, planted, planted_signals
from painformer_jax.assessment.datasets.planted import PlantedPlan
from painformer_jax.assessment.folds import permuted_labels, protocols, tasks
from painformer_jax.assessment.mixers.normalise import zscore_by_subject
from painformer_jax.assessment.results import literature
from painformer_jax.assessment.statistics.intervals import bootstrap, shuffle_test
from painformer_jax.assessment.statistics.metrics import accuracy, confusion
from painformer_jax.core.errors import InputError
from painformer_jax.modalities.waveform import waveform_image

PLAN = PlantedPlan(subjects=12, per_level=8, effect=2.4, subject_spread=1.5, seed=3)


def read_amplitude(gsr, *, effect=2.0):
  """The hidden number of a signal, read by a detector that knows the curves.

  Fits the tail, the response at each of several onsets, and an offset by least squares,
  and takes the ratio of response to tail at the best onset. At most 0.15 off from -3 to 5
  (with an effect of 2).
  """
  s, best = planted_signals, None
  for onset in np.linspace(s.ONSET - s.JITTER, s.ONSET + s.JITTER, 9):
    columns = np.stack(
      [s.response(s.TIME + s.TAIL_BEFORE), s.response(s.TIME - onset), np.ones(biovid.ROWS)], axis=1
    )
    weights, rest, _, _ = np.linalg.lstsq(columns, gsr, rcond=None)
    if best is None or rest[0] < best[0]:
      best = rest[0], weights[1] / weights[0]
  return math.log(max(best[1], 1e-6)) / s.SLOPE + effect / 2


@pytest.fixture(scope='module')
def root(tmp_path_factory):
  return planted.write_study(tmp_path_factory.mktemp('planted') / 'BioVid', PLAN)


@pytest.fixture(scope='module')
def study(root):
  return biovid.open_study(root, modalities=biovid.SIGNALS)


@pytest.fixture(scope='module')
def amplitudes(study):
  """The hidden numbers, as the oracle reads them from the files."""
  return np.array(
    [read_amplitude(load_signal(s, 'gsr')[0], effect=PLAN.effect) for s in study.samples]
  )


def counts_by_subject(subjects, label, said, classes):
  return np.stack(
    [
      confusion(label[subjects == p], said[subjects == p], classes=classes)
      for p in dict.fromkeys(subjects.tolist())
    ]
  )


def centred(values, subjects):
  """Less each subject's mean: the shift as well as it can be known from samples."""
  result = values.copy()
  for person in np.unique(subjects):
    result[subjects == person] -= values[subjects == person].mean()
  return result


class TestFolder:
  def test_is_sound(self, study):
    assert biovid.check(study, whole=True, subjects=12, per_level=8) == []
    assert len(study.samples) == 12 * 5 * 8 and len(study.subjects) == 12

  def test_never_passes_for_the_real_one(self, study, root):
    assert study.name == 'BioVid Part A, synthetic copy'
    assert literature.published(study.name, 'BL1-PA4') == ()
    assert not set(study.subjects) & {*protocols.BIOVID_HOLD_OUT, *protocols.BIOVID_NOT_REACTIVE}
    described = json.loads((root / 'planted.json').read_text())
    assert 'Synthetic' in described['note']
    assert described['best_accuracy']['BL1-PA4'] == PLAN.accuracy('BL1-PA4')
    assert planted.read_plan(root) == PLAN

  def test_levels_come_in_no_order(self, study):
    assert (np.diff(study.level_array()[:40]) != 0).sum() > 15

  def test_same_seed_same_bytes_and_more_people_change_none(self, tmp_path):
    small = PlantedPlan(subjects=1, per_level=1, seed=5)
    contents = []
    for name, subjects in (('a', 1), ('b', 1), ('c', 2)):
      folder = planted.write_study(
        tmp_path / name, PlantedPlan(subjects=subjects, per_level=1, seed=5)
      )
      person = planted.subject_names(small)[0]
      files = sorted((folder / 'biosignals_filtered' / person).iterdir())
      contents.append([(p.name, p.read_bytes()) for p in files])
    assert contents[0] == contents[1] == contents[2] and len(contents[0]) == 5
    other = planted.write_study(tmp_path / 'd', PlantedPlan(subjects=1, per_level=1, seed=6))
    assert not {p.name for p in other.rglob('*_bio.csv')} & {n for n, _ in contents[0]} or (
      [p.read_bytes() for p in sorted(other.rglob('*_bio.csv'))] != [c for _, c in contents[0]]
    )

  def test_existing_folder_is_left_alone(self, tmp_path):
    (tmp_path / 'real').mkdir()
    with pytest.raises(InputError, match='exists; name a folder that does not'):
      planted.write_study(tmp_path / 'real', PlantedPlan(subjects=1, per_level=1))
    assert not list((tmp_path / 'real').iterdir())

  def test_nothing_remains_of_a_failure(self, tmp_path, monkeypatch):
    def full(*_):
      raise OSError(28, 'No space left on device')

    monkeypatch.setattr(planted, '_write_table', full)
    with pytest.raises(InputError, match='cannot be written: No space left'):
      planted.write_study(tmp_path / 'a', PlantedPlan(subjects=1, per_level=1))
    assert not list(tmp_path.iterdir())

  def test_no_planted_folder(self, tmp_path):
    assert planted.read_plan(tmp_path) is None
    (tmp_path / 'planted.json').write_text('{"plan": {"people": 3}}')
    with pytest.raises(InputError, match='does not describe what was planted'):
      planted.read_plan(tmp_path)

  @pytest.mark.parametrize(
    'wrong', [{'subjects': 0}, {'per_level': 0}, {'effect': float('nan')}, {'subject_spread': -1}]
  )
  def test_plans_that_make_no_sense(self, wrong):
    with pytest.raises(InputError):
      PlantedPlan(**wrong)


class TestPromisedAccuracy:
  def test_by_simulation(self):
    rng = np.random.default_rng(0)
    n = 400_000
    for level, name in ((1, 'PA1'), (4, 'PA4')):
      mean = PLAN.effect * level / 4
      pain = rng.integers(0, 2, n)
      within = pain * mean + rng.normal(size=n)
      assert ((within > mean / 2) == pain).mean() == pytest.approx(
        PLAN.accuracy(f'BL1-{name}'), abs=0.004
      )
      strangers = within + rng.normal(0, PLAN.subject_spread, n)
      assert ((strangers > mean / 2) == pain).mean() == pytest.approx(
        PLAN.accuracy_on_unseen_subjects(f'BL1-{name}'), abs=0.004
      )
    level = rng.integers(0, 5, n)
    value = level * PLAN.effect / 4 + rng.normal(size=n)
    nearest = np.clip(np.rint(value / (PLAN.effect / 4)), 0, 4)
    assert (nearest == level).mean() == pytest.approx(PLAN.accuracy('5-class'), abs=0.004)

  def test_no_effect_is_chance(self):
    plan = PlantedPlan(effect=0)
    assert plan.accuracy('BL1-PA4') == 0.5
    assert plan.accuracy('5-class') == pytest.approx(0.2)

  def test_unknown_task(self):
    with pytest.raises(InputError, match="of '3-class' is not known, only of BL1-PA1"):
      PLAN.accuracy('3-class')


class TestOracle:
  def test_reads_what_was_hidden(self):
    rng = np.random.default_rng(0)
    for amplitude in np.linspace(-3, 5, 17):
      gsr = planted_signals.signals(amplitude, rng, gain=rng.lognormal(0, 0.5))['gsr']
      assert read_amplitude(gsr) == pytest.approx(amplitude, abs=0.15)

  def test_effect_shift_and_noise_are_as_planned(self, study, amplitudes):
    levels, subjects = study.level_array(), study.subject_array()
    own = centred(amplitudes, subjects)
    fit = np.polynomial.Polynomial.fit(levels / 4, own, 1, domain=[0, 1], window=[0, 1])
    # Standard errors of about 0.13 and 0.032 with 480 samples.
    assert fit.coef[1] == pytest.approx(PLAN.effect, abs=0.3)
    assert (own - fit(levels / 4)).std() == pytest.approx(1, abs=0.12)
    shifts = [amplitudes[subjects == p].mean() for p in study.subjects]
    low, high = np.sqrt(11 * PLAN.subject_spread**2 / scipy.stats.chi2.ppf([0.995, 0.005], 11))
    assert low * 0.9 < np.std(shifts, ddof=1) < high * 1.1

  @pytest.mark.parametrize('name', ['BL1-PA4', 'BL1-PA2', '5-class'])
  def test_reaches_the_promised_accuracy_within_its_interval(self, study, amplitudes, name):
    task = tasks.TASKS[name]
    label = task.labels(study.level_array())
    kept = label >= 0
    subjects = study.subject_array()[kept]
    own = centred(amplitudes, study.subject_array())[kept]
    means = np.array([own[label[kept] == c].mean() for c in range(len(task.classes))])
    said = np.abs(own[:, None] - means).argmin(1)
    found = bootstrap(counts_by_subject(subjects, label[kept], said, len(means)), accuracy)
    assert found.low <= PLAN.accuracy(name) <= found.high
    assert found.high - found.low < 0.2

  def test_strangers_without_normalisation_are_harder(self, study, amplitudes):
    label = tasks.TASKS['BL1-PA4'].labels(study.level_array())
    kept = label >= 0
    subjects, values, label = study.subject_array()[kept], amplitudes[kept], label[kept]
    counts = []
    for fold in protocols.leave_one_subject_out(subjects):
      threshold = np.mean([values[fold.train][label[fold.train] == c].mean() for c in (0, 1)])
      counts.append(confusion(label[fold.test], values[fold.test] > threshold, classes=2))
    found = bootstrap(np.stack(counts), accuracy)
    assert found.low <= PLAN.accuracy_on_unseen_subjects('BL1-PA4') <= found.high
    assert found.estimate < PLAN.accuracy('BL1-PA4') - 0.05

  def test_shuffled_labels_are_chance(self, study, amplitudes):
    label = tasks.TASKS['BL1-PA4'].labels(study.level_array())
    kept = label >= 0
    subjects, label = study.subject_array()[kept], label[kept]
    own = zscore_by_subject(amplitudes[kept][:, None], subjects)[:, 0]
    folds = protocols.leave_one_subject_out(subjects)

    def assess(label):
      right = np.zeros(len(label), bool)
      for fold in folds:
        means = [own[fold.train][label[fold.train] == c].mean() for c in (0, 1)]
        right[fold.test] = np.abs(own[fold.test][:, None] - means).argmin(1) == label[fold.test]
      return right.mean()

    shuffled = [assess(permuted_labels.shuffle_labels(label, subjects, seed=k)) for k in range(100)]
    # Their standard deviation is 0.05, as measured; that of the mean 0.005.
    assert np.mean(shuffled) == pytest.approx(0.5, abs=0.02)
    assert shuffle_test(assess(label), shuffled) == 1 / 101
    assert shuffle_test(np.median(shuffled), shuffled) > 0.4

  def test_the_picture_tells_as_much_as_the_signal(self, study, amplitudes):
    # A waveform's picture has neither units nor offset; the pipeline sees no more.
    config_heights = []
    for sample in study.samples[:120]:
      dark = 255.0 - waveform_image(load_signal(sample, 'gsr')[0])[..., 0]
      rows = (dark * np.arange(224)[:, None]).sum(0) / np.maximum(dark.sum(0), 1)
      config_heights.append(rows[::16])
    pictures = np.column_stack([np.stack(config_heights), np.ones(120)])
    weights, *_ = np.linalg.lstsq(pictures[::2], amplitudes[:120:2], rcond=None)
    said = pictures[1::2] @ weights
    assert np.corrcoef(said, amplitudes[1:120:2])[0, 1] > 0.9


class TestSignals:
  rng = np.random.default_rng(1)
  sample = planted_signals.signals(1.0, rng, heart_rate=75)

  def test_names_and_lengths(self):
    assert tuple(self.sample) == biovid.SIGNALS
    assert all(s.shape == (2816,) and np.isfinite(s).all() for s in self.sample.values())

  def test_response_rises_fast_and_falls_slowly(self):
    t = np.arange(0, 20, 0.01)
    curve = planted_signals.response(t)
    peak = curve.argmax()
    assert curve.max() == pytest.approx(1, abs=1e-4) and curve[0] == 0
    assert planted_signals.response(np.array([-1.0]))[0] == 0
    rise = t[peak] - t[np.flatnonzero(curve > 0.5)[0]]
    fall = t[np.flatnonzero(curve > 0.5)[-1]] - t[peak]
    assert 0.5 < t[peak] < 3 and fall > 1.5 * rise

  def test_skin_conductance_is_positive_and_of_its_size(self):
    gsr = self.sample['gsr']
    assert gsr.min() > 1 and gsr.max() < 30

  def test_heart_beats_at_its_rate(self):
    ecg = self.sample['ecg']
    beats, _ = scipy.signal.find_peaks(ecg, height=0.6, distance=150)
    assert np.median(np.diff(beats)) / 512 * 75 == pytest.approx(60, rel=0.1)
    assert 5 <= len(beats) <= 9

  def test_muscles_are_noise_without_a_mean(self):
    for name in biovid.SIGNALS[2:]:
      emg = self.sample[name]
      assert abs(emg.mean()) < 4 * emg.std() / np.sqrt(len(emg))
      assert np.count_nonzero(np.diff(np.sign(emg))) > 1000

  def test_heart_and_muscles_know_nothing_of_the_level(self, study):
    levels = study.level_array()
    names = ('ecg', 'emg_trapezius', 'emg_corrugator', 'emg_zygomaticus')
    spread = np.array([[load_signal(s, name)[0].std() for name in names] for s in study.samples])
    for column in spread.T:
      assert scipy.stats.kruskal(*(column[levels == k] for k in range(5))).pvalue > 0.005
