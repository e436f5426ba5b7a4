"""What model a state dict is of: by its record, or by its names and shapes."""

import dataclasses

import numpy as np
import pytest

import painformer_jax as pj
from painformer_jax.core.errors import InputError
from painformer_jax.models import functional
from painformer_jax.models.config import PRESETS, PainFormerConfig
from painformer_jax.models.registry import make_config
from painformer_jax.weights import key_map, model_record
from painformer_jax.weights.convert import ConversionError, convert
from painformer_jax.weights.infer import infer
from painformer_jax.weights.load import read_weights
from painformer_jax.weights.model_record import ModelRecord
from painformer_jax.weights.torch.read import TorchCheckpoint
from painformer_jax.weights.torch.write import write_pth

TINY = dict(
  image_size=16, stem_width=4, widths=(8, 12), mixers=('sa', 'aas'), mlp_ratios=(3, 2), heads=(2, 3)
)


def shapes(config: PainFormerConfig) -> dict[str, np.ndarray]:
  """A state dict of zeros that takes no memory."""
  arrays = functional.abstract_variables(config)
  matches = {path: key_map.to_torch(path) for path in arrays}
  return {
    match.name: np.broadcast_to(
      np.zeros((), match.layout.dtype), key_map.torch_shape(match, arrays[path].shape)
    )
    for path, match in matches.items()
  }


def checkpoint(tensors, record=None) -> TorchCheckpoint:
  return TorchCheckpoint(
    tensors=dict(tensors), container='', ignored=[], sha256='ab' * 32, record=record
  )


@pytest.mark.parametrize('name', PRESETS)
def test_every_preset_in_its_real_size(name):
  """By shapes alone, and by the record; the shapes of one are those of no other."""
  config = make_config(name, num_classes=5)
  tensors = shapes(config)
  found = infer(tensors)
  assert (found.model, found.config, found.other) == (name, config, None)
  heads = ','.join(map(str, (*config.heads, config.post_heads)))
  assert found.assumed.startswith(f'heads {heads} as in {name}')
  assert ('ln_img' in found.assumed) == (name == 'tiny_biomoe')
  content = model_record.to_json(ModelRecord(config=config, model=name, head='pain'))
  record = model_record.from_json(content, tensors=len(tensors))
  found = infer(tensors, record=record)
  assert (found.config, found.model, found.head, found.assumed) == (config, name, 'pain', '')


def test_the_encoder_in_a_file_of_tiny_biomoe(tmp_path, capsys):
  model = pj.create('tiny_biomoe')
  inside = {f'enc1.{name}': a for name, a in pj.to_torch_names(model).items()}
  beside = {
    'enc2.patch_embed.0.c.weight': np.ones((24, 3, 3, 3), np.float32),
    'enc2.blocks1.0.dw0.m.bn.num_batches_tracked': np.asarray(3),
    'ln_img.weight': np.ones((3, 224, 224), np.float32),
    'ln_out.bias': np.ones(192, np.float32),
    'fcn.1.weight': np.ones((96, 96), np.float32),
  }
  write_pth(tmp_path / 'w.pth', inside | beside)
  loaded = pj.load(tmp_path / 'w.pth')
  assert loaded.config == model.config
  assert 'ln_img' in capsys.readouterr().err
  assert set(read_weights(tmp_path / 'w.pth').source.left_out) == set(beside)
  expected = functional.variables(model)
  for path, array in functional.variables(loaded).items():
    np.testing.assert_array_equal(array, expected[path], path)


@pytest.mark.parametrize(
  'size, assumed',
  [(32, ''), (96, '93 to 96'), (93, '93 to 96'), (64, '61 to 64'), (70, '69 to 72')],
)
def test_the_size_of_images_is_told_within_a_few_pixels(size, assumed):
  found = infer(shapes(make_config('painformer_nano', image_size=size)))
  assert found.model == 'painformer_nano'
  if assumed:
    low, high = map(int, assumed.split(' to '))
    assert low <= found.config.image_size <= high
    assert f'images of {found.config.image_size} pixels, of the {assumed} that' in found.assumed
  else:
    assert found.config.image_size == 32 and 'pixels' not in found.assumed


def test_a_model_without_filters_says_no_size():
  config = make_config('painformer_nano', mixers=('a', 'a', 'a', 'a'), heads=(1, 2, 3, 4))
  found = infer(shapes(config), heads=(1, 2, 3, 4))
  assert found.config == dataclasses.replace(config, image_size=224)
  assert found.assumed == 'images of 224 pixels'


@pytest.mark.parametrize('post_blocks', [0, 1, 2])
def test_any_shape_with_its_heads_named(post_blocks):
  config = PainFormerConfig(**TINY, post_heads=4, post_mlp_ratio=4, post_blocks=post_blocks)
  tensors = shapes(config)
  result = convert(checkpoint(tensors), source='x.pth', heads=(2, 3, 4))
  assert result.config == config
  assert (result.report.model, result.report.assumed) == (
    '',
    'images of 16 pixels, of the 13 to 16 that fit its filters',
  )
  # Its heads are unknown otherwise, and what seems to be another model may be a file cut short.
  with pytest.raises(ConversionError, match=r'widths \(8, 12\).*--heads N,N,N,N') as caught:
    convert(checkpoint(tensors), source='x.pth')
  assert caught.value.report.model


def test_the_class_attention_has_the_heads_of_the_last_stage_unless_named():
  config = make_config('painformer_nano')
  found = infer(shapes(config), heads=(1, 1, 2, 8))
  assert found.config == dataclasses.replace(config, heads=(1, 1, 2, 8), post_heads=8)
  assert (found.model, found.assumed) == ('', '')  # The size is the preset's.
  assert infer(shapes(config), heads=(1, 2, 3, 4)).model == 'painformer_nano'


@pytest.mark.parametrize('heads', [(1, 2), (1, 2, 3, 4, 5, 6), (1, 2, 5, 4), (1, 2, 3, 0), '1234'])
def test_heads_that_do_not_fit(heads):
  with pytest.raises(InputError, match='heads'):
    infer(shapes(make_config('painformer_nano')), heads=heads)


def test_a_block_that_is_missing_is_no_smaller_model():
  tensors = shapes(make_config('painformer_nano', mixers=('s', 's', 'aa', 'a')))
  for lost in ('block3.0', 'block3.1'):
    rest = {name: a for name, a in tensors.items() if not name.startswith(lost)}
    if lost == 'block3.0':
      with pytest.raises(ConversionError):
        convert(checkpoint(rest), source='x', heads=(1, 2, 3, 4))
  record = ModelRecord(
    config=make_config('painformer_nano', mixers=('s', 's', 'aa', 'a')), model='painformer_nano'
  )
  with pytest.raises(ConversionError, match=r'16 missing: block3\.1\.norm1\.weight'):
    convert(checkpoint(rest, record), source='x')


def test_heads_that_contradict_the_record():
  config = make_config('painformer_nano')
  record = ModelRecord(config=config)
  assert infer(shapes(config), record=record, heads=(1, 2, 3, 4)).config == config
  with pytest.raises(InputError, match='1,1,1,1 are not those that the file states, 1,2,3,4,4'):
    infer(shapes(config), record=record, heads=(1, 1, 1, 1))


def test_the_head_is_the_file_s_own():
  """A file whose head was taken off, or replaced, in PyTorch."""
  record = ModelRecord(config=make_config('painformer_nano', num_classes=7), head='pain')
  for classes in (0, 3):
    config = make_config('painformer_nano', num_classes=classes)
    found = infer(shapes(config), record=record)
    assert found.config == config
    assert found.head == ''


def content(**changes):
  record = model_record.to_json(
    ModelRecord(config=make_config('painformer_nano'), model='painformer_nano')
  )
  return {**record, 'config': {**record['config'], **changes}}


@pytest.mark.parametrize(
  'stored, message',
  [
    ([], 'does not say'),
    ({}, 'does not say'),
    ({'config': []}, 'does not say'),
    ({**content(), 'model': 5}, 'model is int'),
    (content(colour=1), 'does not know .colour'),
    (content(heads=[0, 0, 0, 0]), 'heads'),
    (content(heads={}), 'heads'),
    (content(mixers=['s' * 10**6, 's', 'a', 'a']), '1,000,004 blocks'),
    (content(post_blocks=10**9), '1,000,000,004 blocks'),
    (content(mean='x'), 'mean'),
    (content(image_size=1e400), 'image_size'),
  ],
)
def test_records_that_lie(stored, message):
  with pytest.raises(ValueError, match=message):
    model_record.from_json(stored, tensors=100)


def test_a_record_of_sizes_that_cannot_be():
  record = model_record.from_json(content(widths=[2**62, 16, 24, 32]), tensors=100)
  with pytest.raises(InputError, match=r'^x\.pth '):
    convert(checkpoint(shapes(make_config('painformer_nano')), record), source='x.pth')


def test_older_records_lack_fields():
  stored = content()
  del stored['config']['mean'], stored['config']['depthwise'], stored['head']
  assert model_record.from_json(stored, tensors=100).config == make_config('painformer_nano')


def test_a_file_of_thousands_of_blocks_is_refused_before_they_are_described():
  """Describing them would take minutes."""
  tensors = {f'block3.{n}.attn.q.weight': np.ones(1, np.float32) for n in range(5000)}
  tensors |= {f'patch_embed{k}.proj.weight': np.ones((8, 1), np.float32) for k in (1, 2, 3)}
  tensors |= {f'block{k}.0.attn.q.weight': np.ones(1, np.float32) for k in (1, 2)}
  assert infer(tensors).other is None
