"""Every row of `python tests/faults.py` is as it should be."""

import faults
import pytest


@pytest.fixture(scope='module')
def lab(tmp_path_factory):
  return faults.Lab(tmp_path_factory.mktemp('faults'))


@pytest.mark.slow
@pytest.mark.parametrize('name', faults.FAULTS)
def test_faults(name, lab):
  found = faults.FAULTS[name](lab)
  assert found and all(row.fine for row in found), '\n'.join(
    ' | '.join(row.cells()) for row in found if not row.fine
  )
