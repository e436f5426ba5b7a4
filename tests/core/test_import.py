"""Importing the package: quick, silent, without torch and tensorflow."""

import subprocess
import sys

import pytest
from repository import environment

import painformer_jax as pj


def python(code):
  return subprocess.run(
    [sys.executable, '-W', 'error', '-c', code],
    text=True,
    capture_output=True,
    env=environment(JAX_PLATFORMS='cpu'),
  )


def test_bare_import_is_silent_and_pulls_in_nothing():
  done = python(
    'import sys; before = set(sys.modules); import painformer_jax; '
    'new = {m.split(".")[0] for m in set(sys.modules) - before}; '
    'print(sorted(new - sys.stdlib_module_names))'
  )
  assert (done.returncode, done.stdout, done.stderr) == (0, "['painformer_jax']\n", '')


BLOCKED = """
import sys

class Block:
  def find_spec(self, name, path=None, target=None):
    if name.split('.')[0] in ('torch', 'tensorflow'):
      raise ModuleNotFoundError(f'{name} is blocked', name=name)

sys.meta_path.insert(0, Block())
try:
  import torch
except ModuleNotFoundError:
  pass
else:
  raise SystemExit('the block does not work')
"""


def test_everything_public_resolves_without_torch_and_tensorflow():
  # Warnings of other packages at import are theirs; ours are errors.
  done = python(
    BLOCKED
    + """
import warnings
warnings.resetwarnings()
warnings.filterwarnings('error', module='painformer_jax')
import painformer_jax as pj
for name in pj.__all__:
  getattr(pj, name)
assert set(pj.__all__) <= set(dir(pj))
"""
  )
  assert (done.returncode, done.stderr) == (0, '')


def test_unknown_attribute_is_an_attribute_error():
  with pytest.raises(AttributeError, match='no attribute .embedd.'):
    _ = pj.embedd


def test_shapes_are_had_without_computing_values():
  # In a process of its own, since the answer is kept once it is known.
  done = python("""
import jax
from painformer_jax.models import functional
from painformer_jax.models.registry import make_config
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: compiled.append(event) if 'compile' in event else None)
functional.count_parameters(make_config('painformer_nano'))
print([event for event in compiled if 'backend' in event])
""")
  assert (done.returncode, done.stdout) == (0, '[]\n'), done.stderr
