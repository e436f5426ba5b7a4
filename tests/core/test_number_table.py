"""Columns of numbers from text: gaps, text among them, lines that are named."""

import gzip
import json
import math
import re

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from painformer_jax.core import text_format
from painformer_jax.core.errors import InputError
from painformer_jax.core.number_table import read_numbers

quick = settings(
  max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@quick
@given(st.lists(st.tuples(st.floats(width=32), st.floats(width=32)), min_size=1, max_size=9))
def test_numbers_that_numpy_writes_are_read(tmp_path, rows):
  for suffix, delimiter in (('.csv', ','), ('.csv', ';'), ('.csv', '\t'), ('.tsv', '\t')):
    path = tmp_path / f'table{suffix}'
    np.savetxt(path, rows, delimiter=delimiter, header=delimiter.join(('a ', 'b')), comments='')
    for stated in (delimiter, None):
      table = read_numbers(path, delimiter=stated, only_numbers=True)
      assert table.names == ('a', 'b') and len(table) == len(rows)
      np.testing.assert_array_equal(table.array, np.array(rows))
    path.write_text('\n'.join(delimiter.join(map(repr, row)) for row in rows))
    np.testing.assert_array_equal(read_numbers(path, header=False).array, np.array(rows))


@settings(quick, max_examples=150)
@given(
  rows=st.lists(st.tuples(*[st.floats(allow_nan=False, allow_infinity=False)] * 2), min_size=1),
  separator=st.sampled_from(',;\t'),
  decimal=st.sampled_from('.,'),
  encoding=st.sampled_from(
    ['utf-8', 'utf-8-sig', 'utf-16', 'utf-16-le', 'utf-16-be', 'utf-32', 'latin-1']
  ),
  end=st.sampled_from(['\n', '\r\n']),
  named=st.booleans(),
  trailing=st.booleans(),
)
def test_a_table_gives_the_same_numbers_however_it_is_written(
  tmp_path, rows, separator, decimal, encoding, end, named, trailing
):
  """Or is refused, where a comma may mean two things."""
  cells = [[repr(value).replace('.', decimal) for value in row] for row in rows]
  if separator == decimal:
    cells = [[f'"{cell}"' for cell in row] for row in cells]
  lines = [separator.join(row) + separator * trailing for row in cells]
  if named:
    lines.insert(0, f'Zeit{separator}EDA [\xb5S]')
  path = tmp_path / 'table.CSV'
  path.write_bytes((end.join(lines) + end).encode(encoding))
  try:
    table = read_numbers(path, header=False)
    found = np.stack([table.column(0), table.column(1)], axis=1)
  except InputError as error:
    marked = [cell.strip('"') for row in cells for cell in row if decimal in cell]
    assert all(re.fullmatch(r'-?[1-9]\d{0,2}[.,]\d{3}', cell) for cell in marked)
    assert 'separate thousands' in str(error)
  else:
    np.testing.assert_array_equal(found, np.array(rows))
    assert table.names == (('Zeit', 'EDA [\xb5S]') if named else ('f0', 'f1'))
    assert table.named == named


@pytest.mark.parametrize(
  'name, content, where',
  [
    # One number with a decimal comma, or two?
    ('a.csv', '0,05\n0,12\n', 'decimal commas'),
    ('a.tsv', '10,5\n11,2\n', 'decimal commas'),
    ('a.csv', 'time,ecg\n0,001,0,53\n', 'line 2: .*if commas are decimal'),
    ('a.csv', 'a,b\n"1,234","2,345"\n', "line 2, column 'a': '1,234' may have a decimal comma"),
    ('a.csv', 'a;b\n0,5;1,5\n0,5;1.5\n', "line 3: '1.5' after numbers with ','"),
    ('a.csv', 'a;b\n0,5;1.234,5\n0,5;1,234.5\n', "line 3: '1,234.5' after numbers with ','"),
    ('a.csv', 's;t\nab;cd\n1;2\n', 'lines 1 and 2 may both name the columns'),
    ('a.csv', 'Subject: 1\necg\n1\n2\n', 'lines 1 and 2 may both name the columns'),
    ('a.csv', 'a,b\nx,1.5\n2,2.5\n3,3.5\n4,4.5\n', "line 2: 'x'"),
    ('a.csv', 'a,b\n1.5x1.5\n2,2.5\n3,3.5\n4,4.5\n', "line 2: .*'1.5x1.5'"),
    ('a.csv', 'a\n-\n2\n3\n4\n5\n', 'lines 1 and 2 may both name'),
    ('a.csv', 'a,b\nerr,err\n2,2.5\n3,3.5\n4,4.5\n', "line 2: 'err'"),
    ('a.csv', '1.5x,1.5\n2,2.5\n3,3.5\n4,4.5\n', 'line 1: .* may be names or numbers'),
    ('a.csv', '5,12\n5,34\n5,66\n', 'decimal commas or separate numbers'),
    ('a.csv', 'a\n1\n2\n\n3\n4\n5\n', 'line 4 is blank: write nan'),
    ('a.csv', 'a,b\n#REF!,1.5\n2,2.5\n3,3.5\n', "line 2: '#REF!'"),
    ('a.csv', 'a;b\n1,5;2\n"1;3\n2;4\n2;4\n', 'line '),
    ('a.csv', 'time\ns\n1,07220;9\n-1,23\n2,50\n', 'lines 1 and 2 may both name'),
    ('a.csv', '"0\n1\n2\n3\n', 'may be names or numbers'),
    ('a.csv', '0;-2,15;err\n1;2,5;3,5\n2;2,5;3,5\n', 'line 1: .* may be names or numbers'),
    ('a.csv', '1.5x1.5\n2,2.5\n3,3.5\n4,4.5\n', 'line [12]: '),
    ('a.csv', b'PK\x03\x04\x14,1\n', 'workbook .* save its sheet as CSV'),
    ('a.csv', b'\x1f\x8b\x08garbage', 'is damaged'),
    ('a.csv', b'\xd0\xcf\x00\x00\x01a\n', 'control characters'),
  ],
)
def test_what_may_mean_two_things_is_refused(tmp_path, name, content, where):
  (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
  with pytest.raises(InputError, match=where) as caught:
    table = read_numbers(tmp_path / name, header=False)
    [table.column(n) for n in range(len(table.names))]
  assert str(caught.value).startswith(str(tmp_path / name))


@pytest.mark.parametrize(
  'content, names, first',
  [
    ('ecg\n0,5\n0,25\n', ('ecg',), [0.5]),
    ('# Device x, y\n# a,b\n1,2\n3,4\n', ('a', 'b'), [1, 2]),
    ('# 512 Hz\na,b\n1,2\n', ('a', 'b'), [1, 2]),
    ('# 512 Hz\n1,2\n3,4\n', ('f0', 'f1'), [1, 2]),
    (',0,1\n0,1.5,2\n1,2.5,3\n', ('', '0', '1'), [0, 1.5, 2]),  # pandas
    ('0,1,2\n5.5,6.5,7\n', ('0', '1', '2'), [5.5, 6.5, 7]),
    ('t,0,0.1\n5.5,6.5,7\n', ('t', '0', '0.1'), [5.5, 6.5, 7]),
    ('a\n\n1\n\n2\n\n3\n\n', ('a',), [1]),
    ('a\n1\n""\n2\n3\n', ('a',), [1]),
    ('10,512\n11,498\n12,505\n', ('f0', 'f1'), [10, 512]),
    ('512,-498\n510,505\n530,505\n', ('f0', 'f1'), [512, -498]),
    ('0,1,2\n5,6,7\n', ('f0', 'f1', 'f2'), [0, 1, 2]),
    ('a;b;\n1;2;\n', ('a', 'b'), [1, 2]),
    ('sep=;\na;b\n1,5;2\n', ('a', 'b'), [1.5, 2]),
    ('"sep=,"\r\na,b\r\n1.5,2\r\n', ('a', 'b'), [1.5, 2]),
    ('a;b\n1;2;\n', ('a', 'b'), [1, 2]),
    (',,\n,,\na,b,c\n1,2,3\n', ('a', 'b', 'c'), [1, 2, 3]),
    (',\n1,2\n', ('f0', 'f1'), [math.nan, math.nan]),
  ],
)
def test_lines_above_the_numbers(tmp_path, content, names, first):
  (tmp_path / 'a.csv').write_text(content)
  table = read_numbers(tmp_path / 'a.csv', header=False)
  assert table.names == names
  np.testing.assert_array_equal(table.array[0], first)


@pytest.mark.parametrize(
  'content, values',
  [
    # Both marks in one cell, or a mark twice, settle what the others mean.
    ('t;a\n0.5;999.25\n1.5;1,001.25\n', [[0.5, 999.25], [1.5, 1001.25]]),
    ('t;a\n0,5;999,25\n1,5;1.001,25\n', [[0.5, 999.25], [1.5, 1001.25]]),
    ('t;a\n1;1,001\n2;1,234,567\n', [[1, 1001], [2, 1234567]]),
    ('t;a\n1;1.001\n2;1.234.567\n', [[1, 1001], [2, 1234567]]),
    ('a,b\n"1,234.5","1,001"\n', [[1234.5, 1001]]),
    # Apostrophes and spaces separate nothing else.
    ("t;a\n1;1'001\n2;1'234'567.5\n", [[1, 1001], [2, 1234567.5]]),
    ('t;a\n1;1\xa0001\n2;-1\u202f234,567\n', [[1, 1001], [2, -1234.567]]),
    ('t;a\n1;1 001,5\n2;\u22122,25\n', [[1, 1001.5], [2, -2.25]]),
    # Numbers below a thousand have no mark, and marks of the other kind are decimal.
    ('t;a\n0.001;999\n0.002;1,001\n', [[0.001, 999], [0.002, 1001]]),
    ('t\ta\n0.001\t-999\n0.002\t-1,001\n', [[0.001, -999], [0.002, -1001]]),
    ('t;a\n0,001;999\n0,002;1.001\n', [[0.001, 999], [0.002, 1001]]),
    # The same mark is surely decimal elsewhere.
    ('t;a\n0,001;1,001\n', [[0.001, 1.001]]),
    ('t;a\n0.001;999\n0.002;1.001\n', [[0.001, 999], [0.002, 1.001]]),
    ('t;a\n0,5;1.5\n', [[0.5, 1.5]]),
    # Points are decimal where nothing speaks against it.
    ('t;a\n1;1.001\n2;5.125\n', [[1, 1.001], [2, 5.125]]),
    ('t;a\n1;1000\n2;1.001\n', [[1, 1000], [2, 1.001]]),
  ],
)
def test_one_meaning_of_points_and_commas_in_a_table(tmp_path, content, values):
  (tmp_path / 'a.csv').write_text(content, encoding='utf-8')
  np.testing.assert_array_equal(read_numbers(tmp_path / 'a.csv', header=False).array, values)


@pytest.mark.parametrize(
  'content, cell',
  [
    ('t;a\n1;999\n2;1,001\n', '1,001'),
    ('t;a\n1;999\n2;1.001\n', '1.001'),
    ('t;a\n0.001;1,001\n0.002;1,002\n', '1,001'),
    ('t;a\n0,001;1.001\n0,002;1.002\n', '1.001'),
    ('a,b\n"1,5","2.5"\n"2,5","1,001"\n"1","2.5"\n', '1,001'),
    ('t;a\n0.001;1234\n0.002;1,001\n', '1,001'),
    ('a\n1,001\n1.001\n', '1.001'),
    ('a\n0,5\n1.501\n', '1.501'),
    ('t;a\n1;999\n2;1.001\n3;err\n', '1.001'),
  ],
)
def test_numbers_that_may_have_thousands_are_refused(tmp_path, content, cell):
  (tmp_path / 'a.csv').write_text(content)
  table = read_numbers(tmp_path / 'a.csv', header=False)
  with pytest.raises(InputError, match=f"line ., column '.': '{cell}' may have a decimal"):
    [table.column(n, 0, 2) for n in range(len(table.names))]


@pytest.mark.parametrize(
  'content',
  [
    'Device: X\nDate: 2024\n\ntime,ecg\n0,1.5\n1,2.5\n',
    'Subject,12\nDate,2024\ntime,ecg\n0,1.5\n1,2.5\n',
    'time,ecg\ns,mV\n0,1.5\n1,2.5\n',
    'X,X\ntime,ecg\nCAL,CAL\n[s],(mV)\n0,1.5\n1,2.5\n',
    '% device\ntime,ecg\n% more\n0,1.5\n1,2.5\n',
    'time|ecg\n0|1.5\n1|2.5\n',
    'time ecg\n0 1.5\n1 2.5\n',
    '  time    ecg\n\n  0      1.5\n  1      2.5\n',
    '# time ecg\n0 1.5\n1  2.5\n',
    'sep=|\ntime|ecg\n0|1.5\n1|2.5\n',
  ],
)
def test_names_below_notes_above_units_by_any_separator(tmp_path, content):
  (tmp_path / 'a.csv').write_text(content)
  for header in False, True:
    table = read_numbers(tmp_path / 'a.csv', header=header)
    assert table.names == ('time', 'ecg')
    np.testing.assert_array_equal(table.array, [[0, 1.5], [1, 2.5]])
    notes = content.startswith(('Device', 'Subject', 'time,ecg', 'X'))
    assert bool(table.head.remarks) == notes


def test_names_with_spaces_between_columns_of_spaces(tmp_path):
  (tmp_path / 'a.txt').write_text('Time (s)   ECG raw\n0   1.5\n1   2.5\n')
  assert read_numbers(tmp_path / 'a.txt').names == ('Time (s)', 'ECG raw')


@pytest.mark.parametrize('trailing', ['', '\t'])
def test_the_header_of_open_signals(tmp_path, trailing):
  device = {'column': ['nSeq', 'I1', 'A1'], 'label': ['A1'], 'sensor': ['ECG']}
  text = json.dumps({'00:07': device | {'sampling rate': 1000}})
  rows = ''.join(f'{n}\t0\t{n + 500}{trailing}\n' for n in range(3))
  (tmp_path / 'a.txt').write_text(
    f'# OpenSignals Text File Format\n# {text}\n# EndOfHeader\n{rows}'
  )
  table = read_numbers(tmp_path / 'a.txt', header=False)
  assert table.names == ('nSeq', 'I1', 'A1') and table.head.rate == 1000
  assert table.index('ecg') == table.index('A1') == 2 and table.line(0) == 4
  np.testing.assert_array_equal(table.column(2), [500, 501, 502])


@pytest.mark.parametrize('columns', [1, 3])
def test_the_first_lines_of_an_e4(tmp_path, columns):
  lines = [[1704100000.0], [4.0], [0.5], [0.25], [0.125]]
  text = '\n'.join(', '.join(f'{v:f}' for v in line * columns) for line in lines)
  (tmp_path / 'EDA.csv').write_text(text + '\n')
  table = read_numbers(tmp_path / 'EDA.csv', header=False)
  assert (table.head.rate, len(table), table.line(0)) == (4.0, 3, 3)
  np.testing.assert_array_equal(table.array[:, columns - 1], [0.5, 0.25, 0.125])
  assert 'Unix time 1704100000' in table.head.remarks[0]
  # Times in a column are none of it, nor is another first number.
  for other in ('1704100000\n1704100001\n1704100002\n1704100003\n', '5\n4\n0.5\n0.25\n'):
    (tmp_path / 'a.csv').write_text(other)
    table = read_numbers(tmp_path / 'a.csv', header=False)
    assert (table.head.rate, len(table)) == (0, 4)


@pytest.mark.parametrize('name', ['a.csv.gz', 'a.TSV.GZ', 'a.csv'])
def test_compressed_text(tmp_path, name, monkeypatch):
  delimiter = '\t' if 'TSV' in name else ','
  text = 'a,b\n1,2.5\n3,4.5\n'.replace(',', delimiter)
  (tmp_path / name).write_bytes(gzip.compress(text.encode()))
  table = read_numbers(tmp_path / name)
  assert table.names == ('a', 'b')
  np.testing.assert_array_equal(table.array, [[1, 2.5], [3, 4.5]])
  monkeypatch.setattr(text_format, 'MOST_BYTES', 10)
  with pytest.raises(InputError, match='MiB of text: decompress it'):
    read_numbers(tmp_path / name)
  (tmp_path / name).write_bytes(gzip.compress(text.encode() * 99)[:-9])
  monkeypatch.undo()
  with pytest.raises(InputError, match='is damaged'):
    read_numbers(tmp_path / name)


def test_columns_by_name_and_number(tmp_path):
  (tmp_path / 'a.csv').write_text('Time,ECG (mV),ecg2,x,X,y,y,0\n' + '1,2,3,4,5,6,7,8\n')
  table = read_numbers(tmp_path / 'a.csv')
  wanted = {'time': 0, 'ECG': 1, 'ecg (MV)': 1, 'x': 3, 'X': 4, '5': 5, '0': 7}
  assert {name: table.index(name) for name in wanted} == wanted
  for name, words in (('y', 'has 2 columns .* 5, 6'), ('8', "no column '8'"), ('-1', "'-1'")):
    with pytest.raises(InputError, match=words):
      table.index(name)


def test_dates_and_times_of_day_in_seconds(tmp_path):
  (tmp_path / 'a.csv').write_text(
    'a,b,c\n2024-03-01 23:59:59.5,9:59:59.75,1\n2024-03-02T00:00:00.250,10:00:00,2\n'
  )
  table = read_numbers(tmp_path / 'a.csv')
  np.testing.assert_array_equal(table.seconds(0), [0, 0.75])
  np.testing.assert_array_equal(table.seconds(1), [0, 0.25])
  assert table.seconds(2) is None and [table.line(n) for n in (0, 1)] == [2, 3]


@pytest.mark.parametrize('gap', ['', '  ', 'NA', 'nan', '""'])
def test_gaps_and_untidy_numbers(tmp_path, gap):
  path = tmp_path / 'x.csv'
  path.write_text(f'\ufeff\n"a, b",c\r\n 1, +2.5\r\n\r\n{gap},"3e1"\n7,{gap}')
  table = read_numbers(path, only_numbers=True)
  assert table.names == ('a, b', 'c')
  np.testing.assert_array_equal(table.array, [[1, 2.5], [math.nan, 30], [7, math.nan]])
  with pytest.raises(ValueError, match='read-only'):
    table.array[0] = 0


def test_a_column_of_text_hinders_only_those_who_read_it(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_bytes(b'when,ecg\n10:00,1\n10:01 \xb5,2.5\n')
  table = read_numbers(path)
  np.testing.assert_array_equal(table.column(1, 1), [2.5])
  with pytest.raises(InputError, match="column 'when' is not all numbers"):
    table.column(0)
  with pytest.raises(InputError, match="line 2: expected 2 numbers, found '10:00,1'"):
    read_numbers(path, only_numbers=True)


def test_whole_numbers_before_others_in_a_long_file(tmp_path):
  """Arrow alone would take the type of a column from the first megabyte."""
  path = tmp_path / 'x.csv'
  path.write_text('a\n' + '1\n' * 1_000_000 + '0.5\n')
  assert read_numbers(path).column(0, 999_999).tolist() == [1, 0.5]


@pytest.mark.parametrize(
  'content,message',
  [
    ('', 'is empty'),
    ('\n\n', 'is empty'),
    ('a,b\n', 'has no rows below'),
    ('a,b\n1,2\n3\n', "line 3: expected 2 cells, found '3'"),
    ('a,b\n1,2\n\n3,x\n', "line 4: expected 2 numbers, found '3,x'"),
    (b'a\n\xff\n', "line 2: expected 1 numbers, found 'ÿ'"),
  ],
)
def test_malformed_numbers(tmp_path, content, message):
  path = tmp_path / 'table.csv'
  path.write_bytes(content.encode() if isinstance(content, str) else content)
  with pytest.raises(InputError, match=message) as caught:
    read_numbers(path, only_numbers=True)
  assert '\n' not in str(caught.value)
