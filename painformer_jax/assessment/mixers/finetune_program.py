"""The compiled step of fine-tuning: images, backbone, fusion, Embedding-Mixers, update."""

import dataclasses
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import optax
from flax import struct

from painformer_jax.assessment.mixers import cost, fit_program
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.fusion import FusionConfig, MaskedTokens, fuse
from painformer_jax.models import embedding_mixer, functional
from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel.mesh import (
  BatchShardMap,
  batch_sharding,
  interleave,
  replicated,
  separate,
  split_microbatches,
)
from painformer_jax.training import parameter_groups
from painformer_jax.training.state import BACKBONE, group
from painformer_jax.training.step import normalise


@struct.dataclass
class TuneState:
  """The state of fine-tuning.

  Attributes:
    step: int32, updates done.
    params: path -> learned array: 'backbone/...' of the backbone without frozen ones, and
      'mixer<n>/...' of the n-th Embedding-Mixer.
    opt_state: of the optimizer.
    key: [2] uint32; step n draws from fold_in(key, n).
  """

  step: jax.Array
  params: dict[str, jax.Array]
  opt_state: object
  key: jax.Array


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunePlan:
  """The networks and sizes that the compiled step is made for.

  Attributes:
    backbone: without a head, in the arithmetic of training.
    fusion: of the embeddings.
    tokens: modality -> most embeddings of a sample.
    fits: how each Embedding-Mixer trains; they differ in the network alone.
    images_at_once: of `FinetuneConfig`.
  """

  backbone: PainFormerConfig
  fusion: FusionConfig
  tokens: Mapping[str, int]
  fits: tuple[FitConfig, ...]
  images_at_once: int = 0


def make_optimizer(
  fit: FitConfig, rates: Mapping[str, float], *, steps: int
) -> optax.GradientTransformation:
  """AdamW in which each parameter has a highest learning rate of its own.

  Args:
    fit: clipping, moments, decay, warm-up and end learning-rate ratio.
    rates: path in `TuneState.params` -> highest learning rate.
    steps: of the whole training.
  """
  shape = optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=1.0,
    warmup_steps=round(fit.warmup * steps),
    decay_steps=steps,
    end_value=fit.end_learning_rate_ratio,
  )
  return optax.chain(
    optax.clip_by_global_norm(fit.clip_norm) if fit.clip_norm else optax.identity(),
    optax.scale_by_adam(b1=fit.b1, b2=fit.b2),
    optax.add_decayed_weights(fit.weight_decay, mask=parameter_groups.decay_mask(rates)),
    optax.stateless(lambda updates, _: {p: -rates[p] * u for p, u in updates.items()}),
    optax.scale_by_schedule(shape),
  )


def initial_state(
  plan: TunePlan, optimizer, *, backbone: Mapping[str, jax.Array], key: jax.Array
) -> TuneState:
  """A state at step 0: the backbone as given, fresh Embedding-Mixers.

  Args:
    plan: see `TunePlan`.
    optimizer: from `make_optimizer`.
    backbone: path -> array of the parameters that learn.
    key: [2] uint32, of everything random.
  """
  start, training = jax.random.split(jax.random.wrap_key_data(key))
  params = {f'{BACKBONE}/{path}': jnp.asarray(a) for path, a in backbone.items()}
  for number, fit in enumerate(plan.fits):
    fresh = embedding_mixer.initial_parameters(fit.model, jax.random.fold_in(start, number))
    params |= {f'{mixer_name(number)}/{path}': a for path, a in fresh.items()}
  return TuneState(
    step=jnp.zeros((), jnp.int32),
    params=params,
    opt_state=optimizer.init(params),
    key=jax.random.key_data(training),
  )


def mixer_name(number: int) -> str:
  """First part of the paths of the n-th Embedding-Mixer."""
  return f'mixer{number}'


def make_step(plan: TunePlan, optimizer, mesh: jax.sharding.Mesh) -> Callable:
  """Compiles `step(state, fixed, batch) -> (state, metrics)`; `state` is donated.

  `fixed` are the backbone's other arrays by path: frozen parameters and running
  statistics. A batch is that of `finetune_batches.Batches`, rows split over the
  devices, whose number only changes the rounding of sums. Metrics are scalars: 'loss',
  'backbone_gradient_norm' and 'parameter_norm' (after the update; with the others it
  is finite only if all of the new state is).
  """
  names = plan.fusion.modalities

  def loss_function(params, fixed, batch, key):
    arrays = group(params, BACKBONE) | fixed
    images = [batch[name]['image'] for name in names]
    images = [rows.reshape(-1, *rows.shape[2:]) for rows in images]
    embeddings = separate(
      mesh, _embed(plan, mesh, arrays, interleave(mesh, images)), [len(rows) for rows in images]
    )
    parts = {
      name: _in_their_places(rows, batch[name]['token'], tokens=plan.tokens[name])
      for name, rows in zip(names, embeddings)
    }
    loss = 0.0
    for number, (fit, part) in enumerate(
      zip(plan.fits, fuse(plan.fusion, parts, xp=jnp), strict=True)
    ):
      # A sample without any embedding for this Embedding-Mixer has no part in its loss.
      there = part.mask.any(axis=1).astype(jnp.float32)
      loss += fit_program.batch_loss(
        fit,
        group(params, mixer_name(number)),
        part.values,
        part.mask,
        batch['label'],
        batch['weight'] * there,
        key=jax.random.fold_in(key, number),
      )
    return loss

  def step(state: TuneState, fixed, batch):
    key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
    loss, gradients = jax.value_and_grad(loss_function)(state.params, fixed, batch, key)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    metrics = {
      'loss': loss,
      'backbone_gradient_norm': optax.tree.norm(group(gradients, BACKBONE)),
      'parameter_norm': optax.tree.norm(params),
    }
    return dataclasses.replace(
      state, step=state.step + 1, params=params, opt_state=opt_state
    ), metrics

  whole = replicated(mesh)
  return jax.jit(
    step, donate_argnums=0, out_shardings=whole, in_shardings=(whole, whole, batch_sharding(mesh))
  )


def _embed(plan: TunePlan, mesh: jax.sharding.Mesh, arrays, images: jax.Array) -> jax.Array:
  """uint8 [rows, size, size, 3], split over the devices -> float32 [rows, width]."""
  partition = BatchShardMap(mesh) if mesh.size > 1 else None

  def embed(images):
    network = functional.from_variables(plan.backbone, arrays, partition=partition)
    shown = normalise(images, plan.backbone.mean, plan.backbone.std)
    return network(shown).embedding.astype(jnp.float32)

  pieces = cost.count_microbatches(len(images) // mesh.size, most=plan.images_at_once)
  if pieces == 1:
    return embed(images)
  # Activations of one piece at a time: the backward pass works them out again.
  found = jax.lax.map(jax.checkpoint(embed), split_microbatches(mesh, images, pieces))
  by_device = found.reshape(pieces, mesh.size, -1, found.shape[-1])
  return jnp.swapaxes(by_device, 0, 1).reshape(len(images), -1)


def _in_their_places(embeddings: jax.Array, token: jax.Array, *, tokens: int) -> MaskedTokens:
  """[batch x frames, width] -> [batch, tokens, width], zeros where nothing is."""
  batch, frames = token.shape
  place = jax.nn.one_hot(token, tokens, dtype=jnp.float32)  # Beyond the last: nowhere.
  values = jnp.einsum(
    'bft,bfw->btw',
    place,
    embeddings.reshape(batch, frames, -1),
    precision=jax.lax.Precision.HIGHEST,
  )
  return MaskedTokens(values=values, mask=place.any(axis=1))
