"""The shape of a PainFormer as data: one dataclass, and the named presets.

Sources: the released code (tag V), the published SpectFormer-H family where
the release is silent (S). What is neither is marked "reconstructed".
"""

import dataclasses
import math
import numbers
from typing import Literal

SPECTRAL, ATTENTION = 's', 'a'

# Fields that change how the model computes, but neither its arrays nor what they mean.
ARITHMETIC = ('dtype', 'gate', 'gate_precision', 'depthwise', 'drop_path_rate')

# Statistics of the pictures that models are trained on, for values in [0, 1].
VGGFACE2 = ((0.6068, 0.4517, 0.3800), (0.2492, 0.2173, 0.2082))
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@dataclasses.dataclass(frozen=True, kw_only=True)
class PainFormerConfig:
  """Every choice that shapes the network or its arithmetic.

  The defaults are the released model. Sequences have one entry a stage.

  Attributes:
    image_size: height and width of the input in pixels. The grids, and with
      them the spectral filters, follow from it; other sizes than 224 are not
      in the release (see `models.spectral.resample`).
    mean, std: of each channel, for values in [0, 1], by which the input is normalised;
      VGGFace2's in the release.
    num_classes: width of the linear head on the embedding; 0 for none.
    stem_width: channels of the three convolutions before the first width.
    widths: channels of each stage; the last is the width of the embedding.
    mixers: the token mixer of each block, a string a stage: 's' for the
      spectral gate, 'a' for self-attention.
    heads: attention heads of each stage (used by its 'a' blocks).
    mlp_ratios: hidden width of the MLPs over the width of the stage.
    post_heads, post_mlp_ratio, post_blocks: the class attention at the end.
    drop_path_rate: stochastic depth at the last block, rising linearly from 0
      at the first; 0 in the release.
    dtype: of the arithmetic between layers. Parameters, normalisation,
      softmax and the spectral gate's spectrum stay float32.
    gate: how the spectral gate is computed, with the same result: 'fft', or
      'dft' written as matrix products (no transposes, fuses on TPU).
    gate_precision: of the 'dft' products: 'highest' is float32 arithmetic on
      every backend; 'default' lets TPUs use bfloat16 passes.
    depthwise: how the 3×3 depthwise convolutions are computed, with the same
      result: 'shift' as nine shifted multiply-adds, 'conv' as a grouped
      convolution; 'auto' takes the quicker one for the backend.

  Raises:
    ValueError: a value of another type or size, or values that do not fit together.
  """

  image_size: int = 224
  mean: tuple[float, ...] = VGGFACE2[0]
  std: tuple[float, ...] = VGGFACE2[1]
  num_classes: int = 0
  stem_width: int = 64
  widths: tuple[int, ...] = (64, 128, 320, 160)
  mixers: tuple[str, ...] = ('sss', 'ssss', 'a' * 12, 'aaa')
  heads: tuple[int, ...] = (2, 4, 10, 16)
  mlp_ratios: tuple[int, ...] = (8, 8, 4, 4)
  post_heads: int = 16
  post_mlp_ratio: int = 4
  post_blocks: int = 1
  drop_path_rate: float = 0.0
  dtype: Literal['float32', 'bfloat16'] = 'float32'
  gate: Literal['fft', 'dft'] = 'fft'
  gate_precision: Literal['highest', 'default'] = 'highest'
  depthwise: Literal['auto', 'shift', 'conv'] = 'auto'

  def __post_init__(self) -> None:
    for name, least in _LEAST.items():
      value = getattr(self, name)
      if isinstance(value, list):  # As in JSON; a config can be hashed.
        value = tuple(value)
      if name in _PER_STAGE and not (isinstance(value, tuple) and value):
        raise ValueError(f'{name} {value!r} is not a whole number for each stage')
      for number in value if name in _PER_STAGE else (value,):
        if isinstance(number, bool) or not isinstance(number, numbers.Integral):
          raise ValueError(f'{name} {value!r}: {number!r} is not a whole number')
        if number < least:
          raise ValueError(
            f'{name} {value!r} is below {least}'
            if number is value
            else f'{name} {value!r}: {number} is below {least}'
          )
      # NumPy's integers are no JSON.
      object.__setattr__(self, name, (tuple(map(int, value)) if name in _PER_STAGE else int(value)))
    mixers = tuple(self.mixers) if isinstance(self.mixers, list) else self.mixers
    if not isinstance(mixers, tuple) or not all(isinstance(m, str) for m in mixers):
      raise ValueError(f'mixers {mixers!r} is not a string for each stage')
    object.__setattr__(self, 'mixers', mixers)
    for name in ('mean', 'std'):
      object.__setattr__(self, name, _statistics(name, getattr(self, name)))
    stages = len(self.widths)
    for name in ('mixers', 'heads', 'mlp_ratios'):
      if len(getattr(self, name)) != stages:
        raise ValueError(f'{name} has {len(getattr(self, name))} entries for {stages} stages')
    if self.image_size < 2 ** (stages + 1):
      raise ValueError(f'image_size {self.image_size} is below {2 ** (stages + 1)} pixels')
    for pattern, width, heads in zip(self.mixers, self.widths, self.heads):
      if not pattern or set(pattern) - {SPECTRAL, ATTENTION}:
        raise ValueError(f"mixers entry {pattern!r}: only 's' and 'a' are known")
      if ATTENTION in pattern and width % heads:
        raise ValueError(f'width {width} is not divisible by {heads} heads')
    if self.widths[-1] % self.post_heads:
      raise ValueError(f'width {self.widths[-1]} is not divisible by {self.post_heads} post_heads')
    for name, allowed in _CHOICES.items():
      if getattr(self, name) not in allowed:
        raise ValueError(f'{name} {getattr(self, name)!r}: one of {", ".join(allowed)}')
    rate = self.drop_path_rate
    if isinstance(rate, bool) or not isinstance(rate, numbers.Real) or not 0 <= rate < 1:
      raise ValueError(f'drop_path_rate {rate!r} is not a number in [0, 1)')

  @property
  def embedding_width(self) -> int:
    return self.widths[-1]

  @property
  def depth(self) -> int:
    """Blocks of all stages, without the class attention."""
    return sum(len(pattern) for pattern in self.mixers)

  def grid(self, stage: int) -> int:
    """Height and width in tokens of a stage, counted from 0."""
    return -(-self.image_size // (4 << stage))


def _statistics(name: str, value: object) -> tuple[float, ...]:
  """Three numbers, one for each channel; those of `std` are above 0."""
  if not isinstance(value, list | tuple) or len(value) != 3:
    raise ValueError(f'{name} {value!r} is not a number for each of the 3 channels')
  for number in value:
    if isinstance(number, bool) or not isinstance(number, numbers.Real):
      raise ValueError(f'{name} {value!r}: {number!r} is not a number')
    if not math.isfinite(number) or (name == 'std' and number <= 0):
      raise ValueError(f'{name} {value!r}: {number!r} is not finite or not above 0')
  return tuple(map(float, value))


# The least value of each field of whole numbers; those with one for each stage.
_LEAST = {
  'image_size': 1,
  'num_classes': 0,
  'stem_width': 1,
  'widths': 1,
  'heads': 1,
  'mlp_ratios': 1,
  'post_heads': 1,
  'post_mlp_ratio': 1,
  'post_blocks': 0,
}
_PER_STAGE = ('widths', 'heads', 'mlp_ratios')

_CHOICES = {
  'dtype': ('float32', 'bfloat16'),
  'gate': ('fft', 'dft'),
  'gate_precision': ('highest', 'default'),
  'depthwise': ('auto', 'shift', 'conv'),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
  """A named model.

  Attributes:
    config: its shape, without a head.
    evidence: where the shape comes from.
    parameters: how many parameters it has without a head, exactly.
    remark: what else who uses published weights of this model must know; '' for nothing.
  """

  config: PainFormerConfig
  evidence: str
  parameters: int
  remark: str = ''


def _spectformer(
  *, stem_width: int, widths: tuple[int, ...], mixers: tuple[str, ...], heads: tuple[int, ...]
) -> PainFormerConfig:
  """A hierarchical SpectFormer, trained on ImageNet."""
  return PainFormerConfig(
    mean=IMAGENET[0],
    std=IMAGENET[1],
    stem_width=stem_width,
    widths=widths,
    mixers=mixers,
    heads=heads,
    post_heads=heads[-1],
  )


PRESETS = {
  'painformer': Preset(
    config=PainFormerConfig(), evidence='the released code', parameters=19_596_704
  ),
  'painformer_figure': Preset(
    config=PainFormerConfig(mixers=('ssa', 'ssaa', 'a' * 12, 'aaa')),
    evidence="the pattern of spectral and attention blocks in the paper's "
    'figure, which the released code does not have; heads of stages 1 and '
    '2 reconstructed',
    parameters=19_322_528,
  ),
  'painformer_small': Preset(
    config=PainFormerConfig(
      image_size=96,
      stem_width=16,
      widths=(32, 64, 128, 160),
      mixers=('s', 'ss', 'aaa', 'a'),
      heads=(1, 2, 4, 8),
      mlp_ratios=(4, 4, 4, 4),
      post_heads=8,
    ),
    evidence='this project: for laptops and the demo',
    parameters=1_648_240,
  ),
  'painformer_nano': Preset(
    config=PainFormerConfig(
      image_size=32,
      stem_width=8,
      widths=(8, 16, 24, 32),
      mixers=('s', 's', 'a', 'a'),
      heads=(1, 2, 3, 4),
      mlp_ratios=(2, 2, 2, 2),
      post_heads=4,
      post_mlp_ratio=2,
    ),
    evidence='this project: for tests',
    parameters=40_904,
  ),
  # The family that the release is derived from. Its published counts, 22.2 M, 33.1 M and
  # 54.7 M, include two heads of 1000 classes: one for the image and one for the tokens.
  'spectformer_s': Preset(
    config=_spectformer(
      stem_width=32,
      widths=(64, 128, 320, 448),
      mixers=('sss', 'ssss', 'a' * 6, 'aaa'),
      heads=(2, 4, 10, 14),
    ),
    evidence='the published code of SpectFormer-H-S (arXiv 2304.06446); 22,226,928 with its two '
    'heads, published as 22.2 M',
    parameters=21_328_928,
  ),
  'spectformer_b': Preset(
    config=_spectformer(
      stem_width=64,
      widths=(64, 128, 320, 512),
      mixers=('sss', 'ssss', 'a' * 12, 'aaa'),
      heads=(2, 4, 10, 16),
    ),
    evidence='the published code of SpectFormer-H-B (arXiv 2304.06446); 33,052,880 with its two '
    'heads, published as 33.1 M',
    parameters=32_026_880,
  ),
  'spectformer_l': Preset(
    config=_spectformer(
      stem_width=64,
      widths=(96, 192, 384, 512),
      mixers=('sss', 's' * 6, 'a' * 18, 'aaa'),
      heads=(3, 6, 12, 16),
    ),
    evidence='the published code of SpectFormer-H-L (arXiv 2304.06446); 54,675,792 with its two '
    'heads, published as 54.7 M',
    parameters=53_649_792,
  ),
  'tiny_biomoe': Preset(
    config=PainFormerConfig(stem_width=32, widths=(64, 128, 320, 96), mixers=('s', 's', 'a', 'a')),
    evidence='the published code of Tiny-BioMoE (arXiv 2507.21875): its SpectFormer encoder, '
    "`enc1`, with 2,897,856 of the whole model's 7,337,278 parameters (published as 7.34 M)",
    parameters=2_897_856,
    remark='Tiny-BioMoE normalises its images by the LayerNorm `ln_img` of its file before this '
    'encoder, and joins it with another one: neither is done here',
  ),
}
