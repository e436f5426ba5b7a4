"""Tables of configs as dataclasses; what changed since a record was written."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from painformer_jax.core.config_fields import build, changes, typed, with_defaults
from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """Nested."""

  size: int = 1
  rate: float = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Whole:
  """With a field of each kind."""

  name: str
  kind: Literal['a', 'b'] = 'a'
  part: Part = Part()
  parts: Mapping[str, Part] = dataclasses.field(default_factory=dict)
  numbers: tuple[int, ...] = (1, 2)
  anything: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  maybe: 'Part | None' = None
  flag: bool = False


WHOLE = Whole(name='x', parts={'one': Part(size=3)}, anything={'k': [1, None]}, maybe=Part(size=9))


@given(
  st.text(),
  st.integers(),
  st.floats(allow_nan=False, allow_infinity=False),
  st.lists(st.integers()),
  st.booleans(),
)
def test_what_was_written_is_built_again(name, size, rate, numbers, flag):
  whole = Whole(name=name, part=Part(size=size, rate=rate), numbers=tuple(numbers), flag=flag)
  record = json.loads(json.dumps(dataclasses.asdict(whole)))
  assert build(Whole, record, where='w') == whole
  assert changes(record, with_defaults(Whole, record)) == []


@pytest.mark.parametrize(
  'values, words',
  [
    ({}, 'w.name is missing'),
    ({'name': 1}, 'w.name is 1, not of type str'),
    (
      {'name': 'x', 'parts': {'one': {'siz': 1}}},
      "w.parts.one has no field 'siz'; did you mean size?",
    ),
    ({'name': 'x', 'part': 3}, 'w.part is 3, not a table of fields'),
    ({'name': 'x', 'numbers': 3}, 'w.numbers is 3, not a list'),
    ({'name': 'x', 'numbers': (1, 'b')}, "w.numbers is 'b', not of type int"),
    ({'name': 'x', 'kind': 'c'}, "w.kind is 'c'"),
    ({'name': 'x', 'flag': 1}, 'w.flag is 1, not of type bool'),
    ({'name': 'x', 'part': {'size': True}}, 'w.part.size is True, not of type int'),
  ],
)
def test_a_mistake_says_where_it_is(values, words):
  with pytest.raises(InputError) as error:
    build(Whole, values, where='w')
  assert words in str(error.value)


def test_whole_numbers_are_floats_and_lists_tuples():
  assert typed(2, float, where='w') == 2.0 and isinstance(typed(2, float, where='w'), float)
  assert typed([1, 2], tuple[int, ...], where='w') == (1, 2)


def test_fields_of_later_releases_count_as_their_defaults():
  record = json.loads(json.dumps(dataclasses.asdict(WHOLE)))
  older = json.loads(json.dumps(record))
  del older['flag'], older['numbers'], older['parts']['one']['rate'], older['part']
  assert changes(record, with_defaults(Whole, older)) == []
  older['parts']['one']['size'] = 4
  assert changes(record, with_defaults(Whole, older)) == ['parts.one.size: 4 -> 3']
  # Without a default there is nothing to assume.
  del older['name']
  assert changes(record, with_defaults(Whole, older), free=['parts']) == ['name: not there -> "x"']


def test_what_may_change_is_left_out_by_path_or_by_first_name():
  now, stored = {'a': {'b': 1, 'c': 2}, 'd': 3}, {'a': {'b': 5, 'c': 6}, 'd': 7}
  assert changes(now, stored) == ['a.b: 5 -> 1', 'a.c: 6 -> 2', 'd: 7 -> 3']
  assert changes(now, stored, free=['a.b', 'd']) == ['a.c: 6 -> 2']
  assert changes(now, stored, free=['a']) == ['d: 7 -> 3']
