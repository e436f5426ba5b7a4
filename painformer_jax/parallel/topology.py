"""Machines to plan for: a table of chips, and their JAX devices without the hardware."""

import dataclasses
import math
import re
from typing import Literal

from painformer_jax.core.errors import InputError, import_extra

Platform = Literal['tpu', 'cuda', 'cpu']
GIB = 2**30


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
  """The limits of a chip.

  Attributes:
    platform: whose compiler makes its programs.
    dimensions: of the torus of a TPU slice, 2 or 3; 0 for chips that are only counted.
    memory: bytes of main memory (HBM) that a program may use; for a GPU, what XLA takes.
    bandwidth: of that memory, bytes/s.
    flops: peak bfloat16 FLOP/s of matrix products.
    link: bytes/s that a chip can send to the others of its slice or node, all its
      links together, one way.
    node: chips of a node, which such links join; 0 for any number.
    network: bytes/s that a chip can send out of its node or slice, one way.
    accelerator: its name in TPU_ACCELERATOR_TYPE.
    cores: per chip; the number after the name in TPU_ACCELERATOR_TYPE counts cores.
    kinds: what JAX calls such devices (`device_kind`).
    source: where the figures come from.
  """

  platform: Platform
  dimensions: int
  memory: int
  bandwidth: float
  flops: float
  link: float
  source: str
  node: int = 0
  network: float = 0.0
  accelerator: str = ''
  cores: int = 1
  kinds: tuple[str, ...] = ()


_TPU_SOURCE = (
  'docs.cloud.google.com/tpu/docs/{}: peak bf16, HBM bandwidth, half of the bidirectional '
  'interconnect; memory: what the compiler of libtpu 0.0.42 allows; network between slices: '
  '{}'
)
_POD_NETWORK = 'that of a pod ({} Tbit/s) divided by its 256 chips'

# Bytes of an H100 as CUDA counts them, and the share of them that launch/with.sh lets XLA
# take; JAX alone takes three quarters.
_H100_MEMORY, _GPU_SHARE = 85_045_477_376, 0.9

CHIPS = {
  'v5e': Chip(
    platform='tpu',
    dimensions=2,
    memory=int(15.75 * GIB),
    bandwidth=819e9,
    flops=197e12,
    link=200e9,
    network=3.125e9,
    accelerator='v5litepod',
    kinds=('TPU v5 lite', 'TPU v5e'),
    source=_TPU_SOURCE.format('v5e', _POD_NETWORK.format(6.4)),
  ),
  'v5p': Chip(
    platform='tpu',
    dimensions=3,
    memory=int(95.74 * GIB),
    bandwidth=2765e9,
    flops=459e12,
    link=600e9,
    network=6.25e9,
    accelerator='v5p',
    cores=2,
    kinds=('TPU v5', 'TPU v5p'),
    source=_TPU_SOURCE.format('v5p', 'assumed, 200 Gbit/s for a host of 4 chips'),
  ),
  'v6e': Chip(
    platform='tpu',
    dimensions=2,
    memory=int(31.25 * GIB),
    bandwidth=1600e9,
    flops=918e12,
    link=400e9,
    network=12.5e9,
    accelerator='v6e',
    kinds=('TPU v6 lite', 'TPU v6e'),
    source=_TPU_SOURCE.format('v6e', _POD_NETWORK.format(25.6)),
  ),
  'h100': Chip(
    platform='cuda',
    dimensions=0,
    memory=int(_GPU_SHARE * _H100_MEMORY),
    bandwidth=3.35e12,
    flops=989e12,
    link=450e9,
    node=8,
    network=50e9,
    kinds=('NVIDIA H100 80GB HBM3',),
    source='NVIDIA H100 SXM data sheet: dense bf16, HBM3 bandwidth, half of the NVLink '
    f'bandwidth; memory: the {_GPU_SHARE:.0%} of what CUDA reports that launch/with.sh lets '
    'XLA take; network: a 400 Gbit/s card for each GPU, as in DGX H100',
  ),
}

# What a plan for each platform needs beside JAX: a module and the extra that brings it.
_COMPILERS = {'tpu': ('libtpu', 'tpu'), 'cuda': ('jax_cuda12_plugin', 'plan-gpu')}

# An H100 SXM as CUDA describes it, in the text form of XLA's GpuTargetConfigProto.
_H100 = """
platform_name: "CUDA"
device_description_str: "NVIDIA H100 80GB HBM3"
dnn_version_info { major: 9 minor: 10 patch: 0 }
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  core_count: 132
  fpus_per_core: 128
  clock_rate_ghz: 1.98
  threads_per_warp: 32
  threads_per_block_limit: 1024
  threads_per_core_limit: 2048
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  registers_per_block_limit: 65536
  registers_per_core_limit: 65536
  shared_memory_per_block: 49152
  shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472
  l2_cache_size: 52428800
  memory_bandwidth: 3350000000000
  device_memory_size: MEMORY
}
""".replace('MEMORY', str(_H100_MEMORY))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
  """A number of chips of one kind, and how they are joined.

  Attributes:
    text: as named, such as 'v5e:16x16', '2*v5e:16x16', 'h100:16' or 'cpu:8'.
    platform: whose compiler makes the program.
    chip: limits of each; None for simulated CPU devices.
    shape: of a slice's torus; (nodes, chips of each) for GPUs; (devices,) for a CPU.
    slices: of TPUs, joined by the data center network (DCN).
  """

  text: str
  platform: Platform
  chip: Chip | None
  shape: tuple[int, ...]
  slices: int = 1

  @property
  def chips(self) -> int:
    return self.slices * math.prod(self.shape)

  @property
  def nodes(self) -> int:
    """Groups of chips that fast links join: nodes of GPUs, slices of TPUs."""
    return self.shape[0] if self.platform == 'cuda' else self.slices


def parse_topology(text: str) -> Topology:
  """A topology by its name.

  Args:
    text: 'v5e:4x4', 'v6e:16x16', 'v5p:4x4x8' (the slice's shape), '2*v5e:4x4' (two such
      slices), 'h100:16' (nodes of 8) or 'cpu:8' (simulated devices).

  Raises:
    InputError: there is no such chip, or not in such a shape.
  """
  several, _, slice_text = text.rpartition('*')
  name, _, numbers = slice_text.partition(':')
  if name not in CHIPS and name != 'cpu':
    raise InputError(f'--topology {text}: no chip {name!r} (known: {", ".join(CHIPS)}, cpu)')
  chip = CHIPS.get(name)
  dimensions = chip.dimensions or 1 if chip else 1
  example = {1: '8', 2: '4x4', 3: '4x4x4'}[dimensions]
  if not re.fullmatch(r'[1-9]\d{0,4}' + r'x[1-9]\d{0,4}' * (dimensions - 1), numbers):
    raise InputError(f'--topology {text}: write it as {name}:{example}')
  if '*' in text and (
    not chip or chip.platform != 'tpu' or not re.fullmatch(r'[1-9]\d{0,2}', several)
  ):
    raise InputError(
      f'--topology {text}: several slices are of TPUs, such as 2*v5e:4x4'
      + (f'; name all GPUs, such as {name}:{2 * chip.node}' if chip and chip.node else '')
    )
  shape = tuple(map(int, numbers.split('x')))
  if chip and chip.node:
    (count,) = shape
    if count > chip.node and count % chip.node:
      raise InputError(
        f'--topology {text}: above {chip.node}, a multiple of {chip.node} (whole nodes)'
      )
    shape = (-(-count // chip.node), min(count, chip.node))
  return Topology(
    text=text,
    platform=chip.platform if chip else 'cpu',
    chip=chip,
    shape=shape,
    slices=int(several or 1),
  )


def chip_of(device_kind: str) -> Chip | None:
  """The limits of a device by JAX's `device_kind`; None where it is not in the table."""
  return next((chip for chip in CHIPS.values() if device_kind in chip.kinds), None)


def check_compiler(topology: Topology) -> None:
  """Asserts that the compiler for these chips is installed.

  Raises:
    InputError: it is not; says which extra brings it.
  """
  if topology.platform in _COMPILERS:
    module, extra = _COMPILERS[topology.platform]
    import_extra(module, extra=extra)


def compiler_environment(topology: Topology) -> dict[str, str]:
  """Variables that must be set before JAX starts in the process that compiles."""
  variables = {'JAX_PLATFORMS': 'cpu'}
  if topology.platform == 'cpu':
    variables['JAX_NUM_CPU_DEVICES'] = str(topology.chips)
  if topology.platform == 'tpu':
    chip = topology.chip
    variables |= {  # Otherwise libtpu asks the cloud's metadata server what it runs on.
      'TPU_SKIP_MDS_QUERY': '1',
      'TPU_WORKER_HOSTNAMES': 'localhost',
      'TPU_ACCELERATOR_TYPE': f'{chip.accelerator}-{chip.cores * math.prod(topology.shape)}',
    }
  return variables


def topology_devices(topology: Topology) -> list:
  """JAX devices to compile for, in a process started with `environment`.

  Raises:
    InputError: the compiler does not know such a slice.
  """
  import jax
  from jax.experimental import topologies

  if topology.platform == 'cpu':
    return jax.devices('cpu')
  try:
    if topology.platform == 'tpu':
      options = {}
      if math.prod(topology.shape) < 4:  # By default four chips a host.
        options['chips_per_host_bounds'] = list((*topology.shape, 1)[:3])
      if topology.slices > 1:
        options['num_slices'] = topology.slices
      found = topologies.get_topology_desc(
        platform='tpu', topology_name=topology.text.rpartition('*')[2], **options
      )
    else:
      found = topologies.get_topology_desc(
        platform='cuda', target_config=_H100, topology='x'.join(map(str, (1, *topology.shape)))
      )
  except jax.errors.JaxRuntimeError as error:
    raise InputError(f'--topology {topology.text}: {error}') from error
  return list(found.devices)
