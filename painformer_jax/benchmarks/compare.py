"""The Mixer in PyTorch: the reference that the JAX folds are timed against.

PyTorch comes from the user's environment and is no dependency.
"""

import time
from collections.abc import Callable

import jax
import numpy as np

from painformer_jax.assessment.mixers.speed import SCHEDULE_STEPS, Problem
from painformer_jax.models import embedding_mixer_config


def torch_mixer(config: embedding_mixer_config.EmbeddingMixerConfig):
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


def prepare_torch(problem: Problem, arrays: dict) -> Callable[[], None]:
  """A function that trains one fold after the other, each for all of the problem's steps.

  Times one thread against PyTorch's default number of threads and keeps the faster:
  small networks are often slower with more threads.
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
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, SCHEDULE_STEPS)
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

  fastest = None
  for threads in sorted({torch.get_num_threads(), 1}):
    torch.set_num_threads(threads)
    run()
    start = time.perf_counter()
    run()
    seconds = time.perf_counter() - start
    if fastest is None or seconds < fastest[0]:
      fastest = seconds, threads
  torch.set_num_threads(fastest[1])
  return run
