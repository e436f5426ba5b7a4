"""Tables of configs as dataclasses; what changed since a record was written."""

import dataclasses
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from painformer_jax.core import config_fields
from painformer_jax.core.config_fields import (
  Renamed,
  build,
  changes,
  new_path,
  typed,
  with_defaults,
)
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


# Names of older releases.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inner:
  """Nested, with a renamed field."""

  RENAMED: typing.ClassVar = Renamed(fields={'breadth': 'width'})

  width: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outer:
  """With a renamed field, and one whose values were renamed."""

  RENAMED: typing.ClassVar = Renamed(
    fields={'parts': 'pieces'},
    values={'saves': {'all': 'none', 'inputs': 'full'}},
    tables={'plain': Inner},
  )

  pieces: int = 1
  saves: str = 'none'
  inner: Inner = Inner()
  inners: Mapping[str, Inner] = dataclasses.field(default_factory=dict)
  maybe: Inner | None = None
  plain: Mapping[str, typing.Any] = dataclasses.field(default_factory=dict)


OLD = {
  'parts': 3,
  'saves': 'inputs-all',
  'inner': {'breadth': 2},
  'inners': {'a': {'breadth': 3}, 'b': {'width': 4}},
  'maybe': {'breadth': 5},
  'plain': {'breadth': 6},
}
NEW = Outer(
  pieces=3,
  saves='full-none',
  inner=Inner(width=2),
  inners={'a': Inner(width=3), 'b': Inner(width=4)},
  maybe=Inner(width=5),
  plain={'width': 6},
)


@pytest.fixture
def warned(monkeypatch, capsys):
  """The lines printed since the test began, as if in a process of its own."""
  monkeypatch.setattr(config_fields, '_WARNED', set())
  return lambda: capsys.readouterr().err.splitlines()


def test_old_names_build_the_same_and_warn_once_each(warned):
  assert build(Outer, OLD, where='w') == NEW
  assert warned() == [
    'w.parts is now called w.pieces',
    "w.saves: 'inputs-all' is now called 'full-none'",
    'w.plain.breadth is now called w.plain.width',
  ]
  assert build(Outer, OLD, where='w') == NEW
  assert warned() == []


def test_new_names_warn_of_nothing(warned):
  assert build(Outer, dataclasses.asdict(NEW), where='w') == NEW
  assert warned() == []


def test_a_table_given_is_not_changed():
  before = json.dumps(OLD)
  build(Outer, OLD, where='w')
  with_defaults(Outer, OLD)
  assert json.dumps(OLD) == before


def test_old_and_new_name_together():
  same = build(Outer, {'parts': 3, 'pieces': 3}, where='w')
  assert same == build(Outer, {'parts': 3, 'pieces': 1}, where='w')  # 1 is the default.
  with pytest.raises(InputError) as error:
    build(Outer, {'parts': 3, 'pieces': 2}, where='w')
  assert 'w.parts is 3 and w.pieces is 2' in str(error.value)


def test_an_old_name_of_a_wrong_type_is_refused_under_the_new_one():
  with pytest.raises(InputError, match='w.pieces is True, not of type int'):
    build(Outer, {'parts': True}, where='w')


def test_a_record_with_old_names_is_the_same_run_without_a_warning(warned):
  record = json.loads(json.dumps(dataclasses.asdict(NEW)))
  assert changes(record, with_defaults(Outer, OLD)) == []
  assert changes(record, with_defaults(Outer, {**OLD, 'parts': 4})) == ['pieces: 4 -> 3']
  assert warned() == []


def test_paths_with_old_names(warned):
  assert new_path(Outer, 'parts', where='c') == 'pieces'
  assert new_path(Outer, 'inners.a.breadth', where='c') == 'inners.a.width'
  assert new_path(Outer, 'maybe.breadth', where='c') == 'maybe.width'
  assert new_path(Outer, 'plain.breadth', where='c') == 'plain.width'
  assert new_path(Outer, 'parts[0].parts', where='c') == 'pieces[0].parts'
  assert new_path(Outer, 'inner.unknown.more', where='c') == 'inner.unknown.more'
  assert warned() == [
    'c.parts is now called c.pieces',
    'c.inners.a.breadth is now called c.inners.a.width',
  ]
