"""The equations of the Mixer in plain NumPy, float64, one sample and head at a time.

Written from the description of the blocks, not from the Flax modules: masked
tokens are left out instead of masked, loops stand where the modules reshape.
"""

import math

import numpy as np

_erf = np.vectorize(math.erf)


def positions(count, *, of, bands, max_frequency):
  rows = []
  for i in range(count):
    x = 2 * i / max(of - 1, 1) - 1
    frequencies = [1 + (max_frequency / 2 - 1) * b / max(bands - 1, 1) for b in range(bands)]
    rows.append(
      [math.sin(math.pi * f * x) for f in frequencies]
      + [math.cos(math.pi * f * x) for f in frequencies]
      + [x] * bool(bands)
    )
  return np.array(rows).reshape(count, -1)


def norm(x, p, name):
  centred = x - x.mean(-1, keepdims=True)
  return (
    centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-5) * p[f'{name}/scale']
    + p[f'{name}/bias']
  )


def attend(latents, context, p, name, *, heads):
  """latents [l, width], context [tokens, width] or None -> what is added."""
  x = norm(latents, p, f'{name}/norm')
  source = x if context is None else norm(context, p, f'{name}/norm_context')
  q, kv = x @ p[f'{name}/q/kernel'], source @ p[f'{name}/kv/kernel']
  inner = q.shape[1]
  k, v = kv[:, :inner], kv[:, inner:]
  read = np.zeros_like(q)
  for own in np.split(np.arange(inner), heads):
    for row in range(len(q)):
      scores = np.array([q[row, own] @ key for key in k[:, own]]) / math.sqrt(len(own))
      weights = np.exp(scores - scores.max(initial=0))
      for weight, value in zip(weights / max(weights.sum(), 1e-300), v[:, own]):
        read[row, own] += weight * value
  return read @ p[f'{name}/proj/kernel'] + p[f'{name}/proj/bias']


def feed_forward(x, p, name):
  hidden = norm(x, p, f'{name}/norm') @ p[f'{name}/fc1/kernel'] + p[f'{name}/fc1/bias']
  value, gate = hidden[:, : hidden.shape[1] // 2], hidden[:, hidden.shape[1] // 2 :]
  gelu = gate * 0.5 * (1 + _erf(gate / math.sqrt(2)))
  return (value * gelu) @ p[f'{name}/fc2/kernel'] + p[f'{name}/fc2/bias']


def one(config, p, tokens, there):
  """[tokens, width] and which of them are there -> [outputs]."""
  code, code_there = np.zeros(0), False
  if config.encoder is not None:
    inner = {
      name.removeprefix('encoder/'): a for name, a in p.items() if name.startswith('encoder/')
    }
    first = config.encoder_tokens
    code_there = there[:first].any()
    code = one(config.encoder, inner, tokens[:first], there[:first]) * code_there
    tokens, there = tokens[first:], there[first:]
  tokens = np.where(there[:, None], tokens, 0)
  if config.tokens == 'scalar':
    entries = np.concatenate([code, tokens.ravel()])[:, None]
    kept = [code_there] * len(code) + [t for t in there for _ in range(tokens.shape[1])]
    of = config.positions * config.input_width + len(code)
  else:
    entries = np.stack([np.concatenate([token, code]) for token in tokens])
    kept, of = list(there), config.positions
    if code_there and not any(there):
      kept[0] = True
  features = positions(len(entries), of=of, bands=config.bands, max_frequency=config.max_frequency)
  context = np.concatenate([entries, features], axis=1)[np.array(kept, bool)]
  x, layer = p['latents'], 0
  for _ in range(config.depth):
    for source, heads in [(context, config.cross_heads)] + [
      (None, config.self_heads)
    ] * config.self_attentions:
      x = x + attend(x, source, p, f'attentions/{layer}', heads=heads)
      x = x + feed_forward(x, p, f'mlps/{layer}')
      layer += 1
  return norm(x.mean(0), p, 'norm') @ p['head/kernel'] + p['head/bias']


def mixer(config, arrays, embeddings, mask=None):
  """[batch, tokens, width] -> [batch, outputs], float64."""
  p = {name: np.asarray(a, np.float64) for name, a in arrays.items()}
  if mask is None:
    mask = np.ones(embeddings.shape[:2], bool)
  return np.stack(
    [one(config, p, x, there) for x, there in zip(np.asarray(embeddings, np.float64), mask)]
  )
