"""Readers in threads: in order, not far ahead, ended with whoever reads."""

import functools
import itertools
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.assessment.datasets.recordings import Sample
from painformer_jax.assessment.embedding import embed as embeddings
from painformer_jax.assessment.embedding.sample_images import TokenImage
from painformer_jax.core.errors import InputError
from painformer_jax.core.read_ahead import PARTS_AHEAD, read_ahead


class Reader:
  """In place of a `SampleReader`: sample k has `counts[k]` images, or a fault."""

  def __init__(self, counts, faults=(), log=None):
    self.counts, self.faults, self.log = counts, faults, log

  def images(self, sample, *, log):
    number = int(sample.name)
    for token in range(self.counts[number]):
      if self.log is not None:
        self.log.append(number)
      yield TokenImage(token=token, image=number)
    if number in self.faults:
      raise InputError(f'fault {number}')


def starting(*arguments, **options):
  """Readers of samples, as `embeddings` starts them in threads."""
  return lambda: functools.partial(embeddings._read, Reader(*arguments, **options))


def numbered(count):
  return [Sample(subject='a', name=str(k), level=0, data={}) for k in range(count)]


@settings(deadline=None, max_examples=30)
@given(st.data())
def test_readers_keep_the_order(data):
  counts = data.draw(st.lists(st.integers(0, 5), max_size=12))
  faults = data.draw(st.sets(st.integers(0, 11), max_size=3))
  threads = data.draw(st.integers(1, 5))
  items = list(read_ahead(numbered(len(counts)), starting(counts, faults), threads=threads))
  position = iter(items)
  for number, count in enumerate(counts):
    images = list(itertools.islice(position, count))
    assert [(i.image, i.token) for i in images] == [(number, k) for k in range(count)]
    troubles = next(position)
    assert bool(troubles) == (number in faults or not count)
    assert all(t.left_out == (not count) and t.sample == str(number) for t in troubles)
  assert next(position, None) is None


def test_readers_do_not_run_far_ahead_and_end_with_their_consumer():
  log, before = [], threading.active_count()
  items = read_ahead(numbered(4), starting([10_000] * 4, log=log), threads=2)
  for _ in range(500):
    next(items)
  assert 500 <= len(log) <= 500 + 2 * (PARTS_AHEAD + 2)
  items.close()
  assert threading.active_count() == before


def test_a_defect_in_a_reader_is_not_swallowed():
  def broken():
    raise ZeroDivisionError('defect')

  with pytest.raises(ZeroDivisionError, match='defect'):
    list(read_ahead(numbered(3), broken, threads=2))
