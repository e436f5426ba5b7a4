"""Tables that come with datasets: CSV, TSV and Parquet, tidy and untidy."""

import csv
import io

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from painformer_jax.core.delimited import column_names, read_rows
from painformer_jax.core.errors import InputError

quick = settings(
  max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)

CELL = st.text(st.characters(codec='utf-8', exclude_characters='\r\n\x00\ufeff'), max_size=8).map(
  str.strip
)


def field(draw, text):
  """One way or another to write a field down."""
  if '"' in text or ',' in text or draw(st.booleans()):
    text = '"' + text.replace('"', '""') + '"'
  return ' ' * draw(st.integers(0, 2)) + text


@st.composite
def written_tables(draw):
  """Rows of three cells, and a text that holds them as untidy CSV."""
  rows = draw(st.lists(st.tuples(CELL, CELL, CELL).filter(any), max_size=6))
  ends = st.sampled_from(['\n', '\r\n', ',\n', ' ,\n', '\n\n', '\n,,\n'])
  head = draw(st.sampled_from(['', '\ufeff']))
  text = f'{head}Path , LABEL,"split"{draw(ends)}' + ''.join(
    ','.join(field(draw, cell) for cell in row) + draw(ends) for row in rows
  )
  return rows, text


@quick
@given(written_tables())
def test_untidy_csv_gives_its_cells_back(tmp_path, table):
  rows, text = table
  path = tmp_path / 'table.csv'
  path.write_bytes(text.encode())
  found = [
    tuple(row[c] for c in ('path', 'label', 'split'))
    for row in read_rows(path, required=('label',))
  ]
  assert found == rows


@quick
@given(st.lists(st.tuples(CELL, CELL).filter(any), max_size=5))
def test_what_python_writes_as_csv_and_tsv_is_read(tmp_path, rows):
  for suffix, delimiter in (('.csv', ','), ('.tsv', '\t')):
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerows([('a', 'b'), *rows])
    path = tmp_path / f'table{suffix}'
    path.write_text(text.getvalue(), encoding='utf-8', newline='')
    assert [(r['a'], r['b']) for r in read_rows(path)] == rows


def test_semicolons_and_missing_headers(tmp_path):
  (tmp_path / 'a.csv').write_text('path;label\nx.jpg;cat, or dog\n')
  (row,) = read_rows(tmp_path / 'a.csv')
  assert (row['path'], row['label']) == ('x.jpg', 'cat, or dog')
  (tmp_path / 'tabs.csv').write_text('path\tlabel\nx.jpg\tcat, or dog\n')
  (row,) = read_rows(tmp_path / 'tabs.csv', required=('label',))
  assert (row['path'], row['label']) == ('x.jpg', 'cat, or dog')
  (tmp_path / 'b.csv').write_text('x.jpg,3\ny.jpg,4\n')
  rows = list(read_rows(tmp_path / 'b.csv', required=('Label',), header=('Path', 'Label')))
  assert [(r['Path'], r['Label']) for r in rows] == [('x.jpg', '3'), ('y.jpg', '4')]
  assert rows[0].where.endswith('b.csv, row 1')


def test_lists_inside_cells_do_not_pass_for_cells(tmp_path):
  (tmp_path / 'a.csv').write_text('x.jpg,1;2;3,7\ny.jpg,4;5;6,8\n')
  rows = list(read_rows(tmp_path / 'a.csv', header=('path', 'points', 'label')))
  assert [(r['path'], r['points'], r['label']) for r in rows][1] == ('y.jpg', '4;5;6', '8')


def test_tables_in_utf_16(tmp_path):
  (tmp_path / 'a.csv').write_bytes('Path;label\nM\xfcller.jpg;a, b\n'.encode('utf-16'))
  [row] = read_rows(tmp_path / 'a.csv', required=('path',))
  assert (row['path'], row['label']) == ('M\xfcller.jpg', 'a, b')


@pytest.mark.parametrize(
  'content,message',
  [
    ('', 'is empty'),
    ('a,b\n1,2\n', "has no column 'label' .there: a, b."),
    ('label,Label\n1,2\n', "two columns 'label'"),
    ('label\n1,2\n', 'row 2: 2 values in 1 columns; quote'),
    ('label\n\n\n1,2\n', 'row 4: 2 values'),
    (b'label\n\xff\n', 'is no table of text: .*utf-8'),
  ],
)
def test_malformed_tables(tmp_path, content, message):
  path = tmp_path / 'table.csv'
  path.write_bytes(content.encode() if isinstance(content, str) else content)
  with pytest.raises(InputError, match=message) as caught:
    list(read_rows(path, required=('label',)))
  assert '\n' not in str(caught.value)


def test_tables_of_other_types(tmp_path):
  (tmp_path / 'x.xlsx').write_bytes(b'PK')
  (tmp_path / 'x.parquet').write_bytes(b'PAR1 and no more')
  (tmp_path / 'x.doc').write_bytes(b'x')
  with pytest.raises(InputError, match='is no table, only .csv, .tsv, .parquet'):
    list(read_rows(tmp_path / 'x.doc'))
  with pytest.raises(InputError, match='save its sheet as CSV'):
    list(read_rows(tmp_path / 'x.xlsx'))
  with pytest.raises(InputError, match='x.parquet is damaged'):
    list(read_rows(tmp_path / 'x.parquet'))
  with pytest.raises(InputError, match='there is no file'):
    list(read_rows(tmp_path / 'y.csv'))


def test_parquet_values_become_text(tmp_path):
  pyarrow.parquet.write_table(
    pyarrow.table({'Label': [1, None, 3], 'rate': [0.5, 2.0, None]}), tmp_path / 'x.parquet'
  )
  rows = list(read_rows(tmp_path / 'x.parquet', required=('label',)))
  assert [r['label'] for r in rows] == ['1', '', '3']
  assert [r.number_of('rate') for r in rows] == [0.5, 2.0, None]
  with pytest.raises(InputError, match="x.parquet, row 2: 'label' is empty"):
    rows[1].required('label')


def test_rows_longer_than_the_header(tmp_path):
  path = tmp_path / 'x.csv'
  path.write_text('a,b\n1,2,3\n4\n\n5,6,\n')
  with pytest.raises(InputError, match='row 2: 3 values in 2 columns'):
    list(read_rows(path))
  rows = list(read_rows(path, ragged=True))
  assert [(r.number, r.cells, r['a'], r['b']) for r in rows] == [
    (2, 3, '1', '2'),
    (3, 1, '4', ''),
    (5, 2, '5', '6'),
  ]
  assert column_names(path) == ('a', 'b')
  path.write_text('')
  assert column_names(path) == ()
