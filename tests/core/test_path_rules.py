import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from painformer_jax.core import path_rules

RULES = ((r'heads/.*', 1), (r'.*/bias', 2), (r'.*', 3))


def test_the_first_rule_that_matches_wins():
  found = path_rules.match(RULES, ['heads/a/bias', 'stem/bias', 'stem/kernel'], table='t')
  assert found == {'heads/a/bias': 1, 'stem/bias': 2, 'stem/kernel': 3}


def test_a_rule_matches_the_whole_path():
  with pytest.raises(ValueError):
    path_rules.match([('bias', True)], ['stem/bias'], table='t')
  with pytest.raises(ValueError):
    path_rules.match([('stem', True)], ['stem/bias'], table='t')


def test_all_paths_without_a_rule_are_named():
  with pytest.raises(ValueError, match=re.escape('no rule of the decay table matches: b, d')):
    path_rules.match([('a|c', 0)], ['a', 'b', 'c', 'd'], table='decay')


@given(st.lists(st.text('ab/', max_size=5), unique=True), st.permutations(range(3)))
def test_the_order_of_paths_changes_nothing(paths, order):
  rules = [RULES[i] for i in order] + [('.*', 4)]
  found = path_rules.match(rules, paths, table='t')
  assert found == path_rules.match(rules, reversed(paths), table='t')
  assert found.keys() == set(paths)
