"""What a run is compiled from: the model, the mesh, the state's shape and the step.

Only shapes are computed here. The state is then made or restored directly into its
sharding; a plan for machines that are not there (`planning.plan`) needs no more.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import jax
import jax.numpy as jnp
import optax

from painformer_jax.models.config import PainFormerConfig
from painformer_jax.parallel import layout
from painformer_jax.parallel.mesh import batch_sharding, check_batch_sizes, with_shardings
from painformer_jax.training.config import TrainConfig
from painformer_jax.training.forward import StepPlan
from painformer_jax.training.mixup import Mixup
from painformer_jax.training.optimizer import make_optimizer
from painformer_jax.training.state import TrainState, initial_state
from painformer_jax.training.step import make_embed_step, make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
  """Everything of a run but its data.

  Attributes:
    config: with every task's batch size.
    classes: task -> number of classes.
    model: shape of the backbone.
    mesh: of the devices.
    optimizer: an optax transformation.
    abstract: the state's shapes, with where they lie.
  """

  config: TrainConfig
  classes: Mapping[str, int]
  model: PainFormerConfig
  mesh: jax.sharding.Mesh
  optimizer: optax.GradientTransformation
  abstract: TrainState

  @property
  def shardings(self) -> TrainState:
    return jax.tree.map(lambda leaf: leaf.sharding, self.abstract)

  def make_state(self, backbone: Mapping[str, jax.Array] | None = None) -> TrainState:
    """A state at step 0, sharded over its devices; `backbone` as in `initial_state`."""
    # It runs once, and XLA:CPU compiles it five times quicker without optimisation.
    quick = {'xla_backend_optimization_level': 0}
    platform = self.mesh.devices.flat[0].platform
    return jax.jit(
      lambda arrays: _state(self.config, self.classes, self.optimizer, arrays),
      out_shardings=self.shardings,
      compiler_options=quick if platform == 'cpu' else None,
    )(backbone)

  def batch(self) -> dict[str, dict[str, jax.ShapeDtypeStruct]]:
    """Shapes of a global batch."""
    split, side = batch_sharding(self.mesh), self.model.image_size
    return {
      task: {
        'image': jax.ShapeDtypeStruct((size, side, side, 3), jnp.uint8, sharding=split),
        'label': jax.ShapeDtypeStruct((size,), jnp.int32, sharding=split),
      }
      for task, size in self.config.batch_sizes.items()
    }

  @property
  def plan(self) -> StepPlan:
    """What the step is made from."""
    config = self.config
    return StepPlan(
      model=self.model,
      batch_sizes=config.batch_sizes,
      classes=self.classes,
      label_smoothing=config.label_smoothing,
      weights=None
      if config.weighting == 'uncertainty'
      else {name: task.weight for name, task in config.tasks.items()},
      mixup={
        name: Mixup(mixup=task.mixup, cutmix=task.cutmix) for name, task in config.tasks.items()
      },
      grad_accum_steps=config.grad_accum_steps,
      remat=config.remat_stages,
      ema_decay=config.ema_decay,
      skips_non_finite=config.non_finite == 'skip',
    )

  def train_step(self) -> jax.stages.Wrapped:
    """The jitted step, see `step.make_train_step`."""
    return make_train_step(self.plan, self.optimizer, self.mesh, state_shardings=self.shardings)

  def embed_step(self) -> Callable:
    """The jitted forward pass, see `step.make_embed_step`."""
    return make_embed_step(self.model, self.mesh)


def assemble(
  config: TrainConfig, classes: Mapping[str, int], *, devices: Sequence[jax.Device] | None = None
) -> Setup:
  """Puts a run together, without making an array.

  Args:
    config: with every task's batch size, see `TrainConfig.with_batch_sizes`.
    classes: task -> number of classes.
    devices: to train on; None for all there are.

  Raises:
    InputError: batch sizes or devices that do not divide, or paths that match nothing.
  """
  model = config.model_config()
  mesh = layout.training_mesh(config.sharding, devices)
  check_batch_sizes(mesh, config.batch_sizes, grad_accum_steps=config.grad_accum_steps)
  classes = {task: classes[task] for task in config.tasks}
  optimizer = make_optimizer(config.optimizer, steps=config.steps, model=model)
  shapes = jax.eval_shape(lambda: _state(config, classes, optimizer, None))
  return Setup(
    config=config,
    classes=classes,
    model=model,
    mesh=mesh,
    optimizer=optimizer,
    abstract=with_shardings(shapes, layout.state_shardings(mesh, shapes, config.sharding)),
  )


def _state(config: TrainConfig, classes, optimizer, backbone) -> TrainState:
  return initial_state(
    config.model_config(),
    classes=classes,
    optimizer=optimizer,
    seed=config.seed,
    learned_weighting=config.weighting == 'uncertainty',
    backbone=backbone,
    averaged=config.ema_decay > 0,
  )
