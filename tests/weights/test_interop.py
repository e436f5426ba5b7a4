"""Checkpoints as PyTorch's trainers write them, made by the trainers themselves.

Needs the extra `interop`: torch, timm, lightning, accelerate.
"""

import collections
import dataclasses
import datetime
import enum
import importlib.util
import types
import warnings

import numpy as np
import pytest
from test_state_dicts import RAW

from painformer_jax.core.errors import InputError
from painformer_jax.weights.convert import convert
from painformer_jax.weights.torch.read import read

pytestmark = [pytest.mark.slow, pytest.mark.torch]
torch = pytest.importorskip('torch', reason='needs the extra interop')


class Settings(enum.Enum):
  FAST = 1


@dataclasses.dataclass
class Arguments:
  model: str = 'painformer'
  rate: float = 0.1
  start: datetime.datetime = datetime.datetime(2026, 1, 1)


def network(tensors=RAW) -> 'torch.nn.Module':
  """A module whose state dict has the released names and the arrays."""
  root = torch.nn.Module()
  for name, array in tensors.items():
    *parents, last = name.split('.')
    module = root
    for parent in parents:
      if parent not in module._modules:
        module.add_module(parent, torch.nn.Module())
      module = module._modules[parent]
    tensor = torch.from_numpy(array.copy())
    if last.startswith(('running', 'num')):
      module.register_buffer(last, tensor)
    else:
      module.register_parameter(last, torch.nn.Parameter(tensor))
  root.forward = types.MethodType(lambda self, x: sum(p.sum() for p in self.parameters()) * x, root)
  return root


def assert_converts(path, expected, **known):
  """`path` converts to the values of a state dict of torch."""
  checkpoint = read(path)
  result = convert(checkpoint, source=str(path))
  assert result.report.tensors == len(RAW)
  for name, array in checkpoint.tensors.items():
    assert np.array_equal(array, expected[name].detach().numpy()), name
  for name, value in known.items():
    assert getattr(checkpoint, name) == value, name
  return checkpoint


def trained(module):
  """The module after a step of SGD, and its optimizer."""
  optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
  module.forward(torch.ones(())).backward()
  optimizer.step()
  return module, optimizer


def test_timm(tmp_path):
  timm_utils = pytest.importorskip('timm.utils', reason='needs the extra interop')
  helpers = pytest.importorskip('timm.models')
  module = network()
  average = timm_utils.ModelEmaV3(module, decay=0.5)
  module, optimizer = trained(module)
  average.update(module, step=1)
  saver = timm_utils.CheckpointSaver(
    module, optimizer, args=Arguments(), model_ema=average, checkpoint_dir=str(tmp_path)
  )
  module.default_cfg = {'architecture': 'painformer'}
  saver.save_checkpoint(3, metric=0.5)
  path = tmp_path / 'last.pth.tar'
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    expected = helpers.load_state_dict(str(path), use_ema=True, weights_only=False)
  found = assert_converts(path, expected, container='state_dict_ema', averaged=True)
  assert found.alternatives == ['state_dict']


def test_lightning(tmp_path):
  lightning = pytest.importorskip('lightning', reason='needs the extra interop')

  class Task(lightning.LightningModule):
    def __init__(self, width: int = 3, kind=Settings.FAST):
      super().__init__()
      self.save_hyperparameters()
      self.model = network()
      self.loss = torch.nn.Linear(2, 2)

    def training_step(self, batch, index):
      return self.model.forward(batch.sum())

    def configure_optimizers(self):
      return torch.optim.AdamW(self.model.parameters())

  task = Task()
  trainer = lightning.Trainer(
    max_steps=1,
    accelerator='cpu',
    logger=False,
    default_root_dir=tmp_path,
    enable_checkpointing=False,
    enable_progress_bar=False,
  )
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    trainer.fit(task, torch.utils.data.DataLoader(torch.ones(2, 1)))
    trainer.save_checkpoint(tmp_path / 'last.ckpt')
  found = assert_converts(
    tmp_path / 'last.ckpt', task.model.state_dict(), container='state_dict', prefix='model.'
  )
  assert found.left_out == ['loss.weight', 'loss.bias']


def test_lightning_weight_averaging(tmp_path):
  """It saves the average as the state dict, and the weights beside it."""
  lightning = pytest.importorskip('lightning', reason='needs the extra interop')
  callbacks = pytest.importorskip('lightning.pytorch.callbacks.weight_averaging')

  class Task(lightning.LightningModule):
    def __init__(self):
      super().__init__()
      self.model = network()
      del self.model.forward  # It could not be copied.

    def training_step(self, batch, index):
      return sum(p.sum() for p in self.model.parameters()) * batch.sum()

    def configure_optimizers(self):
      return torch.optim.SGD(self.model.parameters(), lr=0.1)

  kept = {}

  class Keeps(callbacks.WeightAveraging):
    def on_save_checkpoint(self, trainer, module, checkpoint):
      super().on_save_checkpoint(trainer, module, checkpoint)
      kept['average'] = {
        n.removeprefix('module.model.'): t.clone()
        for n, t in self._average_model.state_dict().items()
      }
      kept['raw'] = {n: t.clone() for n, t in module.model.state_dict().items()}

  trainer = lightning.Trainer(
    max_steps=3,
    accelerator='cpu',
    logger=False,
    default_root_dir=tmp_path,
    enable_progress_bar=False,
    callbacks=[Keeps(), lightning.pytorch.callbacks.ModelCheckpoint(dirpath=tmp_path)],
  )
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    trainer.fit(Task(), torch.utils.data.DataLoader(torch.ones(6, 1)))
  (path,) = tmp_path.glob('*.ckpt')
  found = assert_converts(path, kept['average'], container='state_dict', averaged=True)
  assert found.alternatives == ['current_model_state']
  assert not torch.equal(kept['raw']['norm4.bias'], kept['average']['norm4.bias'])


def test_swa_and_averaged_models(tmp_path):
  module, _ = trained(network())
  average = torch.optim.swa_utils.AveragedModel(module)
  average.update_parameters(module)
  torch.save({'model': network().state_dict(), 'swa_model': average.state_dict()}, tmp_path / 'w')
  assert_converts(tmp_path / 'w', module.state_dict(), container='swa_model', averaged=True)
  torch.save(average.state_dict(), tmp_path / 'w')
  assert_converts(tmp_path / 'w', module.state_dict(), averaged=True)


@pytest.mark.parametrize('safe', [True, False])
@pytest.mark.parametrize('shard', ['10GB', '50KB'])
def test_accelerate(tmp_path, safe, shard):
  accelerate = pytest.importorskip('accelerate', reason='needs the extra interop')
  accelerator = accelerate.Accelerator(cpu=True)
  module = accelerator.prepare(network())
  accelerator.save_model(module, tmp_path, max_shard_size=shard, safe_serialization=safe)
  assert (len(list(tmp_path.iterdir())) > 2) == (shard == '50KB')
  assert_converts(tmp_path, module.state_dict())


def test_accelerate_state(tmp_path):
  accelerate = pytest.importorskip('accelerate', reason='needs the extra interop')
  accelerator = accelerate.Accelerator(cpu=True)
  module, optimizer = accelerator.prepare(*trained(network()))
  accelerator.save_state(str(tmp_path / 'state'))
  assert_converts(tmp_path / 'state', module.state_dict())


@pytest.fixture
def one_process(tmp_path):
  """A group of one process, as FSDP needs."""
  store = f'file://{tmp_path}/store'
  torch.distributed.init_process_group('gloo', init_method=store, rank=0, world_size=1)
  yield
  torch.distributed.destroy_process_group()


def test_distributed_checkpoint(tmp_path):
  dcp = pytest.importorskip('torch.distributed.checkpoint')
  module, optimizer = trained(network())
  state = {'model': module.state_dict(), 'optimizer': optimizer.state_dict(), 'epoch': 3}
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    dcp.save(state, checkpoint_id=tmp_path / 'dcp', no_dist=True)
  found = assert_converts(tmp_path / 'dcp', module.state_dict(), prefix='model.')
  assert 'epoch' in found.ignored
  assert any('exp_avg' in name for name in found.left_out)


def test_fsdp(tmp_path, one_process):
  """Sharded parameters: as a distributed checkpoint, gathered, and shards by themselves."""
  fsdp = pytest.importorskip('torch.distributed.fsdp')
  dcp = pytest.importorskip('torch.distributed.checkpoint')
  from torch.distributed.checkpoint import state_dict as options

  mesh = torch.distributed.init_device_mesh('cpu', (1,))
  module = fsdp.fully_shard(network(), mesh=mesh)
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    dcp.save({'app': {'model': module.state_dict()}}, checkpoint_id=tmp_path / 'dcp')
    full = options.get_model_state_dict(
      module, options=options.StateDictOptions(full_state_dict=True)
    )
  assert_converts(tmp_path / 'dcp', full, prefix='app.model.')
  torch.save({'model': full}, tmp_path / 'full.pth')
  assert_converts(tmp_path / 'full.pth', full)
  torch.save({'model': module.state_dict()}, tmp_path / 'shard.pth')
  with pytest.raises(InputError, match='one shard of a distributed tensor.*full_state_dict=True'):
    read(tmp_path / 'shard.pth')


def test_compiled_and_checkpointed_and_parallel(tmp_path):
  from torch.distributed.algorithms._checkpoint import checkpoint_wrapper as wrapper

  module = network()
  module.block1 = wrapper.checkpoint_wrapper(module.block1)
  for wrapped in (torch.compile(module), torch.nn.DataParallel(module)):
    torch.save({'state_dict': wrapped.state_dict()}, tmp_path / 'w.pth')
    expected = network().state_dict()
    assert_converts(tmp_path / 'w.pth', expected)


@pytest.mark.parametrize('protocol', [2, 4])
def test_objects_beside_the_weights(tmp_path, protocol):
  beside = {
    'history': collections.defaultdict(list, loss=[0.1] * 100_000),
    'arguments': Arguments(),
    'kind': Settings.FAST,
    'rng': torch.get_rng_state(),
    'generator': np.random.get_state(),
    'scheduler': torch.optim.lr_scheduler.LambdaLR,
    'loss': torch.nn.CrossEntropyLoss(),
  }
  if importlib.util.find_spec('omegaconf'):
    omegaconf = importlib.import_module('omegaconf')
    beside['config'] = omegaconf.OmegaConf.create({'a': {'b': [1, 2]}})
  torch.save({'model': RAW_TENSORS, **beside}, tmp_path / 'w.pth', pickle_protocol=protocol)
  found = assert_converts(tmp_path / 'w.pth', RAW_TENSORS)
  assert found.ignored == list(beside)


def test_a_whole_module(tmp_path):
  module = network()
  del module.forward
  torch.save({'model': module, 'epoch': 3}, tmp_path / 'w.pth')
  assert_converts(tmp_path / 'w.pth', module.state_dict(), container='model')


def test_tensors_that_are_not_read(tmp_path):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    quantised = torch.quantize_per_tensor(torch.ones(32), 1.0, 0, torch.qint8)
  wrong = {
    'float8': torch.ones(32).to(torch.float8_e4m3fn),
    'quantised': quantised,
    'sparse': torch.ones(32).to_sparse(),
    'device "meta"': torch.ones(32, device='meta'),
  }
  for what, tensor in wrong.items():
    torch.save({'model': {**RAW_TENSORS, 'norm4.bias': tensor}}, tmp_path / 'w.pth')
    with pytest.raises(InputError, match=f"'norm4.bias'.*{what}"):
      read(tmp_path / 'w.pth')


def test_files_saved_without_their_data(tmp_path):
  with torch.serialization.skip_data():
    torch.save({'model': RAW_TENSORS}, tmp_path / 'w.pth')
  report = convert(read(tmp_path / 'w.pth'), source='w').report
  assert 'norm4.weight' in report.zeros and 'block1.0.attn.complex_weight' in report.zeros


RAW_TENSORS = {name: torch.from_numpy(array.copy()) for name, array in RAW.items()}
