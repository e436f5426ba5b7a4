"""The backbone's layers stated once more, with PyTorch's functions on a released state dict.

Independent of `painformer_jax.models`; written from the description of the layers: LayerNorms
of 1e-6 but for 1e-5 after the strided convolutions, exact GELU, orthonormal FFTs, keys and
values laid out [2, heads, head width].
"""

import torch
from torch.nn import functional as F


class Backbone:
  """A SpectFormer of the released names.

  Args:
    state: released name -> float tensor.
    mixers, heads, post_heads: as in `PainFormerConfig`.
  """

  def __init__(self, state, *, mixers, heads, post_heads):
    self.state, self.mixers, self.heads, self.post_heads = state, mixers, heads, post_heads

  def __call__(self, images):
    """[batch, 3, size, size], normalised -> [batch, width], the embeddings."""
    x = images
    for stage, pattern in enumerate(self.mixers, start=1):
      if stage == 1:
        for layer, stride in ((0, 2), (3, 1), (6, 1)):
          weight = self.state[f'patch_embed1.conv.{layer}.weight']
          x = F.conv2d(x, weight, stride=stride, padding=weight.shape[-1] // 2)
          x = F.relu(self._batch_norm(x, f'patch_embed1.conv.{layer + 1}'))
      entry = f'patch_embed{stage}'
      x = F.conv2d(x, *self._pair(f'{entry}.proj'), stride=2, padding=1)
      height, width = x.shape[2:]
      x = self._layer_norm(x.flatten(2).mT, f'{entry}.norm', 1e-5)
      for block, mixer in enumerate(pattern):
        name = f'block{stage}.{block}'
        y = self._layer_norm(x, f'{name}.norm1')
        if mixer == 's':
          x = x + self._gate(y, f'{name}.attn.complex_weight', height, width)
        else:
          x = x + self._attention(y, y, f'{name}.attn', self.heads[stage - 1])
        y = self._linear(self._layer_norm(x, f'{name}.norm2'), f'{name}.mlp.fc1')
        y = y.mT.unflatten(2, (height, width))
        kernel, bias = self._pair(f'{name}.mlp.dwconv.dwconv')
        y = F.conv2d(y, kernel, bias, padding=1, groups=y.shape[1]).flatten(2).mT
        x = x + self._linear(F.gelu(y), f'{name}.mlp.fc2')
      if stage < len(self.mixers):
        x = self._layer_norm(x, f'norm{stage}').mT.unflatten(2, (height, width))
    first = x.mean(1, keepdim=True)
    block = 0
    while f'post_network.{block}.norm1.weight' in self.state:
      name = f'post_network.{block}'
      y = self._layer_norm(torch.cat([first, x], 1), f'{name}.norm1')
      first = first + self._attention(y[:, :1], y, f'{name}.attn', self.post_heads)
      y = self._linear(self._layer_norm(first, f'{name}.norm2'), f'{name}.mlp.fc1')
      first = first + self._linear(F.gelu(y), f'{name}.mlp.fc2')
      block += 1
    return self._layer_norm(first[:, 0], f'norm{len(self.mixers)}')

  def _pair(self, name):
    return self.state[f'{name}.weight'], self.state[f'{name}.bias']

  def _linear(self, x, name):
    return F.linear(x, *self._pair(name))

  def _layer_norm(self, x, name, epsilon=1e-6):
    return F.layer_norm(x, x.shape[-1:], *self._pair(name), eps=epsilon)

  def _batch_norm(self, x, name):
    mean, variance = (self.state[f'{name}.running_{of}'] for of in ('mean', 'var'))
    return F.batch_norm(x, mean, variance, *self._pair(name), eps=1e-5)

  def _gate(self, x, name, height, width):
    spectrum = torch.fft.rfft2(x.unflatten(1, (height, width)), dim=(1, 2), norm='ortho')
    spectrum = spectrum * torch.view_as_complex(self.state[name])
    return torch.fft.irfft2(spectrum, (height, width), dim=(1, 2), norm='ortho').flatten(1, 2)

  def _attention(self, queries, x, name, heads):
    q = self._linear(queries, f'{name}.q').unflatten(-1, (heads, -1)).transpose(1, 2)
    k, v = self._linear(x, f'{name}.kv').unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    y = F.scaled_dot_product_attention(q, k, v)
    return self._linear(y.transpose(1, 2).flatten(2), f'{name}.proj')
