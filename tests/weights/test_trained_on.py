"""Whom weights were fine-tuned on goes with them through export and convert."""

import json
import types

import numpy as np
import pytest
from command_line import run_command as run
from nano_weights import CONFIG, stored

from painformer_jax.assessment.finetune.tuned_weights import check_unseen
from painformer_jax.core.errors import InputError
from painformer_jax.weights import folder as weights
from painformer_jax.weights.load import read_weights
from painformer_jax.weights.trained_on import TrainedOn

__all__ = ['stored']
RECORDS = (
  TrainedOn(study='BioVid Part A', subjects=('071309_w_21', 'é'), start='a', start_sha256='0'),
  TrainedOn(study='AI4Pain 2025', subjects=('1',)),
)


@pytest.fixture(scope='module')
def tuned(stored, tmp_path_factory):
  """The nano weights, as if fine-tuned on two studies, one after the other."""
  folder = tmp_path_factory.mktemp('tuned') / 'w'
  source = weights.WeightsSource(name='nano', model='painformer_nano', trained_on=RECORDS)
  weights.save_weights(folder, weights.load_weights(stored).variables, config=CONFIG, source=source)
  return folder


@pytest.mark.parametrize('suffix', ['.pth', '.safetensors'])
def test_export_and_convert_keep_it(tuned, tmp_path, suffix):
  file, folder = tmp_path / f'a{suffix}', tmp_path / 'w'
  assert run('export', tuned, file).returncode == 0
  assert run('convert', file, folder).returncode == 0
  for place in (tuned, file, folder):
    assert read_weights(place).source.trained_on == RECORDS
  again = tmp_path / f'b{suffix}'
  assert run('export', folder, again).returncode == 0
  assert again.read_bytes() == file.read_bytes()


@pytest.mark.torch
def test_pytorch_reads_a_file_that_says_it(tuned, tmp_path):
  torch = pytest.importorskip('torch')
  assert run('export', tuned, tmp_path / 'a.pth').returncode == 0
  state = torch.load(tmp_path / 'a.pth', weights_only=True)['model_state_dict']
  assert all(torch.is_tensor(value) for value in state.values())


def test_the_file_that_older_releases_wrote_beside_the_arrays(stored, tmp_path):
  folder = tmp_path / 'w'
  weights.save_weights(
    folder,
    weights.load_weights(stored).variables,
    config=CONFIG,
    source=weights.WeightsSource(name='nano'),
  )
  description = json.loads((folder / 'painformer.json').read_text())
  assert description.pop('trained_on') == []
  (folder / 'painformer.json').write_text(json.dumps(description))
  assert weights.load_weights(folder).source.trained_on == ()
  older = {'study': 'BioVid Part A', 'subjects': ['p'], 'from': 'x.pth', 'from_sha256': 'ab'}
  (folder / 'trained_on.json').write_text(json.dumps(older))
  (record,) = weights.load_weights(folder).source.trained_on
  assert record == TrainedOn(
    study='BioVid Part A', subjects=('p',), start='x.pth', start_sha256='ab'
  )
  (folder / 'trained_on.json').write_text('{"study": 1')
  with pytest.raises(InputError, match='trained_on.json is damaged'):
    weights.load_weights(folder)


@pytest.mark.parametrize('study, refused', [('BioVid Part A', True), ('BioVid Part B', False)])
def test_whoever_was_trained_on_is_not_tested_on(study, refused):
  fold = types.SimpleNamespace(name='a', test=np.array([1]))
  job = types.SimpleNamespace(row='gsr', folds=[fold], subjects=np.array(['x', '071309_w_21']))
  source = weights.WeightsSource(name='a.pth', trained_on=RECORDS)
  if refused:
    with pytest.raises(InputError, match='a.pth.* 071309_w_21, who is tested on in fold a of gsr'):
      check_unseen(source, [job], types.SimpleNamespace(name=study))
  else:
    check_unseen(source, [job], types.SimpleNamespace(name=study))
