"""Spans of recordings as text, and whether test data are apart from training data."""

import pytest
from demo_spans import check_disjoint, parse_span
from hypothesis import given
from hypothesis import strategies as st
from tiny_tasks import Example, with_examples

from painformer_jax.data.demo.spans import RecordingSpan
from painformer_jax.data.task_source import TaskSource


@given(
  st.text('abc_ 12/', min_size=1), st.text('ab+ 1'), st.integers(0, 10**6), st.integers(0, 10**4)
)
def test_spans_read_back(recording, channel, start, length):
  span = RecordingSpan(recording=recording)
  if channel:
    span = RecordingSpan(
      recording=recording, channel=channel, start=start / 1000, stop=(start + length) / 1000
    )
  assert parse_span(str(span)) == span


@pytest.mark.parametrize('text', ['', 'a, b', 'a, b, 1 s', 'a, b, 1-2', 'a,b'])
def test_not_a_span(text):
  with pytest.raises(AssertionError, match='names no recording'):
    parse_span(text)


class TestCheckDisjoint:
  def task(self, train, test, name='t'):
    make = lambda sources: [
      Example(key=s, image=(image or s).encode(), label=0, source=s)
      for s, _, image in (source.partition('=') for source in sources)
    ]
    task = TaskSource(
      name=name,
      classes=('a',),
      modality='m',
      description='',
      licence='',
      splits={},
      read=lambda item: item.detail,
    )
    return with_examples(task, train=make(train), test=make(test))

  @pytest.mark.parametrize(
    'train, test, gap',
    [
      ('r, a, 0.000-5.000 s', 'r, a, 5.000-9.000 s', 0),
      ('r, a, 9.000-12.000 s', 'r, b, 2.000-4.000 s', 5),
      ('r, a, 0.000-5.000 s', 'q, a, 0.000-5.000 s', 5),
      ('photo 1', 'photo 2', 5),
    ],
  )
  def test_apart(self, train, test, gap):
    check_disjoint([self.task([train], [test])], gap=gap)

  @pytest.mark.parametrize(
    'train, test, gap',
    [
      ('r, a, 0.000-5.000 s', 'r, a, 4.999-9.000 s', 0),
      ('r, a, 0.000-5.000 s', 'r, b, 1.000-2.000 s', 0),
      ('r, a, 9.000-12.000 s', 'r, a, 2.000-4.001 s', 5),
      ('r', 'r, a, 2.000-4.000 s', 0),
      ('photo 1', 'photo 1', 0),
    ],
  )
  def test_not_apart(self, train, test, gap):
    with pytest.raises(AssertionError, match='t/test: .* not apart from t/train'):
      check_disjoint([self.task([train], [test])], gap=gap)

  def test_not_apart_across_tasks(self):
    tasks = [
      self.task(['r, a, 0.000-5.000 s'], ['q'], 'one'),
      self.task(['p'], ['r, b, 4.000-6.000 s'], 'two'),
    ]
    with pytest.raises(AssertionError, match='two/test: .* from one/train'):
      check_disjoint(tasks)

  def test_the_same_image_under_two_names(self):
    with pytest.raises(AssertionError, match='t/test: b is the same image as'):
      check_disjoint([self.task(['a=pixels'], ['b=pixels'])])
