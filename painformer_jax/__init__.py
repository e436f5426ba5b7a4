"""PainFormer in JAX/Flax: the model, its weights, its training.

    import painformer_jax as pj
    model = pj.load('painformer.pth')
    embeddings = pj.embed(model, uint8_images)   # [batch, 160] float32

Names are loaded when first used, so that `import painformer_jax` is quick and
imports neither JAX nor anything optional.
"""

import importlib

__version__ = '0.1.0'

_HOME = {
  'PainFormer': 'models.painformer',
  'PainFormerConfig': 'models.config',
  'create': 'models.registry',
  'list_models': 'models.registry',
  'load': 'weights.load',
  'preprocess': 'embedding.inference',
  'embed': 'embedding.inference',
  'InputError': 'core.errors',
}

__all__ = [*_HOME, '__version__']


def __getattr__(name):
  if name not in _HOME:
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
  value = getattr(importlib.import_module(f'{__name__}.{_HOME[name]}'), name)
  globals()[name] = value
  return value


def __dir__():
  return sorted({*globals(), *_HOME})
