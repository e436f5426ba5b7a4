"""Embeddings of a study: used again where nothing changed, refused where anything did."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from embedding_studies import CONFIG, FINISHED, GSR, SIDE, WAVEFORM, compute, nano, spoil
from test_models import drawn

from painformer_jax.assessment.datasets import biovid
from painformer_jax.assessment.embedding.modality_folder import ModalityFolder
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings
from painformer_jax.core.errors import InputError
from painformer_jax.embedding.pictures import PictureConfig
from painformer_jax.modalities.biosignal import BiosignalConfig
from painformer_jax.modalities.waveform import WaveformConfig
from painformer_jax.modalities.windows import SignalConfig
from painformer_jax.models.registry import make_config
from painformer_jax.weights.folder import Weights, WeightsSource, save_weights
from painformer_jax.weights.load import read_weights

pytestmark = pytest.mark.usefixtures('small_parts')


def test_finished_embeddings_are_used_again(study, tmp_path):
  store = compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  before = (tmp_path / 'e/gsr/values.npy').stat().st_mtime_ns
  save_weights(
    tmp_path / 'weights',
    nano().variables,
    config=CONFIG,
    source=WeightsSource(name='other.pth', sha256='ab' * 32),
  )
  lines = []
  again = compute(
    study,
    {'gsr': WAVEFORM, 'ecg': dataclasses.replace(WAVEFORM, source='ecg')},
    tmp_path / 'e',
    weights=read_weights(tmp_path / 'weights'),
    log=lines.append,
  )
  assert (tmp_path / 'e/gsr/values.npy').stat().st_mtime_ns == before
  assert any('gsr: embeddings found' in line for line in lines)
  assert again.tokens('ecg').mask.all() and store.tokens('gsr').mask.all()
  assert again.record('gsr')['weights']['sha256'] == again.record('ecg')['weights']['sha256']
  assert sorted(p.name for p in (tmp_path / 'e/gsr').rglob('*')) == FINISHED


def changed_weights():
  path = 'norm4/bias' if 'norm4/bias' in nano().variables else sorted(nano().variables)[0]
  return nano().variables | {path: nano().variables[path] + 1e-6}


CHANGES = {
  'weights': (
    dict(weights=lambda: dataclasses.replace(nano(), variables=changed_weights())),
    r'weights\.sha256: \w+\.\.\. there, \w+\.\.\. here',
  ),
  'model': (
    dict(
      weights=lambda: dataclasses.replace(
        nano(), config=dataclasses.replace(CONFIG, dtype='bfloat16')
      )
    ),
    'model.dtype: float32 there, bfloat16 here',
  ),
  'drawing': (
    dict(signal=SignalConfig(images=BiosignalConfig(waveform=WaveformConfig(thickness=2)))),
    r'settings\.signal\.images\.waveform\.thickness: 1 there, 2 here',
  ),
  'cleaning': (
    dict(signal=SignalConfig(clean=True)),
    r'settings\.signal\.clean: false there, true here',
  ),
  'window': (dict(signal=SignalConfig(window=2.0)), r'signal\.window: 0\.0 there, 2\.0 here'),
  'limit': (dict(max_tokens=1), 'settings.max_tokens: 0 there, 1 here'),
  'source': (dict(source='ecg'), 'settings.source: gsr there, ecg here'),
}


@pytest.mark.parametrize('change', CHANGES)
def test_embeddings_made_otherwise_are_refused(whole, change):
  study, store = whole
  changes, message = CHANGES[change]
  changes = dict(changes)
  options = {'weights': changes.pop('weights')()} if 'weights' in changes else {}
  before = (store.folder / 'gsr/values.npy').read_bytes()
  with pytest.raises(InputError, match=message) as error:
    compute(study, {'gsr': dataclasses.replace(GSR, **changes)}, store.folder, **options)
  assert str(error.value).startswith(f'{store.folder / "gsr"} holds embeddings made in another way')
  assert 'name another folder, or remove that one' in str(error.value)
  assert '\n' not in str(error.value)
  assert (store.folder / 'gsr/values.npy').read_bytes() == before


def test_what_does_not_shape_the_images_does_not_matter(whole):
  study, store = whole
  same = dataclasses.replace(
    GSR,
    image_type='rgb',
    frames=PictureConfig(every=3),
    signal=SignalConfig(
      pathlength_factor=5.0,
      representations=('waveform', 'angle', 'phase', 'psd'),
      images=BiosignalConfig(waveform=WaveformConfig(height=99)),
    ),
  )
  headed = make_config('painformer_nano', num_classes=5)
  weights = Weights(
    config=headed,
    source=WeightsSource(name='with a head'),
    variables={path: np.asarray(a) for path, a in drawn(headed).items()},
  )
  assert weights.variables.keys() > nano().variables.keys()
  again = compute(study, {'gsr': same}, store.folder, batch_size=7, readers=1, weights=weights)
  assert again.names == ('gsr',)


def test_other_samples_are_refused(whole):
  study, store = whole
  fewer = dataclasses.replace(study, samples=study.samples[:-1])
  swapped = dataclasses.replace(study, samples=study.samples[::-1])
  later = dataclasses.replace(
    study,
    samples=tuple(
      dataclasses.replace(s, data={'gsr': dataclasses.replace(s.data['gsr'], start=100)})
      for s in study.samples
    ),
  )
  for other, message in (
    (fewer, 'samples.count: 20 there, 19 here'),
    (swapped, 'samples.sha256: .* there'),
    (later, 'samples.sha256: .* there'),
  ):
    with pytest.raises(InputError, match=message):
      compute(other, {'gsr': GSR}, store.folder)


def test_changed_recordings_are_refused_moved_ones_are_not(study, tmp_path):
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  moved = tmp_path / 'elsewhere'
  study.root.rename(moved)
  study = biovid.open_study(moved, modalities=('gsr',))
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  path = study.samples[3].data['gsr'].path
  content = path.read_text()
  path.write_text(content[:-5] + '9' + content[-4:])
  with pytest.raises(InputError, match=f'have changed since .*{path.name}'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  shutil.rmtree(moved / 'biosignals_filtered')  # not at hand is not changed
  assert compute(study, {'gsr': WAVEFORM}, tmp_path / 'e').tokens('gsr').mask.all()


def test_a_recording_that_came_later_is_a_change(study, tmp_path):
  path = study.samples[0].data['gsr'].path
  content = path.read_bytes()
  path.unlink()
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  path.write_bytes(content)
  with pytest.raises(InputError, match=f'have changed since .*{path.name}'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')


# --- folders and arguments ---------------------------------------------------


def test_two_processes_do_not_write_to_one_folder(study, tmp_path):
  folder = ModalityFolder(tmp_path / 'e' / 'gsr')
  folder.path.mkdir(parents=True)
  with folder.locked(), pytest.raises(InputError, match='another process is embedding into'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  assert compute(study, {'gsr': WAVEFORM}, tmp_path / 'e').tokens('gsr').mask.all()


def test_a_folder_of_other_things_is_left_alone(study, tmp_path):
  (tmp_path / 'e/gsr').mkdir(parents=True)
  (tmp_path / 'e/gsr/thesis.tex').write_text('years of work')
  with pytest.raises(InputError, match='holds other things than embeddings'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  assert [p.name for p in (tmp_path / 'e/gsr').iterdir()] == ['thesis.tex']


@pytest.mark.parametrize(
  'file, content',
  [('record.json', b'{'), ('summary.json', b'[]'), ('values.npy', b'no array'), ('mask.npy', b'')],
)
def test_damaged_files_are_named(study, tmp_path, file, content):
  compute(study, {'gsr': WAVEFORM}, tmp_path / 'e')
  (tmp_path / 'e/gsr' / file).write_bytes(content)
  with pytest.raises(InputError, match='is damaged .*: remove'):
    compute(study, {'gsr': WAVEFORM}, tmp_path / 'e').tokens('gsr')


def test_a_damaged_part_is_named(study, tmp_path):
  spoil(study, 19, 'missing')
  with pytest.raises(InputError, match='above the limit'):
    compute(study, {'gsr': GSR}, tmp_path / 'e', max_left_out=0)
  [first, *_] = sorted((tmp_path / 'e/gsr/parts').glob('*.npz'))
  first.write_bytes(first.read_bytes()[:100])
  with pytest.raises(InputError, match=f'{first.name} is damaged: remove'):
    compute(study, {'gsr': GSR}, tmp_path / 'e')


@pytest.mark.parametrize(
  'modalities, options, message',
  [
    ({'../gsr': GSR}, {}, 'is no name of embeddings'),
    ({}, {}, 'nothing to embed'),
    ({'gsr': GSR}, {'batch_size': 0}, 'batch_size and readers must be at least 1'),
    ({'gsr': GSR}, {'readers': 0}, 'batch_size and readers must be at least 1'),
    ({'gsr': GSR}, {'max_left_out': 1.5}, r'max_left_out in \[0, 1\]'),
    ({'bvp': dataclasses.replace(GSR, source='bvp')}, {}, 'has bvp; there are gsr, ecg'),
  ],
)
def test_arguments_that_do_not_fit(study, tmp_path, modalities, options, message):
  with pytest.raises(InputError, match=message):
    compute(study, modalities, tmp_path / 'e', **options)
  assert not (tmp_path / 'e').exists()


def test_settings_that_do_not_fit(study, tmp_path):
  with pytest.raises(InputError, match='max_tokens must be at least 0'):
    EmbeddingSettings(source='gsr', max_tokens=-1)
  other = dataclasses.replace(
    study, samples=tuple(dataclasses.replace(s, data={'bvp': s.data['gsr']}) for s in study.samples)
  )
  with pytest.raises(InputError, match='no cleaning for bvp, only for ecg, gsr'):
    compute(
      other,
      {'bvp': EmbeddingSettings(source='bvp', signal=SignalConfig(clean=True))},
      tmp_path / 'e',
    )


def test_names_unknown_to_the_store(whole):
  with pytest.raises(InputError, match="no embeddings 'emg' in .*, only gsr, ecg"):
    whole[1].tokens('emg')


def test_the_record_is_plain_json(whole):
  record = json.loads((whole[1].folder / 'gsr/record.json').read_text())
  assert record == whole[1].record('gsr')
  assert record['made']['study'] == biovid.SYNTHETIC_NAME and record['samples']['count'] == 20
  assert record['settings']['signal']['representations'] == ['waveform', 'angle', 'phase', 'psd']
  assert record['model']['image_size'] == SIDE and whole[1].stand_in('gsr') == ''
