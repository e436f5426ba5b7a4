import types

import pytest
from training_runs import depends_on_speed

from painformer_jax.models import registry
from painformer_jax.parallel import topology
from painformer_jax.training import speed
from painformer_jax.training.speed import Machine

FULL = registry.preset('painformer').config


def devices(kind, count):
  return [types.SimpleNamespace(device_kind=kind)] * count


def test_mfu_of_a_known_chip():
  """Held against the released shape's 36.5 GFLOP and the chip's 197 TFLOP/s by hand."""
  machine = Machine.of(FULL, devices('TPU v5 lite', 16))
  values = machine.figures(16 * 959.0, {'compute': 9.0, 'input': 1.0})
  assert values == {
    'images_per_second': 15344.0,
    'images_per_second_per_chip': 959.0,
    'mfu': pytest.approx(959 * 36.5e9 / 197e12, rel=2e-3),
    'seconds/compute': 9.0,
    'seconds/input': 1.0,
  }


@pytest.mark.parametrize('kind', ['cpu', 'NVIDIA H100 PCIe', 'NVIDIA H100 NVL', 'TPU v4', ''])
def test_no_mfu_of_a_chip_whose_peak_is_not_known(kind):
  machine = Machine.of(FULL, devices(kind, 2))
  assert machine.peak_flops is None
  assert machine.figures(8.0, {}) == {'images_per_second': 8.0, 'images_per_second_per_chip': 4.0}


def test_nothing_of_a_rate_that_is_not_known():
  assert Machine.of(FULL, devices('TPU v6 lite', 1)).figures(0.0, {}) == {}


@pytest.mark.parametrize(
  'kind,name',
  [
    ('TPU v5 lite', 'v5e'),
    ('TPU v5e', 'v5e'),
    ('TPU v5', 'v5p'),
    ('TPU v5p', 'v5p'),
    ('TPU v6 lite', 'v6e'),
    ('TPU v6e', 'v6e'),
    ('NVIDIA H100 80GB HBM3', 'h100'),
  ],
)
def test_chips_by_what_jax_calls_them(kind, name):
  assert topology.chip_of(kind) is topology.CHIPS[name]


def test_every_chip_has_a_kind_of_its_own():
  kinds = [kind for chip in topology.CHIPS.values() for kind in chip.kinds]
  assert all(chip.kinds for chip in topology.CHIPS.values())
  assert len(set(kinds)) == len(kinds)


def test_what_differs_between_runs_of_one_configuration():
  values = Machine.of(FULL, devices('TPU v5', 8)).figures(80.0, {'host': 1.0})
  assert len(values) == 4 and all(map(depends_on_speed, values))
  assert not any(
    map(depends_on_speed, ('loss', 'task/mfu/loss', 'eval/seconds/accuracy', 'gradient_norm'))
  )


@pytest.mark.parametrize(
  'values,expected',
  [
    ({}, 'eta 5s'),
    ({'seconds/host': 1.0}, 'eta 5s'),
    ({'images_per_second': 8.0, 'images_per_second_per_chip': 8.0}, '8.0 images/s  eta 5s'),
    (
      {'images_per_second': 8.0, 'images_per_second_per_chip': 2.0},
      '8.0 images/s  eta 5s  (2.0 a chip)',
    ),
    (
      {
        'images_per_second': 640.0,
        'images_per_second_per_chip': 80.0,
        'mfu': 0.148,
        'seconds/compute': 97.0,
        'seconds/input': 2.2,
        'seconds/host': 0.8,
      },
      '640.0 images/s  eta 5s  (80.0 a chip, MFU 15%; compute 97%, input 2%)',
    ),
    (
      {
        'images_per_second': 8.0,
        'images_per_second_per_chip': 8.0,
        'mfu': 0.5,
        'seconds/compute': 0.0,
      },
      '8.0 images/s  eta 5s  (MFU 50%)',
    ),
  ],
)
def test_line(values, expected):
  assert speed.line(values, eta='5s') == expected
