"""All folds at once in JAX beside one fold after the other in PyTorch.

Both train the same network on the same batches for the same number of steps.
PyTorch is taken from the user's environment and is no dependency: without it
only JAX is measured. Machines differ and are busy with other things, so that
both take turns, and the ratio is the median over rounds.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable

import jax
import numpy as np

from painformer_jax.assessment.folds.batches import Fold, Run, minibatches
from painformer_jax.assessment.mixers import cost, fit_program
from painformer_jax.assessment.mixers.fit_program import Data, FitConfig, RunInputs
from painformer_jax.core.errors import InputError
from painformer_jax.core.memory import free_memory
from painformer_jax.models import mixer
from painformer_jax.parallel import mesh as parallel

_SCHEDULE = 10_000  # Steps that the learning rate's schedule spans on both sides.


def torch_mixer(config: mixer.MixerConfig):
  """The Mixer as a plain PyTorch module, with the names of the JAX arrays.

  Its forward takes embeddings [batch, tokens, input width], all of them there.

  Raises:
    ValueError: the config has an encoder or computes in bfloat16, which the
      benchmark does not cover.
    ModuleNotFoundError: PyTorch is not installed.
  """
  import torch
  from torch import nn
  from torch.nn import functional as F

  from painformer_jax.models.perceiver import fourier_features

  if config.encoder is not None or config.dtype != 'float32':
    raise ValueError('the PyTorch Mixer has no encoder and computes in float32')

  class Attention(nn.Module):
    def __init__(self, context_width, heads, head_width):
      super().__init__()
      inner, self.heads = heads * head_width, heads
      self.norm = nn.LayerNorm(config.width)
      self.norm_context = nn.LayerNorm(context_width) if context_width else None
      self.q = nn.Linear(config.width, inner, bias=False)
      self.kv = nn.Linear(context_width or config.width, 2 * inner, bias=False)
      self.proj = nn.Linear(inner, config.width)
      self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, context):
      y = self.norm(x)
      source = y if context is None else self.norm_context(context)
      q, k, v = (
        t.unflatten(-1, (self.heads, -1)).transpose(1, 2)
        for t in (self.q(y), *self.kv(source).chunk(2, dim=-1))
      )
      y = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
      return x + self.dropout(self.proj(y))

  class Mlp(nn.Module):
    def __init__(self):
      super().__init__()
      hidden = config.mlp_ratio * config.width
      self.norm = nn.LayerNorm(config.width)
      self.fc1 = nn.Linear(config.width, 2 * hidden)
      self.fc2 = nn.Linear(hidden, config.width)
      self.dropout = nn.Dropout(config.dropout)

    def forward(self, x):
      value, gate = self.fc1(self.norm(x)).chunk(2, dim=-1)
      return x + self.dropout(self.fc2(value * F.gelu(gate)))

  class Mixer(nn.Module):
    def __init__(self):
      super().__init__()
      self.latents = nn.Parameter(torch.randn(config.latents, config.width))
      self.attentions, self.mlps = nn.ModuleList(), nn.ModuleList()
      for _ in range(config.depth):
        self.attentions.append(
          Attention(config.context_width, config.cross_heads, config.cross_head_width)
        )
        for _ in range(config.self_attentions):
          self.attentions.append(Attention(None, config.self_heads, config.self_head_width))
      for _ in self.attentions:
        self.mlps.append(Mlp())
      self.norm = nn.LayerNorm(config.width)
      self.head = nn.Linear(config.width, config.outputs)

    def forward(self, embeddings):
      batch, tokens, width = embeddings.shape
      scalar = config.tokens == 'scalar'
      entries = embeddings.reshape(batch, -1, 1) if scalar else embeddings
      features = torch.from_numpy(
        fourier_features(
          entries.shape[1],
          positions=config.positions * (width if scalar else 1),
          bands=config.bands,
          max_frequency=config.max_frequency,
        )
      ).to(entries.device)
      context = torch.cat([entries, features.expand(batch, -1, -1)], dim=2)
      x = self.latents.expand(batch, -1, -1)
      for number, (attention, mlp) in enumerate(zip(self.attentions, self.mlps)):
        reads = number % (1 + config.self_attentions) == 0
        x = mlp(attention(x, context if reads else None))
      return self.head(self.norm(x.mean(dim=1)))

  return Mixer()


def load_arrays(model, arrays) -> None:
  """Copies the JAX arrays of a Mixer into its PyTorch twin."""
  import torch

  state = {}
  for path, array in arrays.items():
    name = path.replace('/', '.').replace('kernel', 'weight').replace('scale', 'weight')
    array = np.asarray(array)
    state[name] = torch.tensor(array.T if path.endswith('kernel') else array)
  model.load_state_dict(state, strict=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """What both sides train on: random embeddings, the folds' batches."""

  config: FitConfig
  inputs: np.ndarray
  labels: np.ndarray
  batches: np.ndarray
  keys: np.ndarray


def make_problem(
  config: FitConfig, *, folds: int, samples: int, tokens: int, steps: int
) -> Problem:
  """Each fold leaves an equal share of the samples out."""
  rng = np.random.default_rng(0)
  inputs = rng.standard_normal((samples, tokens, config.model.input_width), np.float32)
  labels = rng.integers(0, config.model.outputs, samples).astype(np.int32)
  runs = []
  for number, test in enumerate(np.array_split(np.arange(samples), max(folds, 2))[:folds]):
    train = np.setdiff1d(np.arange(samples), test)
    runs.append(Run(fold=Fold(name=f'fold {number}', train=train, test=test), seed=0))
  batches = np.stack([minibatches(run, steps=steps, batch=config.batch) for run in runs])
  return Problem(
    config=config,
    inputs=inputs,
    labels=labels,
    batches=batches,
    keys=np.stack([run.key for run in runs]),
  )


def _piece(config: FitConfig, *, tokens: int) -> int:
  return cost.piece_size(
    config.model, tokens=tokens, batch=config.batch, platform=jax.default_backend()
  )


def _prepare_jax(problem: Problem) -> tuple[Callable[[], None], float, dict]:
  """A function that trains all folds so many steps further; compile seconds; arrays of fold 0."""
  config, (folds, steps, _) = problem.config, problem.batches.shape
  mesh = parallel.data_mesh()
  # Devices take equally many: copies fill up.
  filled = np.arange(-(-folds // mesh.size) * mesh.size) % folds
  data = jax.device_put(
    Data(inputs=problem.inputs, labels=problem.labels, mask=None), parallel.replicated(mesh)
  )
  inputs = fit_program.put_runs(
    mesh,
    RunInputs(
      batches=problem.batches[filled],
      weights=np.ones((len(filled), config.model.outputs), np.float32),
      test=np.zeros((len(filled), 1, 1), np.int32),
    ),
  )
  state = fit_program.make_initial(config, mesh)(fit_program.put_runs(mesh, problem.keys[filled]))
  first = jax.device_get({path: a[0] for path, a in state.params.items()})
  advance = fit_program.make_advance(
    config, mesh, steps=_SCHEDULE, piece=_piece(config, tokens=problem.inputs.shape[1])
  )

  def run():
    nonlocal state
    state, losses, _ = advance(state, data, inputs, np.int32(0), np.int32(steps), False)
    if not np.isfinite(np.asarray(losses)).all():
      raise RuntimeError('the loss is not finite')

  start = time.perf_counter()
  run()
  return run, time.perf_counter() - start, first


def _prepare_torch(problem: Problem, arrays: dict) -> Callable[[], None]:
  """A function that trains one fold after the other, so many steps further each.

  With one thread or with all that PyTorch would take, whichever is quicker here:
  small networks often lose by more.
  """
  import torch
  from torch.nn import functional as F

  config, (folds, _, _) = problem.config, problem.batches.shape
  device = torch.device(
    'cuda' if torch.cuda.is_available() and jax.default_backend() == 'gpu' else 'cpu'
  )
  inputs, labels = (
    torch.from_numpy(a).to(device) for a in (problem.inputs, problem.labels.astype(np.int64))
  )
  batches = torch.from_numpy(problem.batches.astype(np.int64)).to(device)
  trainers = []
  for _ in range(folds):
    model = torch_mixer(config.model).to(device).train()
    load_arrays(model, arrays)
    optimizer = torch.optim.AdamW(
      model.parameters(),
      lr=config.learning_rate,
      betas=(config.b1, config.b2),
      weight_decay=config.weight_decay,
      fused=True,
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, _SCHEDULE)
    trainers.append((model, optimizer, schedule))

  def run():
    for (model, optimizer, schedule), rows in zip(trainers, batches):
      for row in rows:
        loss = F.cross_entropy(
          model(inputs[row]), labels[row], label_smoothing=config.label_smoothing
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
      if not torch.isfinite(loss).item():
        raise RuntimeError('the loss is not finite')

  quickest = None
  for threads in sorted({torch.get_num_threads(), 1}):
    torch.set_num_threads(threads)
    run()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    if quickest is None or seconds < quickest[0]:
      quickest = seconds, threads
  torch.set_num_threads(quickest[1])
  return run


def run(
  *,
  model: str = 'mixer_laptop',
  folds: int = 87,
  batch: int = 32,
  tokens: int = 1,
  samples: int = 3480,
  steps: int = 4,
  rounds: int = 5,
  progress: Callable[[str], None] = lambda line: None,
  **overrides,
) -> dict:
  """Measures training steps a second of all folds, in JAX and in PyTorch.

  Args:
    model: a preset of `models.mixer`.
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
  config = FitConfig(model=mixer.make_config(model, positions=tokens, **overrides), batch=batch)
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
  run_jax, result['compile_seconds'], arrays = _prepare_jax(problem)
  sides = {'jax': run_jax}
  try:
    import torch
  except ModuleNotFoundError:
    progress('PyTorch is not installed here: only JAX is measured')
  else:
    progress('prepares PyTorch, a network a fold')
    sides['torch'] = _prepare_torch(problem, arrays)
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
    config.model, tokens=tokens, batch=config.batch, piece=_piece(config, tokens=tokens)
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


def measured_rate(config: FitConfig, *, tokens: int, runs: int, steps: int = 2) -> float:
  """Floating-point operations a second with which so many runs train together here.

  Compiles and runs the program on random embeddings; takes about a minute. For
  `cost.TrainingCost.hours`.
  """
  problem = make_problem(config, folds=runs, samples=max(4 * runs, 8), tokens=tokens, steps=steps)
  train, _, _ = _prepare_jax(problem)
  start = time.perf_counter()
  train()
  seconds = time.perf_counter() - start
  return runs * steps * config.batch * cost.size(config.model, tokens=tokens).train_flops / seconds


def table(result: dict) -> str:
  """The result of `run` as aligned text."""
  lines = [
    f'{result["model"]}, {result["parameters"]:,} parameters, {result["folds"]} folds, '
    f'batch {result["batch"]}, {result["tokens"]} embedding(s) a sample, '
    f'{result["devices"]} {result["device_kind"]} device(s); load {result["load"]:.1f}',
    f'{"":24} {"fold steps/s":>12} {"GFLOP/s":>8} {"ratio":>6}',
  ]
  ratio = '' if result['ratio'] is None else f'{result["ratio"]:.2f}'
  for side, name, last in (
    ('jax', 'JAX, all folds at once', ratio),
    ('torch', 'PyTorch, one by one', '1.00'),
  ):
    if result[side]:
      lines.append(
        f'{name:24} {result[side]["fold_steps_per_second"]:12.1f} '
        f'{result[side]["gflops_per_second"]:8.1f} {last:>6}'
      )
  if not result['torch']:
    lines.append('PyTorch is not installed here: nothing to compare with')
  lines.append(f'JAX compiled in {result["compile_seconds"]:.0f} s beforehand')
  return '\n'.join(lines)
