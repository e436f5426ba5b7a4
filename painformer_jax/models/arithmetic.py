"""How many multiply-adds a PainFormer takes, from its config alone."""

from painformer_jax.models.config import ATTENTION, PainFormerConfig

# A multiply and an add; forward, and twice that for the gradients by inputs and
# by weights.
FLOPS_PER_MULTIPLY_ADD = 2
TRAINING_OVER_FORWARD = 3


def multiply_adds(config: PainFormerConfig) -> dict[str, int]:
  """Multiply-adds of one image's forward pass by part of the network.

  Counted are convolutions, linear layers and the products of attention, as the
  usual counters do. Not counted are normalisation, activations, softmax, and the
  spectral gate, whose cost depends on how it is computed (see `gate_multiply_adds`).

  Returns:
    'stem', then for each stage n from 1 'stage<n>/entry' (not for the first),
    'stage<n>/mlp', 'stage<n>/projections' and 'stage<n>/attention' (where it has
    attention blocks), then 'class_attention' and 'head' (where it has one). Known
    for the released shape: 6.085e9 in all, 5.788e9 without the products of attention.
  """
  half = -(-config.image_size // 2)
  stem = config.stem_width
  parts = {
    'stem': half**2 * (49 * 3 * stem + 2 * 9 * stem**2)
    + config.grid(0) ** 2 * 9 * stem * config.widths[0]
  }
  for stage, pattern in enumerate(config.mixers):
    name, width, tokens = f'stage{stage + 1}', config.widths[stage], config.grid(stage) ** 2
    hidden = config.mlp_ratios[stage] * width
    if stage:
      parts[f'{name}/entry'] = tokens * 9 * config.widths[stage - 1] * width
    parts[f'{name}/mlp'] = len(pattern) * tokens * hidden * (2 * width + 9)
    if attention := pattern.count(ATTENTION):
      parts[f'{name}/projections'] = attention * tokens * 4 * width**2
      parts[f'{name}/attention'] = attention * 2 * tokens**2 * width
  width, tokens = config.embedding_width, config.grid(len(config.widths) - 1) ** 2 + 1
  parts['class_attention'] = config.post_blocks * (
    tokens * 2 * width**2
    + 2 * width**2  # Keys and values of all, one query.
    + 2 * tokens * width
    + 2 * config.post_mlp_ratio * width**2
  )
  if config.num_classes:
    parts['head'] = width * config.num_classes
  return parts


def gate_multiply_adds(config: PainFormerConfig) -> int:
  """Multiply-adds of one image's spectral gates where `config.gate` is 'dft'.

  0 for 'fft', whose operations are not matrix products.
  """
  if config.gate == 'fft':
    return 0
  total = 0
  for stage, pattern in enumerate(config.mixers):
    grid, width = config.grid(stage), config.widths[stage]
    columns = grid // 2 + 1
    along_width = 2 * grid * grid * columns  # Real in, complex out; or the reverse.
    along_height = 4 * grid * grid * columns
    gates = len(pattern) - pattern.count(ATTENTION)
    total += gates * width * 2 * (along_width + along_height)
  return total


def stem_statistics_flops(config: PainFormerConfig) -> float:
  """FLOP of one image for `functional.stem_statistics`, gradients included.

  What gradient accumulation adds: the convolutions before each
  BatchNorm of the stem forward, again for the gradients, and those by kernels and inputs
  (which the first convolution, of the image, does not need).
  """
  stem, half = config.stem_width, -(-config.image_size // 2)
  first, further = 3 * 49 * 3 * stem, (2 + 1) * 9 * stem**2
  return float(FLOPS_PER_MULTIPLY_ADD * half**2 * (3 * first + 4 * further))


def training_flops(config: PainFormerConfig) -> float:
  """FLOP of one training image by convention: 6 for each multiply-add forward.

  The gate is left out, so that figures of both gates compare. 36.5e9 for the
  released shape.
  """
  return float(TRAINING_OVER_FORWARD * FLOPS_PER_MULTIPLY_ADD * sum(multiply_adds(config).values()))
