"""Compiles the training step of a config for machines that are not there.

The step is the one that `training.loop` runs. Everything is shapes: no data, no
weights and no accelerator are needed, only the compiler. It runs in a process of its
own (`run_apart`), since what JAX and the compilers read from the environment is read
once; that process is `python -m painformer_jax.planning.plan`.
"""

import contextlib
import dataclasses
import importlib.metadata
import json
import math
import os
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping

from painformer_jax.core.errors import InputError
from painformer_jax.core.files import temporary_folder, write_json
from painformer_jax.parallel.topology import (
  Topology,
  check_compiler,
  compiler_environment,
  parse_topology,
  topology_devices,
)
from painformer_jax.planning import hlo
from painformer_jax.planning.collectives import Collective, collectives
from painformer_jax.planning.traffic import traffic

# By platform. CPU: what LLVM makes of a program changes neither its memory nor its
# collectives. GPU: Triton's kernels for products are chosen by measuring on a device,
# without one the first choice can fail to compile; cuBLAS takes any. Plans say so.
_COMPILER_OPTIONS = {
  'cpu': {'xla_backend_optimization_level': 0},
  'cuda': {'xla_gpu_enable_triton_gemm': False},
  'tpu': {},
}
# Where each platform's compiler finds the flags that launch/with.sh sets for a run.
FLAGS = {'cpu': 'XLA_FLAGS', 'cuda': 'XLA_FLAGS', 'tpu': 'LIBTPU_INIT_ARGS'}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
  """A step to compile; plain data, so that it can be handed to another process.

  Attributes:
    config: for `training.config.from_config_dict`.
    classes: task -> number of classes.
    sizes: task -> number of training images, for shares of the batch that follow them.
    topology: for `topology.parse_topology`.
  """

  config: Mapping
  classes: Mapping[str, int]
  sizes: Mapping[str, int]
  topology: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
  """A compiled step. Bytes, FLOP and collectives are those of one chip in one step.

  Attributes:
    topology: as named.
    chips: how many.
    mesh: axis -> devices along it, see `layout.training_mesh`.
    images: of the global batch.
    model: preset, input size, arithmetic and gate.
    model_flops: FLOP of a training image by the model's formula, without the gate.
    gate_flops: what the gate adds to it where it is a matrix product.
    microbatch_flops: what gradient accumulation adds to it, see `arithmetic.stem_statistics_flops`.
    remat: `TrainConfig.remat`.
    compiler: names and versions.
    flags: that the environment held for the compiler, see FLAGS; '' for none.
    compile_seconds: how long it took here.
    parameter_bytes, optimizer_bytes, other_state_bytes, batch_bytes: what the step is
      given, by the shapes of the shards; without the compiler's padding.
    failure: what the compiler says where the program does not fit into memory, or
      None. The fields below are then None.
    argument_bytes, output_bytes, alias_bytes, temporary_bytes, code_bytes: by the
      compiler; activations are among the temporaries; aliases are outputs that take
      the place of arguments.
    peak_bytes: arguments, outputs (each alias once), temporaries and code together.
    flops: the compiler's count, or None where it gives none (GPUs) or counts loops
      wrongly.
    traffic_bytes: to and from main memory, summed over the program's text, see
      `traffic.traffic`.
    accessed_bytes: the compiler's count over all memories, on-chip ones too, each
      reading anew; None where it gives none or counts loops wrongly.
    collectives: by kind and group.
    unknown_loops: loops of unknown length, counted once.
  """

  topology: str
  chips: int
  mesh: Mapping[str, int]
  images: int
  model: str
  model_flops: float
  gate_flops: float
  microbatch_flops: float
  remat: str
  compiler: str
  flags: str
  compile_seconds: float
  parameter_bytes: int
  optimizer_bytes: int
  other_state_bytes: int
  batch_bytes: int
  failure: str | None = None
  argument_bytes: int | None = None
  output_bytes: int | None = None
  alias_bytes: int | None = None
  temporary_bytes: int | None = None
  code_bytes: int | None = None
  peak_bytes: int | None = None
  flops: float | None = None
  traffic_bytes: int | None = None
  accessed_bytes: float | None = None
  collectives: tuple[Collective, ...] = ()
  unknown_loops: int | None = None


def run_apart(request: Request) -> Program:
  """Compiles in a process of its own.

  Raises:
    InputError: the config or topology does not fit, a compiler is missing, or it
      ended without a result.
  """
  topology = parse_topology(request.topology)
  check_compiler(topology)
  root = str(pathlib.Path(__file__).parents[2])
  environment = {
    **os.environ,
    **compiler_environment(topology),
    'PYTHONPATH': os.pathsep.join(filter(None, [root, os.environ.get('PYTHONPATH')])),
  }
  with temporary_folder() as folder:
    answer = folder / 'program.json'
    done = subprocess.run(
      [sys.executable, '-m', __spec__.name, str(answer)],
      env=environment,
      check=False,
      input=json.dumps(dataclasses.asdict(request)),
      capture_output=True,
      text=True,
    )
    if not answer.is_file():
      lines = [line for line in done.stderr.splitlines() if line.strip()]
      raise InputError(
        f'the compiler for {request.topology} ended with status {done.returncode} and no '
        f'result: {lines[-1] if lines else "it said nothing"}'
      )
    fields = json.loads(answer.read_text())
  if 'error' in fields:
    raise InputError(fields['error'])
  return Program(**{**fields, 'collectives': tuple(Collective(**c) for c in fields['collectives'])})


def compile_step(request: Request) -> Program:
  """Compiles here; the environment must be that of `topology.compiler_environment`.

  Raises:
    InputError: the config or topology does not fit.
  """
  import jax

  from painformer_jax.models import arithmetic
  from painformer_jax.training.config import from_config_dict
  from painformer_jax.training.setup import assemble

  topology = parse_topology(request.topology)
  config = from_config_dict(request.config).with_batch_sizes(request.sizes)
  if topology.platform == 'cuda' and not config.sharding.dcn_parallelism:
    # As in a run: JAX gives the GPUs of each host a slice of their own. Those of a
    # topology that is not there are all of slice 0, but have a process for each host.
    config = dataclasses.replace(
      config, sharding=dataclasses.replace(config.sharding, dcn_parallelism=topology.nodes)
    )
  setup = assemble(config, request.classes, devices=topology_devices(topology))
  state, batch, model = setup.abstract, setup.batch(), setup.model
  start = time.perf_counter()
  compiled, failure = None, None
  try:
    compiled = (
      setup.train_step()
      .lower(state, batch)
      .compile(compiler_options=_COMPILER_OPTIONS[topology.platform])
    )
  except jax.errors.JaxRuntimeError as error:
    if 'RESOURCE_EXHAUSTED' not in str(error):
      raise
    failure = str(error).splitlines()[0].removeprefix('RESOURCE_EXHAUSTED: ')
  program = Program(
    topology=topology.text,
    chips=topology.chips,
    mesh=dict(setup.mesh.shape),
    images=sum(config.batch_sizes.values()),
    remat=config.remat,
    model=f'{config.model["name"]} at {model.image_size}, {model.dtype}, {model.gate} gate',
    model_flops=arithmetic.training_flops(model),
    gate_flops=float(
      arithmetic.TRAINING_OVER_FORWARD
      * arithmetic.FLOPS_PER_MULTIPLY_ADD
      * arithmetic.gate_multiply_adds(model)
    ),
    microbatch_flops=arithmetic.stem_statistics_flops(model)
    if config.grad_accum_steps > 1
    else 0.0,
    compiler=_compiler(topology),
    flags=os.environ.get(FLAGS[topology.platform], '').strip(),
    compile_seconds=time.perf_counter() - start,
    parameter_bytes=shard_bytes(state.params),
    optimizer_bytes=shard_bytes(state.opt_state),
    other_state_bytes=shard_bytes(state) - shard_bytes((state.params, state.opt_state)),
    batch_bytes=shard_bytes(batch),
    failure=failure,
  )
  return (
    program
    if compiled is None
    else dataclasses.replace(
      program, **_measure(compiled, topology, _node_of_device(setup.mesh, topology))
    )
  )


def shard_bytes(tree) -> int:
  """Bytes of one device's shards of arrays or of shapes with shardings."""
  import jax

  return sum(
    math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
    for leaf in jax.tree.leaves(tree)
  )


def _node_of_device(mesh, topology: Topology) -> list[int] | None:
  """The node of each device of a program, see `collectives.collectives`."""
  if topology.platform != 'cuda':  # A TPU's program is that of one slice.
    return None
  return [device.process_index for device in mesh.devices.flat]


def _measure(compiled, topology: Topology, node_of: list[int] | None) -> dict:
  """The fields of Program that a compiled program gives."""
  memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
  module = hlo.parse(compiled.as_text())
  # Compilers count one turn of a loop; the text says how many there are.
  counted = 'flops' in cost and not hlo.repeated_loops(module)
  return dict(
    argument_bytes=memory.argument_size_in_bytes,
    output_bytes=memory.output_size_in_bytes,
    alias_bytes=memory.alias_size_in_bytes,
    temporary_bytes=memory.temp_size_in_bytes,
    code_bytes=memory.generated_code_size_in_bytes,
    peak_bytes=(
      memory.argument_size_in_bytes
      + memory.output_size_in_bytes
      - memory.alias_size_in_bytes
      + memory.temp_size_in_bytes
      + memory.generated_code_size_in_bytes
    ),
    flops=cost['flops'] if counted else None,
    accessed_bytes=cost['bytes accessed'] if counted else None,
    traffic_bytes=traffic(module, other_spaces=topology.platform == 'tpu'),
    collectives=tuple(collectives(module, node_of=node_of)),
    unknown_loops=hlo.unknown_loops(module),
  )


def _compiler(topology: Topology) -> str:
  names = {
    'tpu': ('jax', 'libtpu'),
    'cuda': ('jax', 'jax-cuda12-plugin'),
    'cpu': ('jax', 'jaxlib'),
  }[topology.platform]
  versions = []
  for name in names:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
      versions.append(f'{name} {importlib.metadata.version(name)}')
  return ', '.join(versions)


def _main() -> None:
  """Reads a request from standard input; writes a Program, or an error, as JSON."""
  answer = pathlib.Path(sys.argv[1])
  try:
    fields = dataclasses.asdict(compile_step(Request(**json.load(sys.stdin))))
  except InputError as error:
    fields = {'error': str(error)}
  write_json(answer, fields)


if __name__ == '__main__':
  _main()
