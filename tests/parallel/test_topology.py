"""Topologies by name, and what is known of each chip."""

import re

import pytest
from repository import ROOT

from painformer_jax.core.errors import InputError
from painformer_jax.parallel import topology


@pytest.mark.parametrize(
  ('text', 'shape', 'chips'),
  [
    ('v5e:2x2', (2, 2), 4),
    ('v5e:16x16', (16, 16), 256),
    ('v6e:4x8', (4, 8), 32),
    ('v5p:8x16x16', (8, 16, 16), 2048),
    ('h100:1', (1, 1), 1),
    ('h100:8', (1, 8), 8),
    ('h100:16', (2, 8), 16),
    ('cpu:8', (8,), 8),
    ('1*v5e:4x4', (4, 4), 16),
    ('2*v5e:4x4', (4, 4), 32),
    ('16*v5p:2x2x2', (2, 2, 2), 128),
  ],
)
def test_topologies_by_name(text, shape, chips):
  found = topology.parse_topology(text)
  assert (found.shape, found.chips, found.text) == (shape, chips, text)
  assert found.slices == int(text.partition('*')[0] if '*' in text else 1)
  assert found.nodes == (shape[0] if 'h100' in text else found.slices)


@pytest.mark.parametrize(
  ('text', 'part'),
  [
    ('v9:2x2', 'no chip'),
    ('', 'no chip'),
    ('v5e', 'v5e:4x4'),
    ('v5e:4', 'v5e:4x4'),
    ('v5p:4x4', 'v5p:4x4x4'),
    ('v5e:0x4', 'v5e:4x4'),
    ('h100:12', 'multiple of 8'),
    ('h100:2x4', 'h100:8'),
    ('cpu:-1', 'cpu:8'),
    ('v5e:4x4:2', 'v5e:4x4'),
    ('0*v5e:4x4', '2*v5e:4x4'),
    ('*v5e:4x4', '2*v5e:4x4'),
    ('2*2*v5e:4x4', '2*v5e:4x4'),
    ('-1*v5e:4x4', '2*v5e:4x4'),
    ('2*h100:8', 'name all GPUs, such as h100:16'),
    ('2*cpu:8', 'of TPUs'),
  ],
)
def test_other_topologies_are_refused(text, part):
  with pytest.raises(InputError, match=re.escape(part)):
    topology.parse_topology(text)


def test_every_chip_says_what_it_can_do_and_where_that_is_from():
  for name, chip in topology.CHIPS.items():
    assert 1e9 < chip.link < chip.bandwidth < chip.memory * 1e3 < 1e15, name
    assert 1e14 < chip.flops < 2e15 and ':' in chip.source
    assert chip.accelerator or chip.platform != 'tpu'
    assert 1e9 < chip.network < chip.link / 8 and 'network' in chip.source
  variables = topology.compiler_environment(topology.parse_topology('v5p:2x2x2'))
  assert variables['TPU_ACCELERATOR_TYPE'] == 'v5p-16'
  several = topology.compiler_environment(topology.parse_topology('2*v5p:2x2x2'))
  assert several['TPU_ACCELERATOR_TYPE'] == 'v5p-16'  # That of each slice.
  assert (
    topology.compiler_environment(topology.parse_topology('cpu:3'))['JAX_NUM_CPU_DEVICES'] == '3'
  )


def test_a_gpus_memory_is_what_a_run_may_take():
  taken = re.search(r'MEM_FRACTION:-([\d.]+)', (ROOT / 'launch/with.sh').read_text())[1]
  assert topology.CHIPS['h100'].memory == int(float(taken) * 85_045_477_376)
  assert 'device_memory_size: 85045477376' in topology._H100  # What the compiler knows.
