"""Embeddings of a study: kill and resume, many devices, bounded memory."""

import os
import pathlib
import resource
import signal
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from embedding_studies import FINISHED, GSR, SIDE, WAVEFORM, compute, copies, small_study
from repository import environment

from painformer_jax.assessment.embedding import embed as embeddings
from painformer_jax.assessment.embedding import modality_folder
from painformer_jax.assessment.embedding.modality_folder import ModalityFolder
from painformer_jax.assessment.embedding.store import EmbeddingStore
from painformer_jax.core.errors import InputError

pytestmark = pytest.mark.usefixtures('small_parts')


def embed_until_killed(*, root, folder):
  """Kills its own process once the second part is written, with half of a third."""
  write = ModalityFolder.write_part

  def write_part(self, first, last, **arrays):
    write(self, first, last, **arrays)
    if first:
      (self.path / 'parts' / '.0123.partial').write_bytes(b'half')
      os.kill(os.getpid(), signal.SIGKILL)

  ModalityFolder.write_part, embeddings._BATCHES_A_PART = write_part, 8
  compute(small_study(root), {'gsr': GSR}, folder)


def test_killed_it_goes_on_and_gives_the_same_bits(root, whole, tmp_path):
  call = f"""import pathlib, test_embeddings_resume as t
t.embed_until_killed(root=pathlib.Path({str(root)!r}), folder={str(tmp_path / 'e')!r})"""
  killed = subprocess.run(
    [sys.executable, '-c', call],
    env=environment(JAX_PLATFORMS='cpu'),
    capture_output=True,
    text=True,
    timeout=300,
  )
  assert killed.returncode == -signal.SIGKILL, killed.stderr
  with pytest.raises(InputError, match='no finished embeddings'):
    EmbeddingStore(tmp_path / 'e', ('gsr',), [''] * 20)
  lines = []
  store = compute(small_study(root), {'gsr': GSR}, tmp_path / 'e', log=lines.append)
  assert 'gsr: 16 of 20 samples were embedded before' in lines
  assert np.array_equal(store.tokens('gsr').values, whole[1].tokens('gsr').values)
  assert sorted(p.name for p in (tmp_path / 'e/gsr').rglob('*')) == FINISHED


@pytest.mark.parametrize('file', ['values.npy', 'mask.npy', 'summary.json'])
def test_stopped_while_parts_are_joined_it_goes_on(root, whole, tmp_path, monkeypatch, file):
  def stop_before(function):
    def stopped(*arguments):
      if any(isinstance(a, (str, pathlib.Path)) and str(a).endswith(file) for a in arguments):
        raise KeyboardInterrupt
      return function(*arguments)

    return stopped

  with monkeypatch.context() as patched:
    for name in ('write_atomically', 'write_json'):
      patched.setattr(modality_folder, name, stop_before(getattr(modality_folder, name)))
    with pytest.raises(KeyboardInterrupt):
      compute(small_study(root), {'gsr': GSR}, tmp_path / 'e')
  assert not (tmp_path / 'e/gsr/summary.json').exists()
  store = compute(small_study(root), {'gsr': GSR}, tmp_path / 'e')
  assert np.array_equal(store.tokens('gsr').values, whole[1].tokens('gsr').values)
  assert sorted(p.name for p in (tmp_path / 'e/gsr').rglob('*')) == FINISHED


def test_a_full_disk_is_told_and_goes_on_where_there_is_room(root, whole, tmp_path):
  limits = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))  # less than values.npy
  try:
    with pytest.raises(InputError, match='values.npy cannot be written.*free some space'):
      compute(small_study(root), {'gsr': GSR}, tmp_path / 'e')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
  lines = []
  store = compute(small_study(root), {'gsr': GSR}, tmp_path / 'e', log=lines.append)
  assert 'gsr: 20 of 20 samples were embedded before' in lines
  assert np.array_equal(store.tokens('gsr').values, whole[1].tokens('gsr').values)


def embeddings_of(*, root, folder):
  import jax

  store = compute(small_study(pathlib.Path(root)), {'gsr': GSR}, folder, batch_size=12)
  return [len(jax.devices()), store.tokens('gsr').values.tolist()]


def test_eight_devices_give_the_same(root, whole, tmp_path, on_devices, measured):
  devices, values = on_devices(8, embeddings_of, root=str(root), folder=str(tmp_path / 'e'))
  assert devices == 8
  one = whole[1].tokens('gsr').values
  measured(
    'embeddings, 8 devices against 1',
    np.abs(np.array(values) - one).max() / np.abs(one).max(),
    limit=1e-5,
  )


def peak(study, folder):
  tracemalloc.start()
  compute(study, {'gsr': WAVEFORM}, folder)
  size = tracemalloc.get_traced_memory()[1]
  tracemalloc.stop()
  return size


def test_memory_does_not_grow_with_the_samples(root, tmp_path):
  study = small_study(root)
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'compiled')
  few = peak(copies(study, 200), tmp_path / 'few')
  many = peak(copies(study, 800), tmp_path / 'many')
  # Names of 600 more samples, and images that threads read ahead, take some memory;
  # the images of all 600 would take twice the limit.
  assert many - few < 600 * SIDE * SIDE * 3 / 2, (few, many)
