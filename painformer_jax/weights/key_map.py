"""A table of the names and layouts of all arrays: in the release, and in this package.

A rule gives a name in the released state dict, the path in
`models.functional.variables`, and the layout that turns one array into the
other. `{n}` stands for the number of a stage, from 1, and `{i}` for that of a block,
from 0; they are the same number on both sides. The table is used in both
directions.
"""

import dataclasses
import functools
import re
from collections.abc import Callable

import numpy as np

from painformer_jax.core.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Layout:
  """How an array is arranged in PyTorch and here; neither function copies.

  Attributes:
    ours: from PyTorch's layout to this package's.
    torch: back.
    dtype: of the array in the released state dict.
  """

  ours: Callable[[np.ndarray], np.ndarray]
  torch: Callable[[np.ndarray], np.ndarray]
  dtype: str = 'float32'


LAYOUTS = {
  'as_is': Layout(ours=lambda a: a, torch=lambda a: a),
  # [out, in] <-> [in, out]
  'linear': Layout(ours=lambda a: a.T, torch=lambda a: a.T),
  # [out, in, height, width] <-> [height, width, in, out]
  'conv': Layout(ours=lambda a: a.transpose(2, 3, 1, 0), torch=lambda a: a.transpose(3, 2, 0, 1)),
  # [channels, 1, height, width] <-> [height, width, channels]
  'depthwise': Layout(
    ours=lambda a: a[:, 0].transpose(1, 2, 0), torch=lambda a: a.transpose(2, 0, 1)[:, None]
  ),
  # BatchNorm's count of batches: int64 in PyTorch, int32 here.
  'counter': Layout(ours=lambda a: a, torch=lambda a: a, dtype='int64'),
}


@dataclasses.dataclass(frozen=True)
class Rule:
  """One row of the table: two names with the same placeholders, and a key of `LAYOUTS`."""

  torch: str
  ours: str
  layout: str


def _module(
  name: str, *, kernel: str, layout: str, ours: str | None = None, bias: bool = True
) -> list[Rule]:
  ours = ours or name.replace('.', '/')
  rules = [Rule(f'{name}.weight', f'{ours}/{kernel}', layout)]
  if bias:
    rules.append(Rule(f'{name}.bias', f'{ours}/bias', 'as_is'))
  return rules


def _linear(name: str) -> list[Rule]:
  return _module(name, kernel='kernel', layout='linear')


def _conv(name: str, **options) -> list[Rule]:
  return _module(name, kernel='kernel', layout='conv', **options)


def _norm(name: str, **options) -> list[Rule]:
  return _module(name, kernel='scale', layout='as_is', **options)


def _batch_norm(name: str, ours: str) -> list[Rule]:
  return _norm(name, ours=ours) + [
    Rule(f'{name}.running_mean', f'{ours}/mean', 'as_is'),
    Rule(f'{name}.running_var', f'{ours}/var', 'as_is'),
    Rule(f'{name}.num_batches_tracked', f'{ours}/count', 'counter'),
  ]


# In the order of the released state dict, within a stage and within a block.
RULES: tuple[Rule, ...] = (
  *_conv('patch_embed1.conv.0', ours='patch_embed1/conv1', bias=False),
  *_batch_norm('patch_embed1.conv.1', 'patch_embed1/bn1'),
  *_conv('patch_embed1.conv.3', ours='patch_embed1/conv2', bias=False),
  *_batch_norm('patch_embed1.conv.4', 'patch_embed1/bn2'),
  *_conv('patch_embed1.conv.6', ours='patch_embed1/conv3', bias=False),
  *_batch_norm('patch_embed1.conv.7', 'patch_embed1/bn3'),
  *_conv('patch_embed{n}.proj'),
  *_norm('patch_embed{n}.norm'),
  *_norm('block{n}.{i}.norm1'),
  *_norm('block{n}.{i}.norm2'),
  Rule('block{n}.{i}.attn.complex_weight', 'block{n}/{i}/attn/complex_weight', 'as_is'),
  *_linear('block{n}.{i}.attn.q'),
  *_linear('block{n}.{i}.attn.kv'),
  *_linear('block{n}.{i}.attn.proj'),
  *_linear('block{n}.{i}.mlp.fc1'),
  *_module(
    'block{n}.{i}.mlp.dwconv.dwconv',
    ours='block{n}/{i}/mlp/dwconv',
    kernel='kernel',
    layout='depthwise',
  ),
  *_linear('block{n}.{i}.mlp.fc2'),
  *_norm('norm{n}'),
  *_norm('post_network.{i}.norm1'),
  *_norm('post_network.{i}.norm2'),
  *_linear('post_network.{i}.attn.kv'),
  *_linear('post_network.{i}.attn.q'),
  *_linear('post_network.{i}.attn.proj'),
  *_linear('post_network.{i}.mlp.fc1'),
  *_linear('post_network.{i}.mlp.fc2'),
  *_linear('head'),
)

# The sections of the released state dict after its stages.
_SECTIONS = ('patch_embed', 'block', 'norm', 'post_network', 'head')


@dataclasses.dataclass(frozen=True)
class Match:
  """A name, translated by a rule, and the numbers of its placeholders."""

  name: str
  rule: Rule
  numbers: dict[str, str]

  @property
  def layout(self) -> Layout:
    return LAYOUTS[self.rule.layout]


_NUMBER = re.compile('[0-9]+')


@functools.cache
def _pattern(template: str) -> re.Pattern:
  pattern = re.escape(template)
  for placeholder in 'ni':
    pattern = pattern.replace(rf'\{{{placeholder}\}}', f'(?P<{placeholder}>[0-9]+)')
  return re.compile(pattern)


@functools.cache
def _by_skeleton(rules: tuple[Rule, ...]) -> dict[str, list[Rule]]:
  """The rules by their released names, all numbers replaced by '#'."""
  result: dict[str, list[Rule]] = {}
  for rule in rules:
    name = rule.torch.replace('{n}', '0').replace('{i}', '0')
    result.setdefault(_NUMBER.sub('#', name), []).append(rule)
  return result


def matches(key: str) -> list[Match]:
  """Every rule that fits a released name: one or none, unless the table has a mistake."""
  # Files may hold many names, and the table is long.
  rules = _by_skeleton(RULES).get(_NUMBER.sub('#', key), ())
  found = ((rule, _pattern(rule.torch).fullmatch(key)) for rule in rules)
  return [Match(rule.ours.format(**m.groupdict()), rule, m.groupdict()) for rule, m in found if m]


def to_ours(key: str) -> Match | None:
  """This package's name of a released array, None where no rule knows it.

  Raises:
    InputError: several rules fit the name.
  """
  found = matches(key)
  if len(found) > 1:
    raise InputError(
      f'{key} falls under {len(found)} rules of the conversion: '
      f'{", ".join(match.rule.torch for match in found)}'
    )
  return found[0] if found else None


def to_torch(path: str) -> Match:
  """The released name of one of this package's arrays.

  Raises:
    InputError: the release has no such array.
  """
  for rule in RULES:
    if m := _pattern(rule.ours).fullmatch(path):
      return Match(rule.torch.format(**m.groupdict()), rule, m.groupdict())
  raise InputError(f'{path} has no counterpart in the released state dict')


def torch_order(match: Match) -> tuple:
  """A key that sorts results of `to_torch` in the order of the released state dict."""
  stage, block = (int(match.numbers.get(p, 0)) for p in 'ni')
  section = next(i for i, name in enumerate(_SECTIONS) if match.name.startswith(name))
  if match.name.startswith('patch_embed1'):
    stage = 1
  # What follows the stages has no stage number; it comes last.
  last = section >= _SECTIONS.index('post_network')
  return last, stage, section, block, RULES.index(match.rule)


def torch_shape(match: Match, shape: tuple[int, ...]) -> tuple[int, ...]:
  """The shape in the released layout of an array that has `shape` in this package."""
  return match.layout.torch(np.broadcast_to(np.float32(0), shape)).shape
