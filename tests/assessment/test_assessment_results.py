"""What is written of a finished experiment, read back; and the literature's table."""

import csv
import io
import json
import re

import numpy as np
import PIL.Image
import pytest
import sklearn.metrics

from painformer_jax.assessment.folds import tasks
from painformer_jax.assessment.results import literature, paired
from painformer_jax.assessment.results import table as result_table
from painformer_jax.assessment.results.summary import Experiment, summarise
from painformer_jax.assessment.results.write import write_results
from painformer_jax.assessment.statistics.metrics import Predictions
from painformer_jax.core.errors import InputError


def predictions(seed, *, skill=0.7, subjects=6, each=20, classes=2):
  """Of the same samples and labels whatever the seed."""
  rng = np.random.default_rng(seed)
  n = subjects * each
  label = np.arange(n) % classes
  scores = rng.normal(size=(n, classes))
  scores[np.arange(n), label] += np.where(rng.uniform(size=n) < skill, 3, -1)
  weights = np.exp(scores)
  return Predictions(
    sample=[f'clip {i}' for i in range(n)],
    label=label,
    subject=np.repeat([f'person_{k}' for k in range(subjects)], each),
    probability=weights / weights.sum(1, keepdims=True),
  )


def experiment(name='GSR', runs=None, **changes):
  return Experiment(
    **{
      'name': name,
      'dataset': 'BioVid Part A',
      'task': 'BL1-PA4',
      'modality': 'GSR',
      'method': 'tiny',
      'protocol': 'leave-one-subject-out',
      'classes': ('no pain', 'PA4'),
      'runs': runs or (predictions(0),),
    }
    | changes
  )


def write(experiments, folder, **options):
  return write_results([summarise(each) for each in experiments], folder, **options)


def read_csv(path):
  return list(csv.DictReader(io.StringIO(path.read_text())))


@pytest.fixture(scope='module')
def written(tmp_path_factory):
  folder = tmp_path_factory.mktemp('results') / 'run'
  experiments = [
    experiment(
      'GSR', (predictions(0, skill=0.6), predictions(1, skill=0.6)), settings={'row': 'gsr'}
    ),
    experiment(
      'GSR & ECG',
      (predictions(2, skill=0.95),),
      modality='GSR_&_ECG',
      notes=('100 % synthetic',),
      settings={'epochs': 3},
    ),
  ]
  write(experiments, folder, tests=paired.against_row(experiments, 'gsr'))
  return folder


class TestSummary:
  def test_scores_are_means_over_seeds(self):
    runs = (predictions(0), predictions(1))
    found = summarise(experiment(runs=runs))
    each = [sklearn.metrics.accuracy_score(r.label, r.predicted) for r in runs]
    assert found.scores['accuracy'].estimate == pytest.approx(np.mean(each))
    assert found.seed_spread == pytest.approx(np.std(each, ddof=1))
    assert found.confusion.sum() == 240 and found.chance == 0.5
    own = [
      np.mean([(r.predicted == r.label)[r.subject == p].mean() for r in runs])
      for p in runs[0].subjects
    ]
    np.testing.assert_allclose(found.by_subject, own)
    assert found.subject_accuracy == pytest.approx(np.mean(own))
    interval = found.scores['macro F1']
    assert interval.low < interval.estimate < interval.high

  def test_one_subject_has_no_interval(self):
    found = summarise(experiment(runs=(predictions(0, subjects=1),)))
    assert np.isnan(found.scores['accuracy'].low)
    record = found.record()
    assert record['scores']['accuracy']['low'] is None
    assert record['seed_standard_deviation'] is None
    json.dumps(record, allow_nan=False)

  def test_seeds_of_other_samples(self):
    with pytest.raises(InputError, match='every seed must predict the same samples'):
      experiment(runs=(predictions(0), predictions(0, subjects=5)))

  def test_other_number_of_classes(self):
    with pytest.raises(InputError, match='3 probabilities for 2 classes'):
      experiment(runs=(predictions(0, classes=3),))

  def test_no_runs(self):
    with pytest.raises(InputError, match='has no predictions'):
      Experiment(**{**vars(experiment()), 'runs': ()})


class TestFiles:
  def test_nothing_else_is_there(self, written):
    assert sorted(p.name for p in written.iterdir()) == [
      'GSR-ECG.png',
      'GSR.png',
      'predictions.csv',
      'results.json',
      'subjects.csv',
      'table.csv',
      'table.tex',
    ]

  def test_json(self, written):
    record = json.loads((written / 'results.json').read_text())
    first, second = record['experiments']
    assert (first['seeds'], first['samples'], first['subjects']) == (2, 120, 6)
    assert second['settings'] == {'epochs': 3} and second['notes'] == ['100 % synthetic']
    assert (
      second['balanced_accuracy']
      == second['macro_recall']
      == second['scores']['macro accuracy']['estimate']
    )
    assert sum(map(sum, first['confusion'])) == 240
    (comparison,) = record['comparisons']
    assert (comparison['experiment'], comparison['reference']) == ('GSR & ECG', 'GSR')
    assert comparison['run'] == '' and comparison['samples'] == 120
    assert comparison['difference']['estimate'] == pytest.approx(
      second['scores']['accuracy']['estimate'] - first['scores']['accuracy']['estimate']
    )
    assert comparison['p_sign_flip'] < 0.1 and comparison['better'] >= 5
    assert len(record['literature']) == 11
    assert 'no medical device' in record['notice']

  def test_table(self, written):
    rows = read_csv(written / 'table.csv')
    assert [r['evidence'] for r in rows[:2]] == ['measured'] * 2
    assert rows[0]['chance'] == '50.00' and rows[0]['subjects'] == '6'
    assert float(rows[1]['accuracy low']) < float(rows[1]['accuracy'])
    published = {(r['method'], r['modality']): r for r in rows[2:]}
    assert published['PainFormer', 'thermal']['evidence'] == 'assumed'
    assert published['PainFormer', 'GSR']['accuracy'] == '89.0'
    assert published['PainFormer', 'GSR']['accuracy low'] == ''
    assert published['PainFormer', 'GSR']['macro F1'] == ''

  def test_predictions_give_the_table_again(self, written):
    rows = [r for r in read_csv(written / 'predictions.csv') if r['experiment'] == 'GSR']
    assert len(rows) == 240 and {r['run'] for r in rows} == {'0', '1'}
    right = np.mean([r['label'] == r['predicted'] for r in rows])
    assert 100 * right == pytest.approx(
      float(read_csv(written / 'table.csv')[0]['accuracy']), abs=0.01
    )
    assert all(abs(sum(map(float, r['probabilities'].split())) - 1) < 1e-5 for r in rows)

  def test_subjects(self, written):
    rows = read_csv(written / 'subjects.csv')
    assert [r['subject'] for r in rows[:6]] == [f'person_{k}' for k in range(6)]
    assert all(r['samples'] == '20' for r in rows)
    own = np.mean([float(r['accuracy']) for r in rows[:6]])
    record = json.loads((written / 'results.json').read_text())['experiments'][0]
    assert own == pytest.approx(record['subject_accuracy'], abs=1e-5)

  def test_latex(self, written):
    text = (written / 'table.tex').read_text()
    body = re.search(r'\\toprule\n(.*)\\bottomrule', text, re.S)[1]
    rows = [line for line in body.splitlines() if line.endswith(r'\\')]
    assert len(rows) == 1 + 2 + 11
    assert all(len(re.findall(r'(?<!\\)&', row)) == 7 for row in rows)
    assert r'GSR\_\&\_ECG' in rows[2] and r'100 \% synthetic' in text
    assert r'71.55\textsuperscript{**}' in text and r'** ' not in text
    assert r'\textsuperscript{**} recalled from memory, not checked.' in text
    assert text.count('{') == text.count('}')

  def test_picture(self, written):
    with PIL.Image.open(written / 'GSR.png') as image:
      assert image.width > 1000 and image.height > 700
      pixels = np.asarray(image.convert('RGB'))
    # Blues of the confusion matrix and of the bars, on a white ground.
    assert (pixels == 255).all(-1).mean() > 0.4
    blue = (pixels[..., 2].astype(int) - pixels[..., 0]) > 40
    height = len(pixels)
    assert blue[: height // 2].mean() > 0.05 and blue[height // 2 :].mean() > 0.05

  def test_pictures_can_be_left_out_and_files_are_replaced(self, tmp_path):
    write([experiment()], tmp_path, figures=False)
    before = (tmp_path / 'results.json').read_bytes()
    paths = write([experiment(runs=(predictions(5),))], tmp_path, figures=False)
    assert (tmp_path / 'results.json').read_bytes() != before
    assert sorted(paths) == sorted(tmp_path.iterdir()) and len(paths) == 5

  def test_same_run_gives_the_same_bytes(self, tmp_path):
    for name in ('a', 'b'):
      write([experiment()], tmp_path / name)
    for path in (tmp_path / 'a').iterdir():
      assert path.read_bytes() == (tmp_path / 'b' / path.name).read_bytes()

  def test_experiments_that_share_a_name(self, tmp_path):
    with pytest.raises(InputError, match='of different names'):
      write([experiment(), experiment()], tmp_path)
    with pytest.raises(InputError, match='too alike to name files by'):
      write([experiment('a b'), experiment('a-b')], tmp_path)
    assert not list(tmp_path.iterdir())

  def test_folder_that_cannot_be_made(self, tmp_path):
    (tmp_path / 'file').write_text('')
    with pytest.raises(InputError, match='cannot be made'):
      write([experiment()], tmp_path / 'file' / 'run', figures=False)

  def test_latex_escapes(self):
    assert result_table.escape(r'a_b & 5% {x} \y ~^ <') == (
      r'a\_b \& 5\% \{x\} \textbackslash{}y \textasciitilde{}\textasciicircum{} '
      r'\textless{}'
    )


class TestLiterature:
  biovid = {(r.method, r.modality): r for r in literature.published('BioVid Part A', 'BL1-PA4')}
  ai4pain = {(r.method, r.modality): r for r in literature.published('AI4Pain 2024', '3-class')}

  def test_every_row_is_of_a_known_dataset_and_task(self):
    assert len(self.biovid) == 11 and len(self.ai4pain) == 6
    assert len(literature.FIGURES) == 17
    for row in literature.FIGURES:
      assert row.task in tasks.TASKS and row.evidence in literature.EVIDENCE
      assert row.source and row.protocol and 0 < row.value < 100

  @pytest.mark.parametrize(
    'method, modality, figure, evidence',
    [
      ('PainFormer', 'RGB', '76.3', 'secondary'),
      ('PainFormer', 'ECG', '75.5', 'secondary'),
      ('PainFormer', 'GSR', '89.0', 'secondary'),
      ('PainFormer', 'RGB+thermal+depth+GSR', '89.1', 'secondary'),
      ('PainFormer', 'thermal', '71.55', 'assumed'),
      ('PainFormer', 'depth', '71.67', 'assumed'),
      ('PainFormer', 'EMG', '72.02', 'assumed'),
      ('JMT', 'face+EDA', '89.1', 'secondary'),
      ('CrossMod-Transformer', 'EDA+ECG', '87.52', 'secondary'),
      ('Aslam', 'not stated', '86.90', 'secondary'),
      ('Li', 'not stated', '86.21', 'secondary'),
    ],
  )
  def test_biovid(self, method, modality, figure, evidence):
    row = self.biovid[method, modality]
    assert (row.figure, row.evidence) == (figure, evidence)

  @pytest.mark.parametrize(
    'method, modality, figure, evidence',
    [
      ('challenge baseline', 'fNIRS', '43.3', 'verified'),
      ('challenge baseline', 'face', '40.1', 'verified'),
      ('challenge baseline', 'face+fNIRS', '41.7', 'verified'),
      ('Twins-PainViT', 'not stated', '46.76', 'verified'),
      ('PainFormer', 'not stated', '55.69', 'assumed'),
      ('ReFace', 'not stated', '56.00', 'verified'),
    ],
  )
  def test_ai4pain(self, method, modality, figure, evidence):
    row = self.ai4pain[method, modality]
    assert (row.figure, row.evidence) == (figure, evidence)

  def test_recalled_figures_are_marked(self):
    assumed = [r for r in literature.FIGURES if r.evidence == 'assumed']
    assert len(assumed) == 4 and all('from memory' in r.source for r in assumed)
