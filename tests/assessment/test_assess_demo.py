"""The assessment of the demo corpus, from recordings to a table, on a made-up cache."""

import csv
import dataclasses
import json

import numpy as np
from assess_runs import TWO_STAGES, assess, write_weights
from repository import ROOT

from painformer_jax.assessment.datasets import demo_study
from painformer_jax.data.demo import fnirs

CONFIG = """
import runpy

def get_config():
  config = runpy.run_path({path!r})['get_config']()
  drawn = dict(representations=('waveform',))
  config.modalities = {{name: dict(source=name, signal=drawn, max_tokens=1)
                       for name in config.modalities}}
  config.rows = {{name: config.rows[name] for name in ('ecg', 'fusion-2', 'fnirs-add')}}
  config.fit.epochs, config.seeds, config.shuffled, config.figures = 1, (0,), 1, False
  return config
"""


def test_the_demo_s_config_gives_a_table_of_both_tasks(made_up, tmp_path):
  (tmp_path / 'config.py').write_text(CONFIG.format(path=str(ROOT / 'configs' / 'assess_demo.py')))
  weights = write_weights(tmp_path / 'weights', **TWO_STAGES)
  done = assess(
    '--config',
    tmp_path / 'config.py',
    '--workdir',
    tmp_path / 'work',
    f'--config.weights={weights}',
    f'--config.data_dir={made_up}',
  )
  assert done.returncode == 0, done.stderr[-2000:]
  found = json.loads((tmp_path / 'work' / 'results.json').read_text())['experiments']
  assert {(e['settings']['row'], e['task']) for e in found} == {
    ('ecg', 'stimulus-rest'),
    ('fusion-2', 'stimulus-rest'),
    ('fnirs-add', 'tapping-rest'),
  }
  for each in found:
    assert each['settings']['folds'] == 6
    assert any('one person' in note for note in each['notes'])
    assert any('labels rotated in time within each block' in note for note in each['notes'])
    score = each['scores']['accuracy']
    assert 0 <= score['low'] <= score['estimate'] <= score['high'] <= 1
  with open(tmp_path / 'work' / 'predictions.csv') as file:
    blocks = {row['subject'] for row in csv.DictReader(file)}
  assert blocks == {f'{name}, block {i}' for name in ('pictures', 'tapping') for i in range(1, 7)}
  assert 'ECG+EDA+respiration' in done.stdout


def test_a_block_s_haemoglobin_comes_from_the_block_alone(made_up):
  recording = fnirs.read_recording(made_up)
  kept, edges = np.array([0, 3]), [20.0, 120.0, 220.0, 320.0]
  plain = demo_study._oxygenated(recording, kept, edges)
  first, last = (round(edge * recording.rate) for edge in edges[1:3])
  changed = recording.intensity.copy()
  changed[first:last] = changed[first:last][::-1] ** 2
  other = demo_study._oxygenated(dataclasses.replace(recording, intensity=changed), kept, edges)
  differ = np.flatnonzero((plain != other).any(axis=1))
  assert first <= differ.min() and differ.max() < last
  assert not plain[: round(20 * recording.rate)].any() and plain[first:last].std(axis=0).min() > 0


def test_a_gap_that_leaves_nothing_is_one_line(made_up, tmp_path):
  (tmp_path / 'config.py').write_text(CONFIG.format(path=str(ROOT / 'configs' / 'assess_demo.py')))
  weights = write_weights(tmp_path / 'weights', **TWO_STAGES)
  done = assess(
    '--config',
    tmp_path / 'config.py',
    '--workdir',
    tmp_path / 'work',
    '--check',
    f'--config.weights={weights}',
    f'--config.data_dir={made_up}',
    '--config.gap=400',
  )
  assert done.returncode == 2 and 'take a shorter gap' in done.stderr.splitlines()[-1]
