"""Fine-tuning from a folder of recordings to a table: it learns, repeats itself, goes on."""

import csv
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from assess_runs import CONFIG, TWO_STAGES, assess, read_results, write_weights
from command_line import run_command as run
from repository import environment
from test_assess_config import plain

from painformer_jax.assessment.config import from_config_dict
from painformer_jax.assessment.datasets import planted
from painformer_jax.assessment.finetune import training
from painformer_jax.core import progress
from painformer_jax.core.errors import InputError
from painformer_jax.weights.folder import load_weights

PLAN = planted.PlantedPlan(subjects=8, per_level=5, effect=8.0, subject_spread=0.2, seed=1)
TESTED = tuple(planted.subject_names(PLAN)[-3:])
ROW = 'gsr-BL1-PA4'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A config.py of a planted study with a hold-out, its data and its weights."""
  folder = tmp_path_factory.mktemp('finetune')
  planted.write_study(folder / 'data', PLAN)
  text = CONFIG.format(
    data=str(folder / 'data'), weights=str(write_weights(folder / 'weights', **TWO_STAGES))
  )
  text = re.sub(r'config\.planted = .*', f'config.planted = {vars(PLAN)!r}', text)
  text = (
    text.replace("'loso'", "'hold-out'")
    .replace("'subject'", "'none'")
    .replace(
      '  config.figures',
      f"""  del config.rows['both']
  config.hold_out = {TESTED!r}
  config.backbone = 'fine-tuned'
  config.finetune.update(learning_rate=3e-3, layer_decay=0.9, epochs=12, batch=10, frames=1,
                         frozen=('patch_embed1/.*',))
  config.fit.learning_rate = 5e-3
  config.figures""",
    )
  )
  (folder / 'config.py').write_text(text)
  return folder


def tune(folder, workdir, *further):
  return assess('--config', folder / 'config.py', '--workdir', workdir, *further)


@pytest.fixture(scope='module')
def finished(folder):
  done = tune(folder, folder / 'work')
  assert done.returncode == 0, done.stderr[-3000:]
  return folder / 'work', done


def test_the_planted_effect_is_found_in_people_left_out(finished):
  workdir, _ = finished
  each = read_results(workdir)['gsr, BL1-PA4']
  assert each['samples'] == 3 * 2 * 5 and each['subjects'] == 3
  # Whoever guesses gets so many right in one of a thousand runs.
  assert each['scores']['accuracy']['estimate'] >= 0.8, each['confusion']
  assert each['method'] == 'add, mixer_laptop, fine-tuned'
  assert each['protocol'] == 'hold-out, 5/3 subjects'
  assert any('training subjects alone' in note for note in each['notes'])
  with open(workdir / 'predictions.csv') as file:
    assert {row['subject'] for row in csv.DictReader(file)} == set(TESTED)


def test_what_is_frozen_stays_and_the_rest_has_moved(finished, folder):
  before = load_weights(folder / 'weights').variables
  after = load_weights(finished[0] / 'finetuned' / ROW / 'seed-0' / 'weights')
  assert 'fine-tuned on BioVid Part A, synthetic copy' in after.source.name
  still = {path for path, a in after.variables.items() if np.array_equal(a, before[path])}
  assert still == {path for path in before if path.startswith('patch_embed1/')}


def test_the_cost_comes_first_and_progress_follows(finished):
  lines = finished[1].stderr.splitlines()
  cost = next(i for i, line in enumerate(lines) if line.startswith('to fine-tune: gsr'))
  assert '50 samples x 12 epochs x 1 runs, 600 images' in lines[cost]
  assert 'images/s a pass, 3 passes an image' in lines[cost]
  begun = next(i for i, line in enumerate(lines) if 'parameters of the backbone learn' in line)
  assert cost < begun and '10 images a step, 60 steps' in lines[begun]
  assert not any('to train:' in line for line in lines)


def test_only_what_is_needed_is_left(finished):
  left = finished[0] / 'finetuned' / ROW / 'seed-0'
  assert sorted(p.name for p in left.iterdir()) == ['embeddings', 'logits.npz', 'weights']
  (record,) = load_weights(left / 'weights').source.trained_on
  assert set(record.subjects) == set(planted.subject_names(PLAN)) - set(TESTED)


def test_the_same_command_again_trains_nothing(finished, folder):
  before = read_results(finished[0])
  again = tune(folder, finished[0])
  assert again.returncode == 0 and 'seed-0 is finished' in again.stderr
  assert 'compiles' not in again.stderr and read_results(finished[0]) == before


def test_fine_tuned_weights_embed_but_do_not_judge_whom_they_have_seen(finished, folder, tmp_path):
  weights = finished[0] / 'finetuned' / ROW / 'seed-0' / 'weights'
  refused = tune(
    folder,
    tmp_path / 'w',
    f'--config.weights={weights}',
    '--config.backbone=frozen',
    '--config.protocol=loso',
    '--config.hold_out=()',
  )
  assert refused.returncode == 2 and 'were fine-tuned on ' in refused.stderr
  assert not (tmp_path / 'w' / 'embeddings').exists()
  # On the split they were made with, they may be used.
  checked = tune(folder, tmp_path / 'w', '--check', f'--config.weights={weights}')
  assert checked.returncode == 0, checked.stderr


def arrays(workdir) -> tuple[dict, np.ndarray]:
  made = pathlib.Path(workdir, 'finetuned', ROW, 'seed-0')
  return load_weights(made / 'weights').variables, np.load(made / 'logits.npz')['logits']


def same(one, other) -> None:
  (weights, logits), (other_weights, other_logits) = one, other
  np.testing.assert_array_equal(logits, other_logits)
  for path, array in weights.items():
    np.testing.assert_array_equal(array, other_weights[path], err_msg=path)


def test_stopped_anywhere_it_goes_on_and_ends_with_the_same_bits(
  finished, folder, tmp_path, monkeypatch
):
  """Embeddings are those of the finished run; training is stopped twice."""
  shutil.copytree(finished[0] / 'embeddings', tmp_path / 'work' / 'embeddings')
  shutil.copy(finished[0] / 'config.json', tmp_path / 'work')
  monkeypatch.setattr(training, '_SECONDS_A_LINE', 0.0)
  monkeypatch.setattr(training, '_SECONDS_A_CHECKPOINT', 0.0)
  before = progress.log

  def stop(line):
    before(line)
    if 'step 4 of' in line:
      raise KeyboardInterrupt
    if 'step 5 of' in line:  # Of the second run: a signal, after which the state is saved.
      os.kill(os.getpid(), signal.SIGTERM)

  monkeypatch.setattr(progress, 'log', stop)
  for said in ('', 'saved step 5; run the same command again to resume'):
    stopped = tune(folder, tmp_path / 'work')
    assert stopped.returncode not in (0, 2) and said in stopped.stderr
    monkeypatch.setattr(training, '_SECONDS_A_CHECKPOINT', 1e9)
  monkeypatch.setattr(progress, 'log', before)
  # The newest checkpoint is damaged as well: the one before it serves.
  made = tmp_path / 'work' / 'finetuned' / ROW / 'seed-0' / 'checkpoints'
  assert sorted(p.name for p in made.iterdir()) == ['3', '5']
  for path in (made / '5').rglob('*'):
    if path.is_file():
      path.write_bytes(b'no checkpoint')
  done = tune(folder, tmp_path / 'work')
  assert done.returncode == 0, done.stderr
  assert 'resumes from step 3 of 60' in done.stderr
  same(arrays(finished[0]), arrays(tmp_path / 'work'))


@pytest.mark.slow
def test_killed_by_the_system_it_goes_on(folder, tmp_path):
  """Whole processes: one undisturbed, one killed and started again."""

  def command(workdir):
    call = (
      'import sys; from painformer_jax.assessment.finetune import training; '
      'training._SECONDS_A_LINE = 0.0; training._SECONDS_A_CHECKPOINT = 0.3; '
      'from painformer_jax.cli.main import main; sys.exit(main())'
    )
    return [
      sys.executable,
      '-c',
      call,
      'assess',
      '--config',
      str(folder / 'config.py'),
      '--workdir',
      str(tmp_path / workdir),
    ]

  options = dict(env=environment(JAX_PLATFORMS='cpu'), text=True)
  subprocess.run(command('whole'), check=True, capture_output=True, **options)
  process = subprocess.Popen(
    command('killed'), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, **options
  )
  for line in process.stderr:
    if line.startswith('step 40 of'):
      break
  process.send_signal(signal.SIGKILL)
  process.communicate()
  again = subprocess.run(command('killed'), capture_output=True, **options)
  assert again.returncode == 0 and 'resumes from step' in again.stderr, again.stderr[-2000:]
  same(arrays(tmp_path / 'whole'), arrays(tmp_path / 'killed'))


@pytest.mark.slow
def test_every_seed_mixer_and_shuffle_trains_for_itself(folder, tmp_path):
  text = (folder / 'config.py').read_text().replace("  del config.rows['both']\n", '')
  (tmp_path / 'config.py').write_text(text)
  done = assess(
    '--config',
    tmp_path / 'config.py',
    '--workdir',
    tmp_path / 'work',
    '--config.seeds=(0, 3)',
    '--config.shuffled=1',
    '--config.finetune.epochs=1',
    '--config.finetune.dtype=bfloat16',
    '--config.fit.class_weights=balanced',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  made = tmp_path / 'work' / 'finetuned'
  runs = {
    f'{row}-BL1-PA4{end}/seed-{seed}'
    for row in ('gsr', 'both')
    for end, seed in (('', 0), ('', 3), ('-shuffled-0', 0))
  }
  assert {str(p.parent.relative_to(made)) for p in made.glob('*/*/logits.npz')} == runs
  logits = {run: np.load(made / run / 'logits.npz')['logits'] for run in runs}
  for one in runs:
    assert np.isfinite(logits[one]).all()
    assert not any(np.array_equal(logits[one], logits[other]) for other in runs - {one})
  found = read_results(tmp_path / 'work')
  assert found.keys() == {'gsr, BL1-PA4', 'both, BL1-PA4'}
  for each in found.values():
    assert each['seeds'] == 2 and len(each['settings']['shuffled']['accuracy']) == 1


def test_other_data_under_the_same_name_is_refused(finished, folder, tmp_path):
  shutil.copytree(finished[0], tmp_path / 'work')
  path = tmp_path / 'work' / 'finetuned' / ROW / 'seed-0' / 'logits.npz'
  np.savez(path, logits=np.load(path)['logits'], fingerprint=np.array('of something else'))
  refused = tune(folder, tmp_path / 'work')
  assert refused.returncode == 2 and 'is of another configuration' in refused.stderr


@pytest.mark.parametrize(
  'changes, words',
  [
    (dict(protocol='loso'), 'train a backbone for every fold'),
    (dict(protocol='loso-reactive'), 'train a backbone for every fold'),
    (dict(normalise='subject'), "take 'none'"),
    (dict(grid=dict(learning_rate=(1e-3, 1e-2))), 'every point would train'),
    (dict(assessor=True), 'only Mixers on a frozen backbone'),
    (dict(finetune=dict(frames=0)), 'config.finetune: frames is 0'),
    (dict(finetune=dict(layer_decai=1.0)), 'did you mean layer_decay?'),
    (dict(backbone='tuned'), 'did you mean fine-tuned?'),
  ],
)
def test_what_cannot_be_fine_tuned_is_one_line(changes, words):
  with pytest.raises(InputError) as error:
    from_config_dict(plain(**dict(backbone='fine-tuned', protocol='hold-out') | changes))
  assert words in str(error.value) and '\n' not in str(error.value)


def test_what_does_not_fit_the_weights_is_known_before_anything_is_embedded(folder, tmp_path):
  for wrong, words in (
    ("--config.finetune.frozen=('block9/.*',)", 'matches no parameter'),
    ("--config.finetune.frozen=('.*',)", 'leaves nothing'),
  ):
    for further in ((), ('--check',)):
      done = tune(folder, tmp_path / 'work', wrong, *further)
      assert done.returncode == 2 and words in done.stderr.splitlines()[-1]
    assert not (tmp_path / 'work' / 'embeddings').exists()
    shutil.rmtree(tmp_path / 'work', ignore_errors=True)


def batch_over_devices(*, folder):
  done = assess('--config', folder + '/config.py', '--workdir', folder + '/eight', '--check')
  return [done.returncode, done.stderr]


def test_a_batch_that_does_not_split_over_the_devices(folder, on_devices):
  status, stderr = on_devices(8, batch_over_devices, folder=str(folder))
  assert status == 2 and 'does not split over 8 devices: take a multiple of 8' in stderr


def test_a_hold_out_of_ones_own_is_for_that_protocol():
  with pytest.raises(InputError, match="config.protocol is 'loso'"):
    from_config_dict(plain(hold_out=('a',)))


def test_weights_of_a_run_can_be_used_as_any_others(finished, tmp_path):
  weights = finished[0] / 'finetuned' / ROW / 'seed-0' / 'weights'
  exported = run('export', weights, tmp_path / 'tuned.safetensors')
  assert exported.returncode == 0 and (tmp_path / 'tuned.safetensors').is_file()
