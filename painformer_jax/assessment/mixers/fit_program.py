"""The one compiled program that trains and tests many folds at once."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct

from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.models import embedding_mixer
from painformer_jax.parallel.mesh import batch_sharding, put_global, replicated
from painformer_jax.training import parameter_groups


@struct.dataclass
class Data:
  """All samples, on every device once.

  Attributes:
    inputs: [samples, tokens, width] float32.
    labels: [samples] int32.
    mask: [samples, tokens] bool, or None where every token is there.
  """

  inputs: jax.Array
  labels: jax.Array
  mask: jax.Array | None


@struct.dataclass
class RunState:
  """What training changes, each array with a leading axis over runs.

  Attributes:
    params: path -> learned array.
    opt_state: of the optimizer.
    key: [runs, 2] uint32; step n draws from fold_in(key, n).
  """

  params: dict[str, jax.Array]
  opt_state: optax.OptState
  key: jax.Array


@struct.dataclass
class RunInputs:
  """What a run needs besides the samples, each array with a leading axis over runs.

  Attributes:
    batches: [runs, steps of a chunk, batch] int32, indices of samples.
    weights: [runs, classes] float32, of the classes in the loss.
    test: [runs, blocks, rows] int32, indices of test samples, padded.
  """

  batches: jax.Array
  weights: jax.Array
  test: jax.Array


def learning_rate(config: FitConfig, *, steps: int) -> Callable:
  """By step, of a training of so many: linear from 0, then a half cosine."""
  return optax.warmup_cosine_decay_schedule(
    init_value=0.0,
    peak_value=config.learning_rate,
    warmup_steps=round(config.warmup * steps),
    decay_steps=steps,
    end_value=config.learning_rate * config.end_learning_rate_ratio,
  )


def make_optimizer(config: FitConfig, *, steps: int) -> optax.GradientTransformation:
  """AdamW whose learning rate follows a training of so many steps."""
  return optax.chain(
    optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity(),
    optax.adamw(
      learning_rate(config, steps=steps),
      b1=config.b1,
      b2=config.b2,
      weight_decay=config.weight_decay,
      mask=parameter_groups.decay_mask,
    ),
  )


def batch_loss(config: FitConfig, params, inputs, mask, labels, weights, *, key) -> jax.Array:
  """The loss of a network on a batch, noise and dropout included.

  Args:
    config: see `FitConfig`.
    params: path -> array of the network.
    inputs: float32 [batch, tokens, width].
    mask: bool [batch, tokens], or None where every token is there.
    labels: int32 [batch].
    weights: float32 [batch], of each sample.
    key: of all that is random.
  """
  key_noise, key_tokens, key_model = jax.random.split(key, 3)
  if config.input_noise:
    inputs += config.input_noise * jax.random.normal(key_noise, inputs.shape)
  if config.token_dropout:
    there = jnp.ones(inputs.shape[:2], bool) if mask is None else mask
    kept = there & jax.random.bernoulli(key_tokens, 1 - config.token_dropout, there.shape)
    mask = jnp.where(kept.any(axis=1, keepdims=True), kept, there)
  logits = embedding_mixer.apply_train(config.model, params, inputs, mask, key=key_model)
  targets = optax.smooth_labels(
    jax.nn.one_hot(labels, config.model.outputs), config.label_smoothing
  )
  return (weights * optax.softmax_cross_entropy(logits, targets)).mean()


def _gradients(
  config: FitConfig, data: Data, params, samples, weights, *, key, microbatch_size: int
):
  """Mean loss and gradients of one run on samples, a microbatch at a time.

  They are those of all samples at once; only noise and dropout differ.
  """

  def of_microbatch(samples, key):
    labels = data.labels[samples]
    mask = None if data.mask is None else data.mask[samples]
    return jax.value_and_grad(
      lambda params: batch_loss(
        config, params, data.inputs[samples], mask, labels, weights[labels], key=key
      )
    )(params)

  count = len(samples) // microbatch_size
  if count == 1:
    return of_microbatch(samples, key)

  def add(number, total):
    part = jax.lax.dynamic_slice_in_dim(samples, number * microbatch_size, microbatch_size)
    return jax.tree.map(jnp.add, total, of_microbatch(part, jax.random.fold_in(key, number)))

  zeros = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
  return jax.tree.map(lambda total: total / count, jax.lax.fori_loop(0, count, add, zeros))


def _train_step(
  config: FitConfig,
  optimizer,
  data: Data,
  state: RunState,
  samples,
  weights,
  *,
  step,
  microbatch_size,
):
  """One step of one run; `vmap` makes it one of all."""
  key = jax.random.fold_in(jax.random.wrap_key_data(state.key), step)
  loss, gradients = _gradients(
    config, data, state.params, samples, weights, key=key, microbatch_size=microbatch_size
  )
  updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
  params = optax.apply_updates(state.params, updates)
  return dataclasses.replace(state, params=params, opt_state=opt_state), loss


def _predict(config: FitConfig, data: Data, params, samples):
  """Logits of one run, [samples, classes]."""
  mask = None if data.mask is None else data.mask[samples]
  return embedding_mixer.from_parameters(config.model, params)(data.inputs[samples], mask)


@functools.lru_cache(maxsize=8)
def make_initial(config: FitConfig, mesh: jax.sharding.Mesh) -> Callable:
  """Compiles `initial(keys) -> RunState`; keys are [runs, 2] uint32."""

  def initial(key):
    start, training = jax.random.split(jax.random.wrap_key_data(key))
    params = embedding_mixer.initial_parameters(config.model, start)
    opt_state = make_optimizer(config, steps=1).init(params)  # The same for any number.
    return RunState(params=params, opt_state=opt_state, key=jax.random.key_data(training))

  runs = batch_sharding(mesh)
  return jax.jit(jax.vmap(initial), in_shardings=runs, out_shardings=runs)


@functools.lru_cache(maxsize=8)
def make_advance(
  config: FitConfig, mesh: jax.sharding.Mesh, *, steps: int, microbatch_size: int
) -> Callable:
  """Compiles what trains all runs further, and tests them at the end.

  `advance(state, data, inputs, start, count, test) -> (state, losses, logits)`:
  `count` steps, of at most those in `inputs.batches`, from step `start` on; losses
  are [runs, steps of a chunk], those after `count` 0; logits are [runs, blocks,
  rows, classes], zeros unless `test`. The state is donated. Runs lie evenly over
  the devices of the mesh and need nothing of one another. `steps` are those of
  the whole training, which the learning rate follows. `microbatch_size` divides the
  batch: gradients are computed for so many samples of a run at a time, and averaged.
  """
  optimizer = make_optimizer(config, steps=steps)

  def advance(state: RunState, data: Data, inputs: RunInputs, start, count, test):
    runs, chunk, _ = inputs.batches.shape

    def step(number, carry):
      state, losses = carry
      samples = jax.lax.dynamic_index_in_dim(inputs.batches, number, axis=1, keepdims=False)
      train = functools.partial(
        _train_step, config, optimizer, data, step=start + number, microbatch_size=microbatch_size
      )
      state, loss = jax.vmap(train)(state, samples, inputs.weights)
      return state, losses.at[:, number].set(loss)

    losses = jnp.zeros((runs, chunk), jnp.float32)
    state, losses = jax.lax.fori_loop(0, count, step, (state, losses))

    def predict():
      by_block = jax.lax.map(
        lambda rows: jax.vmap(lambda p, r: _predict(config, data, p, r))(state.params, rows),
        jnp.swapaxes(inputs.test, 0, 1),
      )
      return jnp.swapaxes(by_block, 0, 1)

    zeros = jnp.zeros((*inputs.test.shape, config.model.outputs), jnp.float32)
    return state, losses, jax.lax.cond(test, predict, lambda: zeros)

  runs, whole = batch_sharding(mesh), replicated(mesh)
  return jax.jit(
    advance,
    donate_argnums=0,
    in_shardings=(runs, whole, runs, whole, whole, whole),
    out_shardings=runs,
  )


def put_runs(mesh: jax.sharding.Mesh, tree):
  """Host arrays with a leading axis over runs -> split over the devices."""
  return jax.tree.map(lambda a: put_global(mesh, np.asarray(a)), tree)
