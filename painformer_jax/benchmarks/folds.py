"""All folds at once in JAX beside one fold after the other in PyTorch.

Both train the same network on the same batches for the same number of steps.
Where PyTorch is not installed, only JAX is measured. JAX and PyTorch take turns,
so that other work on the machine slows both, and the ratio is the median over rounds.
"""

import os
import statistics
import time

import jax

from painformer_jax.assessment.mixers import cost
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.speed import compile_trainer, make_problem, microbatch_of
from painformer_jax.benchmarks.compare import prepare_torch
from painformer_jax.core.errors import InputError
from painformer_jax.core.memory import free_memory
from painformer_jax.core.progress import Log
from painformer_jax.core.tables import aligned
from painformer_jax.models import embedding_mixer_config


def run(
  *,
  model: str = 'mixer_laptop',
  folds: int = 87,
  batch: int = 32,
  tokens: int = 1,
  samples: int = 3480,
  steps: int = 4,
  rounds: int = 5,
  progress: Log = lambda line: None,
  **overrides,
) -> dict:
  """Measures training steps a second of all folds, in JAX and in PyTorch.

  Args:
    model: a preset of `models.embedding_mixer_config`.
    folds: how many train; all of them stay in memory.
    batch: samples a step and fold.
    tokens: embeddings a sample.
    samples: of the made-up data set.
    steps: of each fold in a round.
    rounds: how often each side runs; they take turns.
    progress: told what is going on.
    **overrides: fields of the preset.

  Returns:
    'jax' and 'torch' (None where it is not installed), each with
    'fold_steps_per_second' (median), 'gflops_per_second' and the 'seconds' of every
    round; 'ratio', the median over rounds of the speed of JAX over PyTorch's;
    'compile_seconds'; what was measured; 'load', how busy the machine was.

  Raises:
    InputError: no such preset or field, a count below 1, or more than fits into memory.
  """
  for name, value in (
    ('folds', folds),
    ('batch', batch),
    ('tokens', tokens),
    ('steps', steps),
    ('rounds', rounds),
  ):
    if value < 1:
      raise InputError(f'{name} {value} is below 1')
  if samples < 2 * folds or folds < 2:
    raise InputError(
      f'{samples} samples and {folds} folds: needs two folds or more, and two samples a fold'
    )
  config = FitConfig(
    model=embedding_mixer_config.make_config(model, positions=tokens, **overrides), batch=batch
  )
  _check_memory(config, folds=folds, tokens=tokens)
  problem = make_problem(config, folds=folds, samples=samples, tokens=tokens, steps=steps)
  result = {
    'model': model,
    'overrides': overrides,
    'folds': folds,
    'batch': batch,
    'tokens': tokens,
    'samples': samples,
    'steps': steps,
    'rounds': rounds,
    'parameters': cost.size(config.model, tokens=tokens).parameters,
    'load': os.getloadavg()[0],
    'devices': len(jax.devices()),
    'device_kind': jax.devices()[0].device_kind,
    'torch': None,
    'ratio': None,
  }
  progress(f'compiles {folds} folds of {model}')
  trainer = compile_trainer(problem)
  result['compile_seconds'] = trainer.compile_seconds
  sides = {'jax': trainer.train}
  try:
    import torch
  except ModuleNotFoundError:
    progress('PyTorch is not installed here: only JAX is measured')
  else:
    progress('prepares PyTorch, a network a fold')
    sides['torch'] = prepare_torch(problem, trainer.first_parameters)
    result |= {'torch_version': torch.__version__, 'torch_threads': torch.get_num_threads()}
  seconds = {side: [] for side in sides}
  for number in range(rounds):
    progress(f'round {number + 1} of {rounds}')
    for side, once in sides.items():
      start = time.perf_counter()
      once()
      seconds[side].append(time.perf_counter() - start)
  flops = batch * cost.size(config.model, tokens=tokens).train_flops
  for side, spent in seconds.items():
    rate = folds * steps / statistics.median(spent)
    result[side] = {
      'fold_steps_per_second': rate,
      'gflops_per_second': rate * flops / 1e9,
      'seconds': spent,
    }
  if 'torch' in seconds:
    result['ratio'] = statistics.median(t / j for t, j in zip(seconds['torch'], seconds['jax']))
  return result


def _check_memory(config: FitConfig, *, folds: int, tokens: int) -> None:
  """Raises InputError where the folds of both sides do not fit into the devices."""
  a_fold = cost.bytes_per_run(
    config.model,
    tokens=tokens,
    batch=config.batch,
    microbatch_size=microbatch_of(config, tokens=tokens),
  )
  # Parameters, gradients and two moments of PyTorch's; activations of one at a time.
  a_fold += 16 * cost.size(config.model, tokens=tokens).parameters
  one = 4 * config.batch * cost.size(config.model, tokens=tokens).activations
  free = sum(free_memory(device) for device in jax.local_devices())
  if folds * a_fold + one > free:
    raise InputError(
      f'{folds} folds of batch {config.batch} take about {(folds * a_fold + one) / 1e9:.3g} GB, '
      f'and {free / 1e9:.3g} GB are free: take fewer --folds (at most '
      f'{max(int((free - one) // a_fold), 0)} fit) or a smaller --batch'
    )


def table(result: dict) -> str:
  """The result of `run` as aligned text."""
  lines = [
    f'{result["model"]}, {result["parameters"]:,} parameters, {result["folds"]} folds, '
    f'batch {result["batch"]}, {result["tokens"]} embedding(s) a sample, '
    f'{result["devices"]} {result["device_kind"]} device(s); load {result["load"]:.1f}'
  ]
  rows = [('', 'fold steps/s', 'GFLOP/s', 'ratio')]
  ratio = '' if result['ratio'] is None else f'{result["ratio"]:.2f}'
  for side, name, last in (
    ('jax', 'JAX, all folds at once', ratio),
    ('torch', 'PyTorch, one by one', '1.00'),
  ):
    if result[side]:
      rate, flops = (result[side][f'{unit}_per_second'] for unit in ('fold_steps', 'gflops'))
      rows.append((name, f'{rate:.1f}', f'{flops:.1f}', last))
  lines += aligned(rows, right=(1, 2, 3))
  if not result['torch']:
    lines.append('PyTorch is not installed here: nothing to compare with')
  lines.append(f'JAX compiled in {result["compile_seconds"]:.0f} s beforehand')
  return '\n'.join(lines)
