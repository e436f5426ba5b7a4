"""Text in columns, the same on a terminal and in a file."""

import pytest

from painformer_jax.core.tables import aligned, cut


def test_columns_are_two_spaces_apart_and_figures_end_together():
  rows = [('task', 'images', 'note'), ('coin', '1,000', 'ok'), ('a long name', '5', '')]
  assert aligned(rows, right=(1,)) == [
    'task         images  note',
    'coin          1,000  ok',
    'a long name       5',
  ]
  assert aligned(rows[:2], indent=2)[1] == '  coin  1,000   ok'
  assert aligned([]) == []


def test_text_is_taken_as_it_is_and_wide_letters_count_double():
  rows = [('[bold]', ':smile:', 'x'), ('日本', '1', 'y')]
  assert aligned(rows) == ['[bold]  :smile:  x', '日本    1        y']


def test_a_table_is_neither_wrapped_nor_cut(monkeypatch):
  monkeypatch.setenv('COLUMNS', '20')
  monkeypatch.setenv('FORCE_COLOR', '1')
  assert aligned([('word ' * 50 + 'end', 'x')]) == ['word ' * 50 + 'end  x']


def test_rows_of_different_lengths_are_refused():
  with pytest.raises(ValueError, match=r'\[1, 2\]'):
    aligned([('a',), ('b', 'c')])


def test_cut_keeps_the_beginning():
  assert cut('coin', 4) == 'coin'
  assert cut('coins of gold', 8) == 'coins...'
