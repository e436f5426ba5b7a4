"""The shape of the source: rooms, not loose modules, and files that can be read in one go.

Which room may import which is checked by import-linter (`lint-imports`).
"""

from repository import ROOT

PACKAGE = ROOT / 'painformer_jax'
MOST_LINES = 400


def test_every_module_is_in_a_room():
  assert {p.name for p in PACKAGE.glob('*.py')} == {'__init__.py', '__main__.py'}


def test_no_file_is_too_long_to_read_in_one_go():
  lines = {
    str(file.relative_to(PACKAGE)): len(file.read_text().splitlines())
    for file in PACKAGE.rglob('*.py')
  }
  assert {name: count for name, count in lines.items() if count > MOST_LINES} == {}
