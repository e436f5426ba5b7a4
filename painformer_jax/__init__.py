"""PainFormer in JAX/Flax: the model, its weights, its training.

    import painformer_jax as pj
    model = pj.load('painformer.pth')
    embeddings = pj.embed(model, uint8_images)   # [batch, 160] float32

Names are loaded when first used, so that `import painformer_jax` is quick and
imports neither JAX nor anything optional.
"""

import importlib
from typing import TYPE_CHECKING, Any

from painformer_jax.core.version import VERSION as __version__

if TYPE_CHECKING:
  from painformer_jax.core.errors import InputError as InputError
  from painformer_jax.embedding.inference import embed as embed
  from painformer_jax.models.config import PainFormerConfig as PainFormerConfig
  from painformer_jax.models.painformer import PainFormer as PainFormer
  from painformer_jax.models.preprocess import preprocess as preprocess
  from painformer_jax.models.registry import create as create
  from painformer_jax.models.registry import list_models as list_models
  from painformer_jax.weights.load import load as load
  from painformer_jax.weights.save import convert as convert
  from painformer_jax.weights.save import save as save
  from painformer_jax.weights.save import to_torch_names as to_torch_names


# Where each name is defined; type checkers read the imports above.
_HOME = {
  'PainFormer': 'models.painformer',
  'PainFormerConfig': 'models.config',
  'create': 'models.registry',
  'list_models': 'models.registry',
  'load': 'weights.load',
  'save': 'weights.save',
  'convert': 'weights.save',
  'to_torch_names': 'weights.save',
  'preprocess': 'models.preprocess',
  'embed': 'embedding.inference',
  'InputError': 'core.errors',
}

__all__ = [*_HOME, '__version__']

# Type checkers would take any attribute for one that exists, and for Any.
if not TYPE_CHECKING:

  def __getattr__(name: str) -> Any:
    if name not in _HOME:
      raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    value = getattr(importlib.import_module(f'{__name__}.{_HOME[name]}'), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
  return sorted({*globals(), *_HOME})
