"""The AI4Pain readers on miniature folders of all three editions."""

import numpy as np
import pytest
from assessment_layouts import (
    segment, write_ai4pain_2024, write_ai4pain_2025, write_ai4pain_2026, write_segments)

from painformer_jax.assessment import ai4pain
from painformer_jax.assessment.recordings import load_channels, load_signal, video_path
from painformer_jax.errors import InputError


def by_name(study):
  return {s.name: s for s in study.samples}


def texts(study, root, **options):
  return [str(f).replace(f'{root}/', '') for f in ai4pain.check(study, **options)]


@pytest.fixture(scope='module')
def root2025(tmp_path_factory):
  root = tmp_path_factory.mktemp('ai4pain')
  write_ai4pain_2025(root)
  return root


class Test2025:

  def test_samples(self, root2025):
    study = ai4pain.open_2025(root2025)
    assert study.name == 'AI4Pain 2025'
    assert study.levels == ('no pain', 'low pain', 'high pain')
    assert study.splits == {'train': ('1', '12'), 'validation': ('30',), 'test': ('41',)}
    samples = by_name(study)
    assert len(samples) == 3 * 5 + 3
    assert {n: samples[f'train/12_{n}'].level for n in (
        'baseline_1', 'low_1', 'high_1', 'rest_1', 'low_2')} == {
            'baseline_1': 0, 'low_1': 1, 'high_1': 2, 'rest_1': 0, 'low_2': 1}
    assert all(tuple(s.data) == ai4pain.SIGNALS for s in study.samples)

  def test_withheld_labels(self, root2025):
    study = ai4pain.open_2025(root2025)
    assert [s.level for s in study.samples if s.split == 'test'] == [None] * 3
    assert (study.level_array()[study.split_array() == 'test'] == -1).all()

  @pytest.mark.parametrize('modality, folder', [('eda', 'EDA'), ('bvp', 'Bvp')])
  def test_padding_is_no_part_of_a_signal(self, root2025, modality, folder):
    sample = by_name(ai4pain.open_2025(root2025))['train/1_rest_1']
    values, rate = load_signal(sample, modality)
    assert rate == 100
    np.testing.assert_array_equal(values, segment(f'{folder}1_REST_1', 995))

  def test_lengths_are_cut_by_default(self, root2025):
    name = 'train/1_baseline_1'
    cut, _ = load_signal(by_name(ai4pain.open_2025(root2025))[name], 'bvp')
    whole, _ = load_signal(by_name(ai4pain.open_2025(root2025, max_seconds=None))[name], 'bvp')
    assert len(cut) == 1000 and len(whole) == 6010
    np.testing.assert_array_equal(cut, whole[:1000])

  def test_conditions_can_be_left_out(self, root2025):
    study = ai4pain.open_2025(root2025, conditions={'rest': 0, 'high': 1})
    assert [s.name for s in study.samples if s.subject == '1'] == [
        'train/1_high_1', 'train/1_rest_1']

  def test_sound_folder(self, root2025):
    for depth in ('files', 'rows', 'signals'):
      assert texts(ai4pain.open_2025(root2025), root2025, depth=depth) == []

  def test_length_that_gives_the_level_away(self, root2025):
    study = ai4pain.open_2025(root2025, max_seconds=None, modalities=('bvp',))
    # 1018 samples only ever mean high pain here.
    found = texts(study, root2025, depth='signals')
    assert len(found) == 3 and 'bvp: the length of a segment gives away the level' in found[0]
    assert any("'high pain': 1018 samples, elsewhere 995, 1000, 1003 and 1 more" in f
               for f in found)

  def test_labelled_test_split(self, tmp_path):
    write_ai4pain_2025(tmp_path, withheld=False)
    study = ai4pain.open_2025(tmp_path)
    assert by_name(study)['test/41_high_1'].level == 2

  def test_findings(self, tmp_path):
    write_ai4pain_2025(tmp_path)
    write_segments(tmp_path / 'train' / 'Resp' / '1.csv', {
        '1_Baseline_1': 1000, '1_LOW_1': 1000, '1_HIGH_1': 1000, '1_REST_1': 1000,
        '1_CALM_1': 1000, '2_LOW_2': 1000})
    (tmp_path / 'train' / 'Bvp' / '12.csv').write_text('12_Low_1,12_HIGH_1\n1,x\n')
    study = ai4pain.open_2025(tmp_path)
    assert texts(study, tmp_path, people={'train': 3}) == [
        "train/Resp/1.csv: column '2_LOW_2' does not begin with 1_",
        'train, 1: segment low_2 is not in resp',
        'train, 12: segment baseline_1 is not in bvp',
        'train, 12: segment rest_1 is not in bvp',
        'train, 12: segment low_2 is not in bvp',
        "train, 1: segment 'calm_1' is none of baseline, rest, low, high",
        'train: 2 people, not 3',
        "train/Bvp/12.csv: line 2: expected 2 numbers, found '1,x'"]

  def test_one_person_in_two_splits(self, tmp_path):
    write_ai4pain_2025(tmp_path)
    write_segments(tmp_path / 'Validation' / 'Bvp' / '12.csv', {'12_LOW_1': 1000})
    found = texts(ai4pain.open_2025(tmp_path, modalities=('bvp',)), tmp_path)
    assert found == ['12: is in train and validation; a person may be in one split only']

  def test_missing_modality(self, tmp_path):
    write_ai4pain_2025(tmp_path)
    (tmp_path / 'train' / 'SpO2').rename(tmp_path / 'train' / 'oxygen')
    found = texts(ai4pain.open_2025(tmp_path), tmp_path)
    assert found[0] == 'train: no folder spo2'
    assert len(found) == 1 + 10  # And every segment that lacks it.

  def test_no_folders(self, tmp_path):
    with pytest.raises(InputError, match='there is no train/ in it'):
      ai4pain.open_2025(tmp_path)
    with pytest.raises(InputError, match='there is no folder'):
      ai4pain.open_2025(tmp_path / 'nowhere')

  def test_no_labels_at_all(self, root2025):
    with pytest.raises(InputError, match='no labelled sample of AI4Pain 2026; the first '
                       "trouble: train, 1: segment 'low_1' is none of baseline, arm, hand"):
      ai4pain.open_2026(root2025, conditions={})


@pytest.fixture(scope='module')
def root2026(tmp_path_factory):
  root = tmp_path_factory.mktemp('ai4pain')
  write_ai4pain_2026(root)
  return root


class Test2026:

  def test_samples(self, root2026):
    study = ai4pain.open_2026(root2026, max_seconds=None)
    assert study.levels == ('no pain', 'arm', 'hand')
    assert np.bincount(study.level_array()).tolist() == [12, 12, 12]
    lengths = {load_signal(s, 'eda')[0].size for s in study.samples}
    assert lengths == {990, 1022, 1118}

  def test_flat_oxygen_is_found(self, root2026):
    assert texts(ai4pain.open_2026(root2026), root2026, depth='signals') == [
        'train/SpO2/4.csv: 4_ARM_2: flat']


@pytest.fixture(scope='module')
def root2024(tmp_path_factory):
  root = tmp_path_factory.mktemp('ai4pain')
  write_ai4pain_2024(root)
  return root


class Test2024:

  def fnirs(self, **changes):
    return ai4pain.FnirsTables(**{
        'path': '{split}/fnirs/{subject}/{sample}.csv', 'rate': 7.81, 'delimiter': ';',
        'columns': tuple(f'CH{k} HbO2' for k in range(1, 5))} | changes)

  def test_samples(self, root2024):
    study = ai4pain.open_2024(root2024, fnirs=self.fnirs())
    assert study.splits == {'train': ('P01', 'P02'), 'validation': ('P50',)}
    assert study.level_array().tolist() == [0, 1, 2, 0] * 3
    sample = by_name(study)['validation/P50/02_HIGH-pain']
    assert video_path(sample) == root2024 / 'Validation/video/P50/02_HIGH-pain.mp4'
    values, rate = load_channels(sample, 'fnirs')
    assert values.shape == (4, 80) and rate == 7.81
    np.testing.assert_array_equal(
        values, segment('P50HIGH-pain', 640).reshape(80, 8).T[::2])
    with pytest.raises(InputError, match='has 4 channels, not one'):
      load_signal(sample, 'fnirs')
    assert texts(study, root2024, depth='signals') == []

  def test_people(self, root2024):
    found = texts(ai4pain.open_2024(root2024), root2024, people=ai4pain.PEOPLE_2024)
    assert found == ['train: 2 people, not 41', 'validation: 1 people, not 12',
                     'test: 0 people, not 12']

  def test_wrong_description_of_the_tables(self, root2024):
    study = ai4pain.open_2024(root2024, fnirs=self.fnirs(columns=('CH1 HbO2', 'CH9 HbO2')))
    assert "no column CH9 HbO2; it has sample, CH1 HbO2" in texts(study, root2024)[0]
    study = ai4pain.open_2024(root2024, fnirs=self.fnirs(path='{subject}.csv'))
    assert texts(study, root2024)[0] == 'P01.csv: no such file'
    with pytest.raises(InputError, match='may hold {split}, {subject} and {sample} only'):
      self.fnirs(path='{person}.csv')
    with pytest.raises(InputError, match='positive sampling rate'):
      self.fnirs(rate=0)

  def test_table_of_labels(self, root2024, tmp_path):
    labels = tmp_path / 'labels.csv'
    names = ['00_Baseline', '01_Low_Pain', '02_HIGH-pain', '03_No Pain']
    labels.write_text('sample,subject,level\n' + ''.join(
        f'{name},{person},{k % 3}\n' for person in ('P01', 'P02')
        for k, name in enumerate(names, 1)))
    study = ai4pain.open_2024(root2024, labels=labels)
    assert study.level_array().tolist() == [1, 2, 0, 1] * 2
    assert [f.what for f in study.findings] == ['the table of labels does not have it'] * 4
    labels.write_text('sample,subject,level\na,b,7\n')
    with pytest.raises(InputError, match='line 2: the level must be 0, 1 or 2'):
      ai4pain.open_2024(root2024, labels=labels)
    labels.write_text('sample,level\n')
    with pytest.raises(InputError, match='must have the columns subject, sample, level'):
      ai4pain.open_2024(root2024, labels=labels)

  def test_names_that_do_not_tell(self, root2024):
    study = ai4pain.open_2024(root2024, words={'low': 1, 'high': 2})
    assert len(study.samples) == 6 and len(study.findings) == 6
    assert 'its name does not tell its level' in study.findings[0].what
    with pytest.raises(InputError, match='no labelled sample of AI4Pain 2024; the first'):
      ai4pain.open_2024(root2024, words={})
