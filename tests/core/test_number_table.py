"""Columns of numbers from text: gaps, text among them, lines that are named."""

import math

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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
  with pytest.raises(InputError, match='is no table of text'):
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
    (b'a\n\xff\n', 'is no table of text: .*utf-8'),
  ],
)
def test_malformed_numbers(tmp_path, content, message):
  path = tmp_path / 'table.csv'
  path.write_bytes(content.encode() if isinstance(content, str) else content)
  with pytest.raises(InputError, match=message) as caught:
    read_numbers(path, only_numbers=True)
  assert '\n' not in str(caught.value)
