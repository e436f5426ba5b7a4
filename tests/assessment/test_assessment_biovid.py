"""The BioVid reader on a miniature folder, and everything its check must find."""

import shutil

import numpy as np
import pytest
from assessment_layouts import (
  PEOPLE,
  biovid_rows,
  biovid_signal,
  biovid_table_path,
  biovid_video_path,
  load_signal,
  write_biovid,
  write_biovid_table,
  write_list,
)

from painformer_jax.assessment.datasets import biovid
from painformer_jax.assessment.datasets.recordings import load_channels, video_path
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings, SampleReader
from painformer_jax.core.errors import InputError

SMALL = {'subjects': 2, 'per_level': 1}


@pytest.fixture(scope='module')
def sound(tmp_path_factory):
  root = tmp_path_factory.mktemp('biovid')
  write_biovid(root)
  return root


@pytest.fixture
def folder(sound, tmp_path):
  return shutil.copytree(sound, tmp_path / 'BioVid')


def texts(root, *, modalities=biovid.MODALITIES, whole=True, **options):
  study = biovid.open_study(root, modalities=modalities)
  found = biovid.check(study, whole=whole, **SMALL | options)
  return [str(f).replace(f'{root}/', '') for f in found]


class TestReader:
  def test_samples_are_those_of_the_list_in_its_order(self, sound):
    study = biovid.open_study(sound)
    rows = biovid_rows()
    assert [s.name for s in study.samples] == [row[5] for row in rows]
    assert study.level_array().tolist() == [int(row[2]) for row in rows]
    assert study.subject_array().tolist() == [row[1] for row in rows]
    assert study.subjects == PEOPLE
    assert study.levels == ('BL1', 'PA1', 'PA2', 'PA3', 'PA4')
    assert study.modalities == biovid.MODALITIES
    assert study.splits == {} and study.findings == ()

  def test_signals_are_paired_by_name(self, sound):
    study = biovid.open_study(sound)
    for number, sample in enumerate(study.samples):
      for column in ('gsr', 'emg_zygomaticus'):
        values, rate = load_signal(sample, column)
        assert rate == 512 and values.dtype == np.float64
        np.testing.assert_array_equal(
          values, biovid_signal(sample.name, column, length=2815 + number % 3)
        )
      assert video_path(sample) == biovid_video_path(sound, biovid_rows()[number])

  def test_listing_opens_no_signal(self, folder):
    shutil.rmtree(folder / 'biosignals_filtered')
    shutil.rmtree(folder / 'video')
    study = biovid.open_study(folder)
    assert len(study.samples) == 10
    with pytest.raises(InputError, match='cannot be read: No such file'):
      load_signal(study.samples[0], 'gsr')
    with pytest.raises(InputError, match='there is no video'):
      video_path(study.samples[0])

  def test_a_changed_file_is_read_anew(self, folder):
    sample = biovid.open_study(folder).samples[0]
    before, _ = load_signal(sample, 'gsr')
    write_biovid_table(sample.data['gsr'].path, 'other', length=2817)
    after, _ = load_signal(sample, 'gsr')
    assert len(after) == 2817 and not np.array_equal(before, after[: len(before)])

  def test_result_may_be_changed_without_harm(self, sound):
    sample = biovid.open_study(sound).samples[0]
    load_signal(sample, 'gsr')[0][:] = 0
    assert load_signal(sample, 'gsr')[0].any()

  def test_only_wanted_modalities(self, sound):
    study = biovid.open_study(sound, modalities=('ecg',))
    assert study.modalities == ('ecg',)
    with pytest.raises(InputError, match='has no gsr; it has ecg'):
      load_channels(study.samples[0], 'gsr')

  def test_unknown_modalities(self, sound):
    with pytest.raises(InputError, match='BioVid has gsr, ecg.* not eeg'):
      biovid.open_study(sound, modalities=('eeg',))

  def test_no_modality_of_its_own(self, sound):
    """As where all that is looked at lies in folders of the user's."""
    study = biovid.open_study(sound, modalities=())
    assert study.modalities == () and not biovid.check(
      study, whole=True, subjects=None, per_level=None
    )

  def test_no_list(self, tmp_path):
    with pytest.raises(InputError, match='no BioVid folder: there is no .*samples.csv'):
      biovid.open_study(tmp_path)

  def test_list_with_other_separator(self, folder):
    path = folder / 'starting_point' / 'samples.csv'
    path.write_text(path.read_text().replace('\t', ','))
    with pytest.raises(InputError, match='has no column subject_id.*separated by tabs'):
      biovid.open_study(folder)

  def test_list_of_nothing_usable(self, folder):
    write_list(folder, [[*row[:2], '9', *row[3:]] for row in biovid_rows()])
    with pytest.raises(InputError, match='no usable sample; the first finding: .*class_id 9'):
      biovid.open_study(folder)

  @pytest.mark.parametrize(
    'content, message',
    [
      (b'', 'is empty'),
      (b'gsr\tecg\n', 'no rows below'),
      (b'ecg\tgsr\n1\tx\n', "'gsr' is not all numbers .line 2: 'x'"),
      (b'gsr\tecg\n1\t2\n3\n', 'line 3: expected 2 cells'),
      (b'gsr\n\x00\xfe\n', 'no table of text'),
      (b'gsr\n\xff\xfe\n', "'gsr' is not all numbers .line 2"),
      (b'ecg\n1\n', "no column 'gsr' .there: ecg"),
    ],
  )
  def test_broken_tables(self, folder, content, message):
    sample = biovid.open_study(folder).samples[0]
    sample.data['gsr'].path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
      load_signal(sample, 'gsr')
    assert '\n' not in str(caught.value)


class TestCheck:
  @pytest.mark.parametrize('whole', [False, True])
  def test_sound_folder(self, sound, whole):
    assert texts(sound, whole=whole) == []

  def test_counts_of_the_real_dataset_are_the_default(self, sound):
    found = [str(f) for f in biovid.check(biovid.open_study(sound), whole=False)]
    assert found[0] == 'starting_point/samples.csv: 2 subjects, not 87'
    assert found[1] == (
      f'{PEOPLE[0]}: 5 samples, not 100: 1 BL1, 1 PA1, 1 PA2, 1 PA3, 1 PA4 instead of 20 each'
    )
    assert len(found) == 3

  def test_missing_extra_and_empty_files(self, folder):
    rows = biovid_rows()
    biovid_table_path(folder, rows[1]).unlink()
    biovid_table_path(folder, rows[2]).write_bytes(b'')
    biovid_video_path(folder, rows[3]).unlink()
    (folder / 'video' / PEOPLE[0] / 'holiday.mp4').write_bytes(b'x')
    for whole in (False, True):
      assert texts(folder, whole=whole) == [
        f'biosignals_filtered/{PEOPLE[0]}/{rows[1][5]}_bio.csv: no such file',
        f'biosignals_filtered/{PEOPLE[0]}/{rows[2][5]}_bio.csv: the file is empty',
        f'video/{PEOPLE[0]}/{rows[3][5]}.mp4: no such file',
        f'video/{PEOPLE[0]}/holiday.mp4: not in the list of samples',
      ]

  def test_missing_folders_are_one_finding_each(self, folder):
    shutil.rmtree(folder / 'video')
    shutil.rmtree(folder / 'biosignals_filtered' / PEOPLE[1])
    assert texts(folder) == [
      'video: no such folder; 10 files should be in it; configs/assess_biovid.py:signals does '
      'without videos',
      f'biosignals_filtered/{PEOPLE[1]}: no such folder; 5 files should be in it',
    ]

  def test_modalities_that_are_not_used_may_be_absent(self, folder):
    shutil.rmtree(folder / 'video')
    assert texts(folder, modalities=('gsr',)) == []

  def test_rows_and_columns(self, folder):
    rows = biovid_rows()
    where = [f'biosignals_filtered/{row[1]}/{row[5]}_bio.csv' for row in rows]
    write_biovid_table(biovid_table_path(folder, rows[0]), 'a', length=2814)
    write_biovid_table(biovid_table_path(folder, rows[4]), 'b', columns=('gsr', 'ecg'))
    write_biovid_table(biovid_table_path(folder, rows[6]), 'c', length=2818)
    found = texts(folder)
    assert found == [
      f'{where[0]}: 2814 rows, not 2816',
      f'{where[4]}: no column emg_trapezius, emg_corrugator, emg_zygomaticus; it has '
      'time, gsr, ecg',
      f'{where[6]}: 2818 rows, not 2816',
    ]
    assert texts(folder, whole=False) == []
    assert texts(folder, modalities=('gsr', 'ecg'))[1:] == found[2:]

  def test_signals(self, folder):
    rows = biovid_rows()
    n = 2816
    holes = biovid_signal('a', 'ecg')
    holes[100:110] = np.nan
    write_biovid_table(
      biovid_table_path(folder, rows[0]),
      'a',
      replace={
        'gsr': np.full(n, 3.25),
        'ecg': holes,
        'emg_trapezius': np.clip(3 * biovid_signal('a', 'x'), -3, 3),
        'emg_corrugator': np.full(n, np.nan),
      },
    )
    where = f'biosignals_filtered/{PEOPLE[0]}/{rows[0][5]}_bio.csv'
    found = texts(folder, whole=True)
    assert found[:2] == [f'{where}: gsr: flat', f'{where}: ecg: 10 of 2816 values are no number']
    assert found[2].startswith(f'{where}: emg_trapezius: clipped: ')
    assert found[3:] == [f'{where}: emg_corrugator: no finite value']

  def test_samples_that_would_mislead_are_unusable(self, folder):
    """Each is a finding by name, and is left out by what embeds it."""
    rows = biovid_rows()
    n = 2816
    blank = {column: biovid_signal('b', column) for column in ('gsr', 'ecg')}
    blank['gsr'][:2540] = np.nan
    blank['ecg'][280:] = np.nan
    off = 5 + 0.001 * np.random.default_rng(0).integers(0, 2, n)
    odd = np.full(n, 3.0)
    odd[1000] = 9.0
    tables = {
      0: dict(replace=blank),
      1: dict(length=280),
      2: dict(length=28160),
      4: dict(replace={'gsr': off, 'ecg': odd}),
      5: dict(times=np.arange(n) / 256),
      6: dict(times=np.arange(n) / 512 + 2.0 * (np.arange(n) >= 1500)),
      7: dict(times=np.arange(n)[::-1] * 1953),
    }
    for number, options in tables.items():
      write_biovid_table(biovid_table_path(folder, rows[number]), f'odd {number}', **options)
    study = biovid.open_study(folder, modalities=('gsr', 'ecg'))
    found = biovid.check(study, whole=True, **SMALL)
    assert all(f.unusable for f in found)
    kinds = [(number, f.kind) for f in found for number in range(10) if rows[number][5] in f.where]
    assert kinds == [
      *((0, 'blank'), (0, 'blank'), (1, 'length'), (2, 'length'), (4, 'flat'), (4, 'flat')),
      *((5, 'time'), (6, 'time'), (7, 'time')),
    ]
    reader = SampleReader(EmbeddingSettings(source='gsr'), channels=('gsr',), image_size=32)
    for number, sample in enumerate(study.samples):
      if number in tables:
        with pytest.raises(InputError):
          list(reader.images(sample, log=print))
      else:
        assert len(list(reader.images(sample, log=print))) == 4

  def test_a_row_more_or_less_changes_no_picture(self, folder):
    """Tables of 2815 and 2817 rows: as many columns, and all but the same pixels."""
    sample = biovid.open_study(folder, modalities=('gsr',)).samples[1]
    reader = SampleReader(EmbeddingSettings(source='gsr'), channels=('gsr',), image_size=224)
    pictures = {}
    for length in (2815, 2816, 2817):
      values = biovid_signal('a', 'gsr', length=2817)[:length]
      write_biovid_table(
        sample.data['gsr'].path, 'a', length=length, columns=('gsr',), replace={'gsr': values}
      )
      pictures[length] = np.stack([i.image for i in reader.images(sample, log=print)]).astype(int)
    np.testing.assert_array_equal(pictures[2817], pictures[2816])
    assert np.abs(pictures[2815] - pictures[2816]).mean() < 0.05

  def test_the_same_recording_twice(self, folder):
    rows = biovid_rows()
    paths = [biovid_table_path(folder, row) for row in rows]
    shutil.copy(paths[0], paths[7])  # Of another person and level.
    # With other columns beside it, from the 40th row on; of the same person.
    values = biovid_signal(rows[1][5], 'ecg', length=2816)
    later = np.concatenate([biovid_signal('z', 'ecg')[:40], values])[:2816]
    write_biovid_table(paths[3], 'other', replace={'ecg': later})
    found = biovid.check(biovid.open_study(folder, modalities=('gsr', 'ecg')), whole=True, **SMALL)
    assert [f.kind for f in found] == ['duplicate'] * 2
    assert {f.samples for f in found} == {(rows[0][5], rows[7][5]), (rows[1][5], rows[3][5])}
    assert {
      source for f in found for c in f.copies for name, source in c.recordings if name == rows[7][5]
    } == {'gsr', 'ecg'}

  def test_coarse_digits_are_not_clipping(self, folder):
    rows = biovid_rows()
    slow = np.round(np.sin(np.linspace(0, 3, 2816)) * 20) / 10
    write_biovid_table(biovid_table_path(folder, rows[0]), 'a', replace={'gsr': slow})
    assert texts(folder, whole=True) == []

  def test_text_in_a_table(self, folder):
    path = biovid_table_path(folder, biovid_rows()[0])
    path.write_text(path.read_text().replace('\n1953\t', '\nnow\t', 1))
    (found,) = texts(folder, whole=True)
    assert "column 'time' is not all numbers (line 3: 'now')" in found

  @pytest.mark.parametrize(
    'column, value, problem',
    [
      (2, '3', 'class_id 3 is not that of PA4, 4'),
      (2, 'four', 'class_id four is not that of PA4, 4'),
      (3, 'PA5', "class_name 'PA5' is none of BL1, PA1, PA2, PA3, PA4"),
      (1, 'Anna', "subject_name 'Anna' is not like 071309_w_21"),
      (5, f'{PEOPLE[1]}-PA4-030', f'is not like {PEOPLE[0]}-PA4-034'),
      (5, f'{PEOPLE[0]}-PA3-030', f'is not like {PEOPLE[0]}-PA4-034'),
      (0, '2', f'subject_id 2 is {PEOPLE[0]} above, {PEOPLE[1]} here'),
    ],
  )
  def test_rows_that_contradict_themselves(self, folder, column, value, problem):
    rows = biovid_rows()
    rows[0][column] = value
    write_list(folder, rows)
    study = biovid.open_study(folder)
    listed = [f for f in study.findings if problem in f.what]
    line = 7 if column == 0 else 2
    assert listed[0].where == f'starting_point/samples.csv, line {line}'
    assert len(study.samples) == (5 if column == 0 else 9)
    assert problem in texts(folder)[0]

  def test_a_sample_listed_twice(self, folder):
    rows = biovid_rows()
    write_list(folder, [*rows, rows[3]])
    assert texts(folder) == [f'starting_point/samples.csv, line 12: {rows[3][5]} is listed twice']

  def test_a_short_line(self, folder):
    rows = biovid_rows()
    write_list(folder, [rows[0][:4], *rows[1:]])
    assert texts(folder)[0] == 'starting_point/samples.csv, line 2: 4 cells, not 6'
    assert texts(folder)[1] == (f'{PEOPLE[0]}: 4 samples, not 5: 0 PA4 instead of 1 each')

  def test_progress(self, sound):
    lines = []
    biovid.check(biovid.open_study(sound), whole=True, **SMALL, log=lines.append)
    assert lines == [f'1 of 2  {PEOPLE[0]}', f'2 of 2  {PEOPLE[1]}']
