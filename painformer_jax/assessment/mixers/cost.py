"""What an Embedding-Mixer costs: parameters, multiply-adds, memory, hours."""

import dataclasses

from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig
from painformer_jax.models.perceiver import is_narrow

# Forward and backward: the gradients of a product are two more of its size.
_TRAIN = 3
# Bytes of a microbatch's activations on CPUs. Measured with the published size: 8 and 16
# samples at a time are equally fast, 32 take a quarter longer each, 2 take longer too.
_MICROBATCH_BYTES = 600e6


# Memory for activations over their count: compilers reuse some of it and hold some arrays in
# two layouts. With this XLA takes 0.71 to 1.0 times the estimate on CPUs (jax 0.12) for the
# laptop and the published size, 1 to 32 tokens, whole batches and microbatches.
_ACTIVATIONS_HELD = 1.25


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """Of a network on one sample.

  Attributes:
    parameters: learned values.
    linear: multiply-adds of linear layers.
    attention: multiply-adds of attention products. Both as the equations have them:
      what reads a narrow context takes fewer (`perceiver.is_narrow`).
    activations: values that training keeps for the backward pass, about.
  """

  parameters: int = 0
  linear: int = 0
  attention: int = 0
  activations: int = 0

  def __add__(self, other: 'Size') -> 'Size':
    return Size(
      **{f.name: getattr(self, f.name) + getattr(other, f.name) for f in dataclasses.fields(Size)}
    )

  @property
  def multiply_adds(self) -> int:
    return self.linear + self.attention

  @property
  def train_flops(self) -> int:
    """Floating-point operations of training on the sample once."""
    return 2 * _TRAIN * self.multiply_adds


def size(config: EmbeddingMixerConfig, *, tokens: int) -> Size:
  """Counts of a network that reads so many embeddings, encoder tokens included."""
  context = tokens - config.encoder_tokens
  total = Size()
  if config.encoder is not None:
    total += size(config.encoder, tokens=config.encoder_tokens)
  if config.tokens == 'scalar':
    context = context * config.input_width + config.code_width
  latents, width = config.latents, config.width
  cross = _attention(
    latents,
    width,
    context,
    config.context_width,
    config.cross_heads,
    config.cross_head_width,
    has_context=True,
  )
  own = _attention(
    latents, width, latents, width, config.self_heads, config.self_head_width, has_context=False
  )
  hidden = config.mlp_ratio * width
  mlp = Size(
    parameters=2 * width + width * 2 * hidden + 2 * hidden + hidden * width + width,
    linear=3 * latents * width * hidden,
    activations=latents * (3 * width + 5 * hidden),
  )
  total += Size(
    parameters=latents * width + 2 * width + (width + 1) * config.outputs,
    linear=width * config.outputs,
    activations=context * config.context_width,
  )
  for _ in range(config.depth):
    total += cross + mlp
    for _ in range(config.self_attentions):
      total += own + mlp
  return total


def _attention(
  latents: int,
  width: int,
  tokens: int,
  context_width: int,
  heads: int,
  head_width: int,
  *,
  has_context: bool,
) -> Size:
  inner = heads * head_width
  norms = 2 * width + (2 * context_width if has_context else 0)
  projected = 2 * latents * inner + 2 * tokens * inner
  if is_narrow(heads, context_width, inner=inner):
    projected = 2 * latents * heads * context_width
  return Size(
    parameters=norms + width * inner + context_width * 2 * inner + inner * width + width,
    linear=2 * latents * width * inner + tokens * context_width * 2 * inner,
    attention=2 * latents * tokens * inner,
    activations=(
      latents * 3 * width
      + projected
      + (tokens * 2 * context_width if has_context else 0)
      + 3 * heads * latents * tokens
    ),
  )


def count_microbatches(batch: int, *, most: int) -> int:
  """Fewest equal parts of a batch of at most so many samples each; 1 where `most` is 0."""
  return next(
    count
    for count in range(1, batch + 1)
    if batch % count == 0 and (not most or batch // count <= most)
  )


def microbatch_size(config: EmbeddingMixerConfig, *, tokens: int, batch: int, platform: str) -> int:
  """Samples of a run's batch whose gradients are computed together.

  All of the batch on accelerators. On CPUs as many as leave the activations near the
  size of the caches; how many runs train together makes no difference.
  """
  if platform != 'cpu':
    return batch
  most = max(int(_MICROBATCH_BYTES // (4 * size(config, tokens=tokens).activations)), 1)
  return batch // count_microbatches(batch, most=most)


def bytes_per_run(
  config: EmbeddingMixerConfig, *, tokens: int, batch: int, microbatch_size: int
) -> int:
  """Bytes that one run takes while it trains, rather too many than too few.

  It decides how many runs train together. Counted are parameters, two moments of AdamW,
  gradients (and their sum over microbatches) and updates, and the activations of a
  microbatch.
  """
  count = size(config, tokens=tokens)
  arrays = 5 + (microbatch_size < batch)
  activations = _ACTIVATIONS_HELD * microbatch_size * count.activations
  return round(4 * (arrays * count.parameters + activations))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingCost:
  """Of an experiment.

  Attributes:
    runs: folds × seeds.
    samples: that each run trains on, repetitions counted.
    flops_per_sample: floating-point operations of training on one.
  """

  runs: int
  samples: int
  flops_per_sample: int

  @property
  def flops(self) -> int:
    return self.runs * self.samples * self.flops_per_sample

  def hours(self, flops_per_second: float) -> float:
    """At a rate measured on this machine, such as by `speed.measured_rate`."""
    return self.flops / flops_per_second / 3600

  def __str__(self) -> str:
    return (
      f'{self.runs} runs x {self.samples:,} samples x '
      f'{self.flops_per_sample / 1e6:.4g} MFLOP = {self.flops / 1e12:.4g} TFLOP'
    )


def training_cost(
  config: EmbeddingMixerConfig, *, tokens: int, runs: int, steps: int, batch: int
) -> TrainingCost:
  """Cost of so many runs of so many steps each."""
  return TrainingCost(
    runs=runs, samples=steps * batch, flops_per_sample=size(config, tokens=tokens).train_flops
  )
