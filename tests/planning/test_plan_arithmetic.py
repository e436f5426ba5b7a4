"""The formula for multiply-adds: known totals, and the network's own operations."""

import dataclasses
import math

import jax
import jax.extend
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.models import arithmetic, functional, registry
from painformer_jax.models.config import PRESETS, PainFormerConfig


def counted(config: PainFormerConfig) -> int:
  """Multiply-adds of all products and convolutions in one image's forward pass."""
  size = config.image_size

  def forward(arrays, image):
    output = functional.from_variables(config, arrays)(image)
    return output.embedding if output.logits is None else output.logits

  jaxpr = jax.make_jaxpr(forward)(
    functional.abstract_variables(config), jax.ShapeDtypeStruct((1, size, size, 3), 'float32')
  )
  return _inside(jaxpr.jaxpr)


def _inside(jaxpr) -> int:
  total = 0
  for equation in jaxpr.eqns:
    params = equation.params
    if equation.primitive.name in ('dot_general', 'conv_general_dilated'):
      out = equation.outvars[0].aval
    if equation.primitive.name == 'dot_general':
      (contracted, _), _ = params['dimension_numbers']
      total += out.size * math.prod(equation.invars[0].aval.shape[i] for i in contracted)
    elif equation.primitive.name == 'conv_general_dilated':
      kernel = equation.invars[1].aval.shape
      outputs = params['dimension_numbers'].rhs_spec[0]
      total += out.size * math.prod(kernel) // kernel[outputs]
    for inner in jax.extend.core.jaxprs_in_params(params):
      total += _inside(inner)
  return total


def test_the_released_shape_takes_what_is_known():
  parts = arithmetic.multiply_adds(PainFormerConfig())
  products = sum(parts[f'stage{n}/attention'] for n in (3, 4))
  assert sum(parts.values()) == pytest.approx(6.085e9, abs=0.5e6)
  assert sum(parts.values()) - products == pytest.approx(5.788e9, abs=0.5e6)
  assert arithmetic.training_flops(PainFormerConfig()) == pytest.approx(36.5e9, abs=0.05e9)
  share = {name: part / sum(parts.values()) for name, part in parts.items()}
  assert share['stage3/mlp'] == pytest.approx(0.32, abs=0.005)
  assert share['stem'] == pytest.approx(0.19, abs=0.005)


def test_the_gate_as_products_adds_what_is_known():
  assert arithmetic.gate_multiply_adds(PainFormerConfig()) == 0
  dft = dataclasses.replace(PainFormerConfig(), gate='dft')
  assert 2 * arithmetic.gate_multiply_adds(dft) == pytest.approx(0.56e9, abs=0.005e9)
  assert arithmetic.training_flops(dft) == arithmetic.training_flops(PainFormerConfig())


# The SpectFormers differ from the release in sizes alone, and are slow to trace.
@pytest.mark.parametrize('name', [name for name in PRESETS if not name.startswith('spectformer')])
def test_presets_do_what_the_formula_says(name):
  config = dataclasses.replace(PRESETS[name].config, depthwise='conv', num_classes=7)
  assert sum(arithmetic.multiply_adds(config).values()) == counted(config)


stages = st.integers(1, 2)


@settings(max_examples=5, deadline=None)
@given(st.data())
def test_any_shape_does_what_the_formula_says(data):
  count = data.draw(stages)
  heads = data.draw(st.lists(st.sampled_from((1, 2)), min_size=count, max_size=count))
  config = PainFormerConfig(
    image_size=data.draw(st.integers(2 ** (count + 1), 40)),
    stem_width=data.draw(st.integers(1, 5)),
    heads=tuple(heads),
    widths=tuple(4 * data.draw(st.integers(1, 3)) for _ in heads),
    mixers=tuple(data.draw(st.text('sa', min_size=1, max_size=2)) for _ in heads),
    mlp_ratios=tuple(data.draw(st.integers(1, 3)) for _ in heads),
    post_heads=2,
    post_mlp_ratio=data.draw(st.integers(1, 3)),
    post_blocks=data.draw(st.integers(0, 2)),
    num_classes=data.draw(st.sampled_from((0, 3))),
    gate='dft',
    depthwise='conv',
  )
  assert counted(config) == (
    sum(arithmetic.multiply_adds(config).values()) + arithmetic.gate_multiply_adds(config)
  )


@pytest.mark.parametrize('name', ['painformer_nano', 'painformer'])
def test_statistics_of_microbatches_take_what_their_program_does(name):
  config = registry.make_config(name)
  size, learned = config.image_size, functional.parameter_paths(config)
  arrays = functional.abstract_variables(config)

  def summed(parameters, statistics, parts):
    found = functional.stem_statistics(
      config, {**parameters, **statistics}, parts, prepare=lambda images: images
    )
    return sum(leaf.sum() for leaf in jax.tree.leaves(found))

  jaxpr = jax.make_jaxpr(jax.grad(summed))(
    {k: v for k, v in arrays.items() if k in learned},
    {k: v for k, v in arrays.items() if k not in learned},
    jax.ShapeDtypeStruct((2, 3, size, size, 3), 'float32'),
  )
  # One turn of each loop counts: 3 images.
  assert 2 * _inside(jaxpr.jaxpr) == 3 * arithmetic.stem_statistics_flops(config)
