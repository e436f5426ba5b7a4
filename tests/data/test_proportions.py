"""Rows of a batch: sums, floors, multiples, and the rules themselves."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from painformer_jax.core.errors import InputError
from painformer_jax.data.corpus import CORPUS
from painformer_jax.data.proportions import divide_batch

SIZES = st.dictionaries(
  st.text('abcdefgh', min_size=1, max_size=4), st.integers(1, 4_000_000), min_size=1, max_size=14
)


def test_the_published_batch():
  sizes = {task.name: task.samples for task in CORPUS}
  assert divide_batch(sizes, 126) == dict.fromkeys(sizes, 9)


@given(
  SIZES,
  st.integers(1, 300),
  st.sampled_from(['equal', 'proportional', 'temperature']),
  st.integers(1, 8),
)
def test_the_batch_is_divided_whole(sizes, parts, shares, multiple):
  assume(parts >= len(sizes))
  rows = divide_batch(sizes, parts * multiple, shares=shares, multiple=multiple)
  assert sum(rows.values()) == parts * multiple
  assert rows.keys() == sizes.keys()
  assert all(r >= multiple and r % multiple == 0 for r in rows.values())


@given(SIZES, st.integers(14, 300), st.sampled_from(['proportional', 'temperature']))
def test_more_images_never_mean_fewer_rows(sizes, batch, shares):
  rows = divide_batch(sizes, batch, shares=shares)
  ordered = [rows[name] for name in sorted(sizes, key=lambda n: (sizes[n], n))]
  assert all(a <= b + 1 for a, b in zip(ordered, ordered[1:]))


@given(SIZES, st.integers(14, 300))
def test_the_order_of_tasks_changes_nothing(sizes, batch):
  backwards = dict(reversed(sizes.items()))
  assert divide_batch(sizes, batch, shares='proportional') == divide_batch(
    backwards, batch, shares='proportional'
  )


@pytest.mark.parametrize(
  'shares,options,expected',
  [
    ('equal', {}, {'a': 34, 'b': 33, 'c': 33}),
    ('proportional', {}, {'a': 10, 'b': 30, 'c': 60}),
    ('temperature', {'temperature': 1.0}, {'a': 10, 'b': 30, 'c': 60}),
    ('temperature', {'temperature': 2.0}, {'a': 19, 'b': 34, 'c': 47}),
    ('explicit', {'explicit': {'a': 0.5, 'b': 0.25, 'c': 0.25}}, {'a': 50, 'b': 25, 'c': 25}),
  ],
)
def test_rules(shares, options, expected):
  assert divide_batch({'a': 100, 'b': 300, 'c': 600}, 100, shares=shares, **options) == expected


def test_a_tiny_task_gets_a_row():
  sizes = {'vggface2': 3_310_000, 'rafdb_compound': 4_000}
  assert divide_batch(sizes, 64, shares='proportional') == {'vggface2': 63, 'rafdb_compound': 1}


def test_exact_shares_come_out_exact():
  """Where shares are whole numbers of rows, they are kept in spite of the floor."""
  assert divide_batch({'a': 1, 'b': 2, 'c': 5}, 16, shares='proportional') == {
    'a': 2,
    'b': 4,
    'c': 10,
  }


@pytest.mark.parametrize(
  'batch,options,message',
  [
    (2, {}, 'a batch size of 2 cannot be divided among 3 tasks'),
    (10, {'multiple': 4}, 'in multiples of 4'),
    (10, {'shares': 'fair'}, "no shares 'fair', only equal"),
    (10, {'shares': 'temperature', 'temperature': 0.0}, 'temperature, 0.0, is not above 0'),
    (10, {'shares': 'explicit'}, "task 'a' has no share"),
    (10, {'shares': 'explicit', 'explicit': {'a': 1, 'b': 0, 'c': 1}}, "share of task 'b', 0"),
    (10, {'shares': 'explicit', 'explicit': {'a': 1, 'b': float('nan'), 'c': 1}}, 'nan'),
  ],
)
def test_what_cannot_be_divided(batch, options, message):
  with pytest.raises(InputError, match=message):
    divide_batch({'a': 1, 'b': 2, 'c': 3}, batch, **options)
