"""Weights in several files: with an index, distributed checkpoints, folders of trainers."""

import json

import forge
import numpy as np
import pytest
from test_state_dicts import RAW, assert_holds

from painformer_jax.core.errors import InputError
from painformer_jax.weights.load import read_weights
from painformer_jax.weights.safetensors_file import write_safetensors
from painformer_jax.weights.torch.read import read

HALVES = dict(list(RAW.items())[:20]), dict(list(RAW.items())[20:])


def index(folder, *, ending: str, files=('model-1-of-2', 'model-2-of-2'), **changes):
  """Writes two shards and their index, as transformers does."""
  folder.mkdir(exist_ok=True)
  places = {}
  for name, tensors in zip(files, HALVES):
    path = folder / f'{name}.{ending}'
    if ending == 'safetensors':
      write_safetensors(path, tensors)
    else:
      path.write_bytes(forge.saved(tensors))
    places |= dict.fromkeys(tensors, path.name)
  stem = 'model' if ending == 'safetensors' else 'pytorch_model'
  path = folder / f'{stem}.{ending}.index.json'
  path.write_text(json.dumps({'metadata': {}, 'weight_map': places | changes}))
  return path


@pytest.mark.parametrize('ending', ['safetensors', 'bin'])
def test_parts_with_an_index(tmp_path, ending):
  path = index(tmp_path / 'parts', ending=ending)
  for given in (path, path.parent):
    found = read(given)
    assert sorted(found.tensors) == sorted(RAW)
    assert all(np.array_equal(found.tensors[name], RAW[name]) for name in RAW)
  assert read_weights(path.parent).source.model == 'painformer_nano'
  first = found.sha256
  write_safetensors(path.parent / 'other.safetensors', RAW)
  assert read(path).sha256 == first  # Of the files that are named, and of no other.


@pytest.mark.parametrize(
  'place', ['../secret.safetensors', '/etc/passwd', 'a/../../secret.safetensors', '', 'x\0y']
)
def test_an_index_names_only_files_of_its_folder(tmp_path, place):
  write_safetensors(tmp_path / 'secret.safetensors', RAW)
  path = index(tmp_path / 'parts', ending='safetensors', **{'norm4.bias': place})
  with pytest.raises(InputError, match='which is not in its folder'):
    read(path)


@pytest.mark.parametrize(
  'content,message',
  [
    ('', 'is empty'),
    ('[' * 100_000, 'no weight_map'),
    ('{"weight_map": 3}', 'a file for each name'),
    ('{"weight_map": {"a": 3}}', 'a file for each name'),
    ('{"weight_map": {"a": "absent.safetensors"}}', 'does not exist'),
  ],
)
def test_indices_that_are_none(tmp_path, content, message):
  path = tmp_path / 'model.safetensors.index.json'
  path.write_text(content)
  with pytest.raises(InputError, match=message):
    read(path)


def test_a_part_that_lacks_a_tensor(tmp_path):
  path = index(tmp_path / 'parts', ending='safetensors', more='model-1-of-2.safetensors')
  with pytest.raises(InputError, match='lacks 1 tensors .* says it holds: more'):
    read(path)


def test_folders_of_trainers(tmp_path):
  write_safetensors(tmp_path / 'model.safetensors', RAW)
  (tmp_path / 'optimizer.bin').write_bytes(b'x')
  assert read(tmp_path).tensors.keys() == RAW.keys()
  assert read_weights(tmp_path).config.num_classes == 0
  deepspeed = tmp_path / 'deepspeed'
  (deepspeed / 'global_step3').mkdir(parents=True)
  (deepspeed / 'latest').write_text('global_step3\n')
  state = forge.saved({'module': RAW, 'optimizer': None, 'ds_version': '0.1'})
  (deepspeed / 'global_step3' / 'mp_rank_00_model_states.pt').write_bytes(state)
  for folder in (deepspeed, deepspeed / 'global_step3'):
    assert_holds(read(folder))
  (deepspeed / 'latest').write_text('../..')
  with pytest.raises(InputError, match='is a folder'):
    read(deepspeed)


def dcp(folder, tensors, *, file='__0_0.distcp', split=True, shift=0, sizes=None, transform=b'N'):
  """Writes a folder as torch.distributed.checkpoint does, large tensors in two pieces."""
  folder.mkdir(exist_ok=True)
  module = 'torch.distributed.checkpoint.metadata'
  data, entries, places = b'', b'', b''

  def size(shape) -> bytes:
    return (
      forge.name('torch', 'Size') + forge.tuple_(forge.tuple_(*map(forge.number, shape))) + b'R'
    )

  for name, array in tensors.items():
    rows = len(array) // 2 if split and array.ndim and len(array) > 1 else None
    chunks = b''
    for start, piece in [(0, array[:rows]), (rows, array[rows:])] if rows else [(0, array)]:
      offsets = (start, *[0] * (array.ndim - 1))[: array.ndim]
      storages = []
      content = forge.archive(forge._saved(np.array(piece), storages), storages)
      chunks += forge.instance(
        module,
        'ChunkStorageMetadata',
        forge.dict_(offsets=size(offsets), sizes=size(sizes or piece.shape)),
      )
      places += forge.instance(
        module, 'MetadataIndex', forge.dict_(fqn=forge.text(name), offset=size(offsets), index=b'N')
      ) + forge.instance(
        'torch.distributed.checkpoint.filesystem',
        '_StorageInfo',
        forge.dict_(
          relative_path=forge.text(file),
          offset=forge.number(len(data) + shift),
          length=forge.number(len(content)),
          transform_descriptors=transform,
        ),
      )
      data += content
    entries += forge.text(name) + forge.instance(
      module,
      'TensorStorageMetadata',
      forge.dict_(
        properties=forge.instance(module, 'TensorProperties', forge.tuple_(forge.number(1))),
        size=size(array.shape),
        chunks=b'](' + chunks + b'e',
      ),
    )
  entries += forge.text('epoch') + forge.instance(module, 'BytesStorageMetadata', b'}')
  (folder / '__0_0.distcp').write_bytes(data)
  (folder / '.metadata').write_bytes(
    forge.program(
      forge.instance(
        module,
        'Metadata',
        forge.dict_(state_dict_metadata=b'}(' + entries + b'u', storage_data=b'}(' + places + b'u'),
      )
    )
  )
  return folder


def test_distributed_checkpoints(tmp_path):
  named = {f'app.model.{name}': array for name, array in RAW.items()}
  moments = {f'app.optimizer.state.{name}.exp_avg': array for name, array in RAW.items()}
  found = read(dcp(tmp_path / 'dcp', named | moments))
  assert found.prefix == 'app.model.'
  assert found.left_out == list(moments)
  assert found.ignored == ['epoch']
  assert_holds(found)


@pytest.mark.parametrize(
  'changes,message',
  [
    ({'file': '../__0_0.distcp'}, 'which is not in its folder'),
    ({'file': '__1_0.distcp'}, 'does not exist'),
    ({'shift': 10**9}, 'is beyond the end'),
    ({'shift': 1}, 'is not as torch.save writes it'),
    ({'sizes': (3,)}, 'do not make a tensor of shape'),
    ({'sizes': (1,) * 33}, 'a size is not a short tuple'),
    ({'transform': b'](K\1e'}, 'are compressed'),
  ],
)
def test_distributed_checkpoints_that_lie(tmp_path, changes, message):
  folder = dcp(tmp_path / 'dcp', {'a': np.ones(4, np.float32)}, **changes)
  with pytest.raises(InputError, match=message):
    read(folder)


@pytest.mark.parametrize('content', [b'', b'x', b'\x80\2}.', b'\x80\2N.', b'\x80\2cos\nsystem\n.'])
def test_metadata_that_are_none(tmp_path, content):
  (tmp_path / '.metadata').write_bytes(content)
  with pytest.raises(InputError, match='.metadata'):
    read(tmp_path)
