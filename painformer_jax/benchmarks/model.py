"""Speed of the model on this machine, each variant compared with the first one.

Variants take turns within one run, so that other work on the machine slows all of them
alike; the median over rounds is reported.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from painformer_jax.core.progress import Log
from painformer_jax.core.tables import aligned
from painformer_jax.models import functional, registry
from painformer_jax.models.config import PainFormerConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
  """One way to run one thing: 'forward' or 'train' (forward and backward)."""

  work: str
  gate: str
  depthwise: str
  dtype: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
  """The speed of one variant.

  Attributes:
    variant: what ran.
    images_per_second: median over the rounds.
    ratio: of the speed to that of the first variant with the same work.
    compile_seconds: of compilation and the first run.
    temporary_bytes: buffers besides arguments and results, by the compiler.
    flops_per_image: by the compiler's count, or None where it gives none.
  """

  variant: Variant
  images_per_second: float
  ratio: float
  compile_seconds: float
  temporary_bytes: int
  flops_per_image: float | None


def variants(work: Sequence[str], *, dtype: str) -> list[Variant]:
  """Both gates and both depthwise convolutions for each kind of work."""
  return [
    Variant(work=w, gate=gate, depthwise=depthwise, dtype=dtype)
    for w in work
    for gate, depthwise in (('fft', 'auto'), ('dft', 'auto'), ('fft', 'conv'))
  ]


def _prepare(
  config: PainFormerConfig, variant: Variant, batch: int
) -> tuple[Callable, float, jax.stages.Compiled]:
  """A function that runs the variant once and waits, and its compilation."""
  arrays = functional.initial_variables(config, 0)
  learned = functional.parameter_paths(config)
  params = {path: a for path, a in arrays.items() if path in learned}
  stats = {path: a for path, a in arrays.items() if path not in learned}
  size = config.image_size
  images = jnp.asarray(
    np.random.default_rng(0).standard_normal((batch, size, size, 3)), jnp.float32
  )

  def forward(params, stats, images):
    return functional.from_variables(config, params | stats)(images).embedding

  def loss(params, stats, images):
    output, _ = functional.apply_train(config, params | stats, images)
    return jnp.square(output.embedding.astype(jnp.float32)).mean()

  function = {'forward': forward, 'train': jax.value_and_grad(loss)}[variant.work]
  start = time.perf_counter()
  compiled = jax.jit(function).lower(params, stats, images).compile()

  def run():
    return jax.block_until_ready(compiled(params, stats, images))

  run()
  return run, time.perf_counter() - start, compiled


def benchmark(
  model: str,
  *,
  batch: int,
  rounds: int,
  work: Sequence[str] = ('forward', 'train'),
  dtype: str = 'float32',
  progress: Log = lambda line: None,
) -> list[Measurement]:
  """Measures every variant of a preset.

  Args:
    model: preset name.
    batch: images at once.
    rounds: how often each variant runs; they take turns.
    work: of 'forward' (evaluation mode) and 'train' (forward and backward).
    dtype: 'float32' or 'bfloat16'.
    progress: takes lines about what is being done.

  Raises:
    InputError: no such preset.
  """
  prepared = []
  for variant in variants(work, dtype=dtype):
    config = registry.make_config(
      model, gate=variant.gate, depthwise=variant.depthwise, dtype=dtype
    )
    progress(f'compiles {variant.work}, gate {variant.gate}, depthwise {variant.depthwise}')
    prepared.append((variant, *_prepare(config, variant, batch)))
  seconds = {variant: [] for variant, *_ in prepared}
  for number in range(rounds):
    progress(f'round {number + 1} of {rounds}')
    for variant, run, *_ in prepared:
      start = time.perf_counter()
      run()
      seconds[variant].append(time.perf_counter() - start)
  first = {}
  results = []
  for variant, _, compile_seconds, compiled in prepared:
    base = first.setdefault(variant.work, variant)
    cost = compiled.cost_analysis() or {}
    # Pairs of one round saw the same machine.
    ratio = statistics.median(b / v for b, v in zip(seconds[base], seconds[variant]))
    results.append(
      Measurement(
        variant=variant,
        ratio=ratio,
        compile_seconds=compile_seconds,
        images_per_second=batch / statistics.median(seconds[variant]),
        temporary_bytes=compiled.memory_analysis().temp_size_in_bytes,
        flops_per_image=cost['flops'] / batch if 'flops' in cost else None,
      )
    )
  return results


def table(measurements: Sequence[Measurement]) -> str:
  """The measurements as aligned text."""
  rows = [('work', 'gate', 'depthwise', 'images/s', 'ratio', 'compile', 'temporaries')]
  for m in measurements:
    rows.append(
      (
        m.variant.work,
        m.variant.gate,
        m.variant.depthwise,
        f'{m.images_per_second:.2f}',
        f'{m.ratio:.2f}',
        f'{m.compile_seconds:.1f}s',
        f'{m.temporary_bytes / 2**20:.0f} MB',
      )
    )
  return '\n'.join(aligned(rows, right=(3, 4, 5, 6)))
