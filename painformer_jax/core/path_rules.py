"""Tables of (regular expression, value) that give every array path a value.

Weight decay, learning-rate groups, freezing and sharding are such tables. The first rule
that matches the whole path applies. A path without a rule is an error, so that a new layer
cannot be forgotten in a table.
"""

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

Value = TypeVar('Value')


def match(
  rules: Sequence[tuple[str, Value]], paths: Iterable[str], *, table: str
) -> dict[str, Value]:
  """Looks every path up in a table.

  Args:
    rules: (regular expression for the whole path, value), first match wins.
    paths: array paths such as 'backbone/block1/0/mlp/fc1/kernel'.
    table: name of the table, for the message.

  Raises:
    ValueError: a path that no rule matches.
  """
  compiled = [(re.compile(pattern), value) for pattern, value in rules]
  found, unmatched = {}, []
  for path in paths:
    for pattern, value in compiled:
      if pattern.fullmatch(path):
        found[path] = value
        break
    else:
      unmatched.append(path)
  if unmatched:
    raise ValueError(f'no rule of the {table} table matches: {", ".join(unmatched)}')
  return found
