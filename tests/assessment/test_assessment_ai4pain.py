"""The AI4Pain readers on miniature folders of all three editions."""

import dataclasses
import shutil

import numpy as np
import pytest
from assessment_jobs import planned
from assessment_layouts import (
  RELEASED_2024,
  leave_out_columns,
  load_signal,
  segment,
  write_ai4pain_2024,
  write_ai4pain_2025,
  write_ai4pain_2026,
  write_segments,
  write_whole_ai4pain,
)
from repository import ROOT

from painformer_jax.assessment.config import from_config_dict
from painformer_jax.assessment.datasets import (
  ai4pain,
  ai4pain_2024,
  ai4pain_segments,
  image_sources,
)
from painformer_jax.assessment.datasets.ai4pain_check import check
from painformer_jax.assessment.datasets.recordings import load_channels, video_path
from painformer_jax.assessment.results import literature
from painformer_jax.assessment.study.checking import check_study
from painformer_jax.assessment.study.opening import open_study
from painformer_jax.cli.config_file import load_config
from painformer_jax.core.errors import InputError

# One modality is read whole in a quarter of the time.
BVP = "--config.rows={'bvp': {'fusion': {'modalities': ('bvp',)}}}"


def by_name(study):
  return {s.name: s for s in study.samples}


def open_2025(root, **options):
  return ai4pain_segments.open_study(root, 2025, **options)


def open_2026(root, **options):
  return ai4pain_segments.open_study(root, 2026, **options)


def texts(study, root, *, whole=True, **options):
  return [str(f).replace(f'{root}/', '') for f in check(study, whole=whole, **options)]


def config_of(edition, root, *overrides):
  return from_config_dict(
    load_config(
      f'{ROOT}/configs/assess_ai4pain.py:{edition}',
      overrides=('--config.weights=w', f'--config.data_dir={root}', *overrides),
    )
  )


def whole_frames(config):
  face = dataclasses.replace(config.modalities['face'], image_type='rgb')
  return dataclasses.replace(config, modalities={**config.modalities, 'face': face})


def listed(edition, root, *overrides, whole=False):
  """What an assessment of the folder would be told before it begins."""
  config = config_of(edition, root, *overrides)
  if 'face' in config.modalities:  # Finding faces needs an extra.
    config = whole_frames(config)
  study = open_study(config, root / 'work')
  return [str(f).replace(f'{root}/', '') for f in check_study(config, study, whole=whole)]


@pytest.fixture(scope='module')
def whole2025(tmp_path_factory):
  root = tmp_path_factory.mktemp('ai4pain')
  write_whole_ai4pain(root, 2025)
  return root


@pytest.fixture(scope='module')
def root2025(tmp_path_factory):
  root = tmp_path_factory.mktemp('ai4pain')
  write_ai4pain_2025(root)
  return root


class Test2025:
  def test_samples(self, root2025):
    study = open_2025(root2025)
    assert study.name == 'AI4Pain 2025'
    assert study.levels == ('no pain', 'low pain', 'high pain')
    assert study.splits == {'train': ('1', '12'), 'validation': ('30',), 'test': ('41',)}
    samples = by_name(study)
    assert len(samples) == 3 * 5 + 3
    assert {
      n: samples[f'train/12_{n}'].level
      for n in ('baseline_1', 'low_1', 'high_1', 'rest_1', 'low_2')
    } == {'baseline_1': 0, 'low_1': 1, 'high_1': 2, 'rest_1': 0, 'low_2': 1}
    assert all(tuple(s.data) == ai4pain.SIGNALS for s in study.samples)

  def test_test_segments_that_are_only_numbered(self, tmp_path):
    write_ai4pain_2025(tmp_path)
    lengths = {str(k): 1000 for k in range(29)}
    write_segments(tmp_path / 'test' / 'Bvp' / '41.csv', lengths)
    study = open_2025(tmp_path, modalities=('bvp',))
    assert study.findings == ()
    tested = [s for s in study.samples if s.split == 'test']
    assert len(tested) == 29 and {s.level for s in tested} == {None}
    assert tested[7].name == 'test/41_7'
    np.testing.assert_array_equal(load_signal(tested[7], 'bvp')[0], segment('Bvp7', 1000))
    # Where levels are known by the names, a number is none.
    write_segments(tmp_path / 'train' / 'Bvp' / '1.csv', lengths)
    assert len(open_2025(tmp_path, modalities=('bvp',)).findings) == 29

  def test_withheld_labels(self, root2025):
    study = open_2025(root2025)
    assert [s.level for s in study.samples if s.split == 'test'] == [None] * 3
    assert (study.level_array()[study.split_array() == 'test'] == -1).all()

  @pytest.mark.parametrize('modality, folder', [('eda', 'EDA'), ('bvp', 'Bvp')])
  def test_padding_is_no_part_of_a_signal(self, root2025, modality, folder):
    sample = by_name(open_2025(root2025))['train/1_rest_1']
    values, rate = load_signal(sample, modality)
    assert rate == 100
    np.testing.assert_array_equal(values, segment(f'{folder}1_REST_1', 995))

  def test_lengths_are_cut_by_default(self, root2025):
    name = 'train/1_baseline_1'
    cut, _ = load_signal(by_name(open_2025(root2025))[name], 'bvp')
    whole, _ = load_signal(by_name(open_2025(root2025, max_seconds=None))[name], 'bvp')
    assert len(cut) == 1000 and len(whole) == 6010
    np.testing.assert_array_equal(cut, whole[:1000])

  def test_sound_folder(self, whole2025):
    study = open_2025(whole2025)
    counts = {'subjects': ai4pain.SUBJECTS, 'segments': ai4pain_segments.SEGMENTS[2025]}
    assert texts(study, whole2025, whole=False, **counts) == []
    assert listed(2025, whole2025, BVP, whole=True) == []

  def test_folder_with_far_too_little(self, root2025):
    lacking = ', '.join([f'low_{k}' for k in range(3, 13)] + [f'high_{k}' for k in range(2, 13)])
    assert listed(2025, root2025) == [
      'train: 2 subjects, not 41',
      'validation: 1 subjects, not 12',
      'test: 1 subjects, not 12',
      *(f'{who}: lacks {lacking}' for who in ('train, 1', 'train, 12', 'validation, 30')),
    ]

  def test_incomplete_folder(self, whole2025, tmp_path):
    root = shutil.copytree(whole2025, tmp_path / 'data')
    for modality in ('Bvp', 'Eda', 'Resp', 'SpO2'):
      (root / 'validation' / modality / '50.csv').unlink()
      leave_out_columns(root / 'train' / modality / '7.csv', 'LOW_3', 'LOW_12', 'HIGH_1')
    leave_out_columns(root / 'train' / 'Eda' / '9.csv', 'HIGH_4', 'REST_2')
    (root / 'train' / 'Resp' / '11.csv').unlink()
    (root / 'validation' / 'SpO2' / '42.csv').write_text('')
    leave_out_columns(root / 'test' / 'Bvp' / '60.csv', '5')
    shutil.rmtree(root / 'test' / 'SpO2')
    every = ', '.join(
      [
        'baseline_1',
        *(f'low_{k}' for k in range(1, 13)),
        *(f'high_{k}' for k in range(1, 13)),
        'rest_1',
        'rest_2',
        'rest_3',
      ]
    )
    assert listed(2025, root) == [
      'train, 11: no table of resp',
      'train, 9: eda lacks high_4, rest_2',
      'validation/SpO2/42.csv: names no column',
      f'validation, 42: spo2 lacks {every}',
      'test: no folder spo2',
      'test, 60: bvp lacks 5',
      'validation: 11 subjects, not 12',
      'train, 7: lacks low_3, low_12, high_1',
    ]

  def test_segments_that_are_counted_in_another_way(self, tmp_path):
    write_ai4pain_2025(tmp_path)
    write_segments(
      tmp_path / 'train' / 'Bvp' / '1.csv',
      {
        **{f'1_LOW_{k:02d}': 1000 for k in (*range(1, 7), *range(8, 13))},
        **{f'1_HIGH_{k}': 1000 for k in range(13, 24)},
      },
    )
    write_segments(
      tmp_path / 'train' / 'Bvp' / '12.csv',
      {
        **{f'12_LOW_{k}': 1000 for k in range(1, 14)},
        **{f'12_HIGH_{k}': 1000 for k in range(14, 26)},
      },
    )
    found = texts(
      open_2025(tmp_path, modalities=('bvp',)), tmp_path, segments=ai4pain_segments.SEGMENTS[2025]
    )
    assert found[:2] == [
      'train, 1: lacks low_7, 1 of 12 high',
      'train, 12: 13 segments low, not 12',
    ]
    assert len(found) == 3  # And the one to validate on.

  def test_test_split_is_wanted_where_it_is_tested_on(self, whole2025, tmp_path):
    root = shutil.copytree(whole2025, tmp_path / 'data')
    shutil.rmtree(root / 'test')
    assert listed(2025, root) == []
    assert listed(2025, root, '--config.protocol=test') == ['test: 0 subjects, not 12']

  def test_segments_of_a_labelled_test_split(self, tmp_path):
    write_whole_ai4pain(tmp_path, 2025, withheld=False)
    assert listed(2025, tmp_path) == []
    for modality in ('Bvp', 'Eda', 'Resp', 'SpO2'):
      leave_out_columns(tmp_path / 'test' / modality / '60.csv', 'HIGH_4')
    assert listed(2025, tmp_path) == ['test, 60: lacks high_4']

  def test_length_that_gives_the_level_away(self, root2025):
    study = open_2025(root2025, max_seconds=None, modalities=('bvp',))
    # 1018 samples only ever mean high pain here.
    found = texts(study, root2025, whole=True)
    assert len(found) == 3 and 'bvp: the length of a segment gives away the level' in found[0]
    assert any(
      "'high pain': 1018 samples, elsewhere 995, 1000, 1003 and 1 more" in f for f in found
    )

  def test_labelled_test_split(self, tmp_path):
    write_ai4pain_2025(tmp_path, withheld=False)
    study = open_2025(tmp_path)
    assert by_name(study)['test/41_high_1'].level == 2

  def test_findings(self, tmp_path):
    write_ai4pain_2025(tmp_path)
    write_segments(
      tmp_path / 'train' / 'Resp' / '1.csv',
      {
        '1_Baseline_1': 1000,
        '1_LOW_1': 1000,
        '1_HIGH_1': 1000,
        '1_REST_1': 1000,
        '1_CALM_1': 1000,
        '2_LOW_2': 1000,
      },
    )
    (tmp_path / 'train' / 'Bvp' / '12.csv').write_text('12_Low_1,12_HIGH_1\n1,x\n')
    study = open_2025(tmp_path)
    assert texts(study, tmp_path, subjects={'train': 3}) == [
      "train/Resp/1.csv: column '2_LOW_2' does not begin with 1_",
      "train, 1: segment 'calm_1' is none of baseline, rest, low, high",
      'train, 1: resp lacks low_2',
      'train, 12: bvp lacks baseline_1, rest_1, low_2',
      'train: 2 subjects, not 3',
      "train/Bvp/12.csv: column '12_HIGH_1' is not all numbers (line 2: 'x')",
      'train/Bvp/12.csv: 12_Low_1: 1 row, not 1000',
    ]

  def test_one_person_in_two_splits(self, tmp_path):
    write_ai4pain_2025(tmp_path)
    write_segments(tmp_path / 'Validation' / 'Bvp' / '12.csv', {'12_LOW_1': 1000})
    found = texts(open_2025(tmp_path, modalities=('bvp',)), tmp_path)
    assert found == [
      '12: is in train and validation; a subject may be in one split only',
      'Validation/Bvp/12.csv: validation/12_low_1 is the same recording as train/12_low_1 (bvp)',
    ]

  def test_missing_modality(self, tmp_path):
    write_ai4pain_2025(tmp_path)
    (tmp_path / 'train' / 'SpO2').rename(tmp_path / 'train' / 'oxygen')
    assert texts(open_2025(tmp_path), tmp_path) == ['train: no folder spo2']

  def test_no_folders(self, tmp_path):
    with pytest.raises(InputError, match='there is no train/ in it'):
      open_2025(tmp_path)
    with pytest.raises(InputError, match='there is no folder'):
      open_2025(tmp_path / 'nowhere')

  def test_no_labels_at_all(self, tmp_path):
    write_ai4pain_2025(tmp_path)
    for table in tmp_path.glob('*/*/*.csv'):
      write_segments(table, {f'{table.stem}_LOW_1': 1000})
    with pytest.raises(
      InputError,
      match='no labelled sample of AI4Pain 2026; the first '
      "finding: train, 1: segment 'low_1' is none of baseline, arm, hand",
    ):
      open_2026(tmp_path)


@pytest.fixture(scope='module')
def root2026(tmp_path_factory):
  root = tmp_path_factory.mktemp('ai4pain')
  write_ai4pain_2026(root)
  return root


class Test2026:
  def test_samples(self, root2026):
    study = open_2026(root2026, max_seconds=None)
    assert study.levels == ('no pain', 'arm', 'hand')
    assert np.bincount(study.level_array()).tolist() == [12, 12, 12]
    lengths = {load_signal(s, 'eda')[0].size for s in study.samples}
    assert lengths == {990, 1022, 1118}

  def test_flat_oxygen_is_found(self, root2026):
    assert texts(open_2026(root2026), root2026, whole=True) == ['train/SpO2/4.csv: 4_ARM_2: flat']

  def test_sound_and_incomplete_folder(self, tmp_path):
    write_whole_ai4pain(tmp_path, 2026, splits=('train', 'validation'))
    assert listed(2026, tmp_path, BVP, whole=True) == []
    for modality in ('Bvp', 'Eda', 'Resp', 'SpO2'):
      leave_out_columns(tmp_path / 'validation' / modality / '44.csv', 'Baseline_12', 'HAND_2')
    (tmp_path / 'train' / 'Bvp' / '3.csv').unlink()
    assert listed(2026, tmp_path) == [
      'train, 3: no table of bvp',
      'validation, 44: lacks baseline_12, hand_2',
    ]
    # One modality alone: then nothing of the person is left.
    assert listed(2026, tmp_path, BVP) == [
      'train: 40 subjects, not 41',
      'validation, 44: lacks baseline_12, hand_2',
    ]


@pytest.fixture(scope='module')
def root2024(tmp_path_factory):
  root = tmp_path_factory.mktemp('ai4pain')
  write_ai4pain_2024(root)
  return root


class Test2024:
  def fnirs(self, **changes):
    return ai4pain_2024.FnirsTables(
      **{
        'path': '{split}/fnirs/{subject}/{sample}.csv',
        'rate': 7.81,
        'delimiter': ';',
        'columns': tuple(f'CH{k} HbO2' for k in range(1, 5)),
      }
      | changes
    )

  def test_samples(self, root2024):
    study = ai4pain_2024.open_study(root2024, fnirs=self.fnirs())
    assert study.splits == {'train': ('P01', 'P02'), 'validation': ('P50',)}
    assert study.level_array().tolist() == [0, 1, 2, 0] * 3
    sample = by_name(study)['validation/P50/02_HIGH-pain']
    assert video_path(sample) == root2024 / 'Validation/video/P50/02_HIGH-pain.mp4'
    values, rate = load_channels(sample, 'fnirs')
    assert values.shape == (4, 80) and rate == 7.81
    np.testing.assert_array_equal(values, segment('P50HIGH-pain', 640).reshape(80, 8).T[::2])
    assert texts(study, root2024, whole=True) == []

  def test_pictures_lie_in_the_split_s_folder_as_it_is_spelt(self, root2024):
    study = image_sources.with_image_sources(
      ai4pain_2024.open_study(root2024), {'thermal': '{split}/video/{subject}/{sample}.mp4'}
    )
    for sample in study.samples:
      assert sample.data['thermal'].path == sample.data['video'].path
      assert sample.data['thermal'].path.is_file()

  def test_people(self, root2024):
    found = texts(ai4pain_2024.open_study(root2024), root2024, subjects=ai4pain.SUBJECTS)
    assert found == [
      'train: 2 subjects, not 41',
      'validation: 1 subjects, not 12',
      'test: 0 subjects, not 12',
    ]

  def test_what_was_released_is_sound(self, tmp_path):
    write_ai4pain_2024(tmp_path, people=RELEASED_2024)
    assert listed(2024, tmp_path) == []
    assert listed(2024, tmp_path, '--config.protocol=test') == ['test: 0 subjects, not 12']
    # Once the folder is there, its people are expected.
    (tmp_path / 'TEST' / 'video').mkdir(parents=True)
    assert listed(2024, tmp_path) == ['test: 0 subjects, not 12']

  def test_wrong_description_of_the_tables(self, root2024):
    study = ai4pain_2024.open_study(root2024, fnirs=self.fnirs(columns=('CH1 HbO2', 'CH9 HbO2')))
    assert 'no column CH9 HbO2; it has sample, CH1 HbO2' in texts(study, root2024)[0]
    study = ai4pain_2024.open_study(root2024, fnirs=self.fnirs(path='{subject}.csv'))
    assert texts(study, root2024)[0] == 'P01.csv: no such file'
    with pytest.raises(InputError, match='may hold {split}, {subject} and {sample} only'):
      self.fnirs(path='{person}.csv')
    with pytest.raises(InputError, match='positive sampling rate'):
      self.fnirs(rate=0)

  def test_table_of_labels(self, root2024, tmp_path):
    labels = tmp_path / 'labels.csv'
    names = ['00_Baseline', '01_Low_Pain', '02_HIGH-pain', '03_No Pain']
    labels.write_text(
      'sample,subject,level\n'
      + ''.join(
        f'{name},{person},{k % 3}\n' for person in ('P01', 'P02') for k, name in enumerate(names, 1)
      )
    )
    study = ai4pain_2024.open_study(root2024, labels=labels)
    assert study.level_array().tolist() == [1, 2, 0, 1] * 2
    assert [f.what for f in study.findings] == ['it is not in the table of labels'] * 4
    labels.write_text('sample,subject,level\na,b,7\n')
    with pytest.raises(InputError, match='row 2: the level must be 0, 1 or 2'):
      ai4pain_2024.open_study(root2024, labels=labels)
    labels.write_text('sample,level\n')
    with pytest.raises(InputError, match="has no column 'subject'"):
      ai4pain_2024.open_study(root2024, labels=labels)

  def test_names_that_do_not_tell(self, root2024, monkeypatch):
    monkeypatch.setattr(ai4pain_2024, 'WORDS', {'low': 1, 'high': 2})
    study = ai4pain_2024.open_study(root2024)
    assert len(study.samples) == 6 and len(study.findings) == 6
    assert 'its name does not contain its level' in study.findings[0].what
    monkeypatch.setattr(ai4pain_2024, 'WORDS', {})
    with pytest.raises(InputError, match='no labelled sample of AI4Pain 2024; the first'):
      ai4pain_2024.open_study(root2024)


class TestFnirsConfig:
  def given(self, *, columns):
    return (
      '--config.fnirs.path={split}/fnirs/{subject}/{sample}.csv',
      '--config.fnirs.rate=10',
      '--config.fnirs.delimiter=;',
      f'--config.fnirs.columns={columns}',
    )

  def test_rows_are_those_of_the_literature(self, root2024):
    config = config_of('2024-fnirs', root2024)
    labels = {row.label for row in config.rows.values()}
    assert (
      labels
      == {
        row.modality
        for row in literature.published('AI4Pain 2024', '3-class')
        if row.method == 'challenge baseline'
      }
      == {'face', 'fNIRS', 'face+fNIRS'}
    )
    joined = {
      name: row.fusion.kind for name, row in config.rows.items() if row.label == 'face+fNIRS'
    }
    assert joined == {kind: kind for kind in ('fusion-1', 'fusion-2', 'fusion-n')}
    assert list(config_of('2024', root2024).rows) == ['face']

  def test_samples_and_folds(self, tmp_path):
    channels = write_ai4pain_2024(tmp_path, people=RELEASED_2024)
    config = whole_frames(config_of('2024-fnirs', tmp_path, *self.given(columns=channels)))
    study = open_study(config, tmp_path / 'work')
    assert len(study.samples) == 53 * 4 and study.modalities == ('video', 'fnirs')
    values, rate = load_channels(study.samples[-1], 'fnirs')
    assert values.shape == (4, 80) and rate == 10
    assert check_study(config, study, whole=False) == []
    found = {job.row: job for job in planned(config, study)}
    assert set(found) == {'face', 'fnirs', 'fusion-1', 'fusion-2', 'fusion-n'}
    for job in found.values():
      (fold,) = job.folds
      assert len(fold.train) == 41 * 4 and len(fold.test) == 12 * 4

  def test_findings(self, tmp_path):
    channels = write_ai4pain_2024(tmp_path, people=RELEASED_2024)
    (tmp_path / 'Train' / 'fnirs' / 'P07' / '01_Low_Pain.csv').unlink()
    assert listed('2024-fnirs', tmp_path, *self.given(columns=channels)) == [
      'Train/fnirs/P07/01_Low_Pain.csv: no such file'
    ]

  def test_rows_and_tables_that_do_not_agree(self, root2024):
    with pytest.raises(InputError, match='config.fnirs.path is empty, but rows take fnirs'):
      listed('2024-fnirs', root2024)
    with pytest.raises(InputError, match='but no row takes fnirs: take .*:2024-fnirs'):
      listed('2024', root2024, *self.given(columns=('CH1 HbO2',)))
    with pytest.raises(InputError, match='positive sampling rate'):
      listed('2024-fnirs', root2024, self.given(columns=())[0])

  def test_editions(self, root2024):
    with pytest.raises(InputError, match='no edition 2025-fnirs, only 2024, 2024-fnirs, 2025'):
      config_of('2025-fnirs', root2024)
