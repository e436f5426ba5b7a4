"""The parts of a report: intervals, probes, baselines, pages."""

import base64
import dataclasses
import html.parser
import io
import json
import re
import warnings

import jax
import numpy as np
import optax
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from painformer_jax.models import registry
from painformer_jax.report import data_notes, figures, terminal, wording
from painformer_jax.report.baseline import pixel_baseline
from painformer_jax.report.embeddings import untrained_backbone
from painformer_jax.report.interval import accuracy_interval, effective_sample_size, wilson
from painformer_jax.report.page import html_page
from painformer_jax.report.probe import (
  STRENGTHS,
  Probe,
  chance,
  is_unbalanced,
  linear_probe,
  verdict,
)
from painformer_jax.report.results import Results, TaskResult
from painformer_jax.training.state import BACKBONE, group, initial_state

# Intervals.


@given(count=st.integers(1, 2000), data=st.data())
def test_wilson_is_that_of_scipy(count, data):
  correct = data.draw(st.integers(0, count))
  ours = wilson(correct / count, count)
  theirs = scipy.stats.binomtest(correct, count).proportion_ci(0.95, method='wilson')
  assert ours.low == pytest.approx(theirs.low, abs=1e-6)
  assert ours.high == pytest.approx(theirs.high, abs=1e-6)
  assert ours.low - 1e-12 <= correct / count <= ours.high + 1e-12


def test_fewer_images_give_a_wider_interval():
  widths = [wilson(0.7, n).high - wilson(0.7, n).low for n in (20.5, 50, 200, 1000)]
  assert widths == sorted(widths, reverse=True)


@given(n=st.integers(1, 300), classes=st.integers(1, 5), seed=st.integers(0, 999))
@settings(deadline=None)
def test_effective_sample_size_is_at_most_the_number_of_images(n, classes, seed):
  rng = np.random.default_rng(seed)
  correct, label = rng.random(n) < 0.6, rng.integers(0, classes, n)
  assert 0 < effective_sample_size(correct, label) <= n


def test_effective_sample_size_of_independent_images_is_near_their_number():
  rng = np.random.default_rng(0)
  label = np.zeros(400, int)
  sizes = [effective_sample_size(rng.random(400) < 0.6, label) for _ in range(50)]
  assert np.mean(sizes) > 300


def test_effective_sample_size_of_copies_is_near_the_number_of_originals():
  rng = np.random.default_rng(0)
  label = np.zeros(390, int)
  sizes = [effective_sample_size(np.repeat(rng.random(30) < 0.6, 13), label) for _ in range(50)]
  assert 25 < np.mean(sizes) < 75  # Of 390; 30 would be exact.


def test_classes_of_different_difficulty_in_a_row_are_not_dependence():
  """Stored class by class, all of one class right and half of the other."""
  rng = np.random.default_rng(0)
  label = np.repeat([0, 1], 200)
  correct = np.where(label == 0, True, rng.random(400) < 0.5)
  assert effective_sample_size(correct, label) > 250
  blind = effective_sample_size(correct, np.zeros(400, int))
  assert blind < 100  # What it would be without the classes.


def test_interval_of_dependent_images_includes_chance_where_wilson_does_not():
  correct = np.repeat(np.arange(30) % 30 < 18, 13)  # 60 % of 30 moments, 13 channels.
  label = np.zeros(390, int)
  assert wilson(0.6, 390).low > 0.5
  interval = accuracy_interval(correct, label)
  assert verdict(interval, 0.5) == 'at chance'


def test_verdicts():
  interval = wilson(0.7, 100)
  assert verdict(interval, 0.5) == 'above chance'
  assert verdict(interval, interval.low) == 'at chance'
  assert verdict(interval, interval.high) == 'at chance'
  assert verdict(interval, 0.9) == 'below chance'


def test_chance_and_balance():
  assert chance(np.array([0, 0, 0, 2])) == 0.75
  assert is_unbalanced(np.array([0, 0, 0, 2]))
  assert not is_unbalanced(np.array([0, 0, 0, 2, 2, 2, 5, 5]))


# Probes and baselines.


def _clusters(n, *, classes, spread, seed, width=12):
  rng = np.random.default_rng(seed)
  centres = np.random.default_rng(7).normal(size=(classes, width))
  label = np.arange(n) % classes
  return centres[label] + spread * rng.normal(size=(n, width)), label


def _probe(spread=0.3, *, test_label=None, scale=1.0):
  train, train_label = _clusters(60, classes=4, spread=spread, seed=0)
  test, label = _clusters(40, classes=4, spread=spread, seed=1)
  return linear_probe(
    (train * scale).astype(np.float32),
    train_label,
    test=(test * scale).astype(np.float32),
    test_label=label if test_label is None else test_label,
  )


def test_probe_tells_clusters_apart():
  result = _probe()
  assert result.accuracy == 1.0
  assert result.macro_f1 == 1.0
  assert result.folds == 5
  assert result.interval.low > 0.85


def test_probe_does_not_care_for_the_scale_of_embeddings():
  assert _probe(spread=1.2) == _probe(spread=1.2, scale=1024.0)


def test_probe_never_sees_test_labels():
  """Other labels change the score, and nothing that was fitted or chosen."""
  first = _probe(spread=1.2)
  label = _clusters(40, classes=4, spread=1.2, seed=1)[1]
  wrong = _probe(spread=1.2, test_label=(label + 1) % 4)
  assert (wrong.strength, wrong.folds) == (first.strength, first.folds)
  assert wrong.accuracy <= 1 - first.accuracy


def test_probe_of_noise_is_at_chance():
  rng = np.random.default_rng(0)
  result = linear_probe(
    rng.normal(size=(100, 20)),
    rng.integers(0, 2, 100),
    test=rng.normal(size=(100, 20)),
    test_label=rng.integers(0, 2, 100),
  )
  assert verdict(result.interval, 0.5) == 'at chance'


def test_probe_with_a_class_of_one_image_goes_without_cross_validation():
  train, label = _clusters(9, classes=3, spread=0.1, seed=0)
  keep = np.array([0, 1, 2, 3, 4, 6, 7])  # Of the third class one image.
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    result = linear_probe(train[keep], label[keep], test=train, test_label=label)
  assert result.folds == 0
  assert result.strength in STRENGTHS


def test_probe_of_a_single_class_is_an_error():
  with pytest.raises(ValueError, match='one class'):
    linear_probe(
      np.zeros((4, 2)), np.ones(4, int), test=np.zeros((1, 2)), test_label=np.ones(1, int)
    )


def test_macro_f1_shows_what_accuracy_hides():
  """A probe that always names the big class."""
  rng = np.random.default_rng(0)
  label = np.repeat([0, 1], [90, 10])
  result = linear_probe(
    rng.normal(size=(100, 3)) * 1e-3, label, test=rng.normal(size=(100, 3)) * 1e-3, test_label=label
  )
  assert result.accuracy >= 0.85
  assert result.macro_f1 < 0.6


def test_pixel_baseline_of_images_that_are_all_alike():
  images, label = np.ones((5, 2, 2), np.uint8), np.array([1, 0, 0, 0, 0])
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    result = pixel_baseline(images, label, test=images, test_label=label)
  assert result.components == 4 and 0 <= result.accuracy <= 1


@pytest.mark.parametrize('train', [np.ones((5, 3), np.float32), None])
def test_scatter_shows_the_first_two_components(train):
  if train is None:
    train = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32) * [1, 9, 2, 1, 1, 3]
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    points, shares = figures._project(train, train[::-1])
  standard = (train - train.mean(0)) / np.where(train.std(0), train.std(0), 1)
  _, size, axes = np.linalg.svd(standard - standard.mean(0), full_matrices=False)
  assert np.abs(points) == pytest.approx(np.abs(standard[::-1] @ axes[:2].T), abs=1e-5)
  assert shares == pytest.approx(size[:2] ** 2 / max((size**2).sum(), 1e-9), abs=1e-6)


def test_pixel_baseline_names_the_nearest_image():
  rng = np.random.default_rng(0)
  train = rng.integers(0, 256, (20, 8, 8)).astype(np.uint8)
  label = np.arange(20) % 5
  test = np.clip(train.astype(int) + rng.integers(-9, 10, train.shape), 0, 255)
  result = pixel_baseline(train, label, test=test.astype(np.uint8), test_label=label)
  assert (result.accuracy, result.size, result.components) == (1.0, 8, 20)
  shifted = pixel_baseline(train, label, test=test.astype(np.uint8), test_label=(label + 1) % 5)
  assert shifted.accuracy == 0.0


def test_untrained_backbone_is_where_a_run_of_that_seed_starts():
  config = registry.make_config('painformer_nano')
  state = jax.jit(
    lambda: initial_state(
      config, classes={'a': 2}, learned_weighting=True, optimizer=optax.sgd(1.0), seed=3
    ),
    compiler_options={'xla_backend_optimization_level': 0},
  )()
  start = {**group(state.params, BACKBONE), **state.stats}
  ours = untrained_backbone(config, 3)
  assert ours.keys() == start.keys()
  for path in ours:
    np.testing.assert_allclose(ours[path], start[path], atol=1e-6, err_msg=path)


# Pages.


def _task(name='faces', *, probe=0.7, pixels=0.6, untrained=0.55, level=0.5, **changes):
  def interval(share):
    return wilson(share, 100)

  return TaskResult(
    **{
      'name': name,
      'description': 'Which of two. <b>Not</b> bold & not safe.',
      'licence': 'CC0',
      'modality': 'face',
      'split': 'even train, odd test',
      'classes': 2,
      'n_train': 1000,
      'n_test': 100,
      'head_accuracy': 0.65,
      'chance': level,
      'unbalanced': False,
      'probe': Probe(
        accuracy=probe, interval=interval(probe), macro_f1=0.61, strength=0.1, folds=5
      ),
      'untrained': Probe(
        accuracy=untrained, interval=interval(untrained), macro_f1=0.5, strength=0.1, folds=5
      ),
      'pixels': _baseline(pixels),
      **changes,
    }
  )


def _baseline(accuracy):
  from painformer_jax.report.baseline import Baseline

  return Baseline(accuracy=accuracy, interval=wilson(accuracy, 100), size=32, components=60)


def _results(*tasks, **changes):
  return Results(
    **{
      'title': 'demo',
      'model': 'painformer_nano',
      'image_size': 32,
      'parameters': 40_904,
      'step': 600,
      'steps': 600,
      'images': 33_600,
      'train_seconds': 400.0,
      'images_per_second': 84.0,
      'initial_weights': '',
      'devices': '1 x cpu',
      'data': data_notes.what_it_is([t.name for t in tasks]),
      'tasks': tasks,
      'embedded_images': 4560,
      'embed_seconds': 30.0,
      **changes,
    }
  )


def test_findings_name_what_is_unwelcome():
  text = '\n'.join(
    wording.findings(
      _results(
        _task('coin', probe=0.52, pixels=0.5, untrained=0.5),
        _task('good'),
        _task('upside', probe=0.2, pixels=0.1, untrained=0.1),
        _task('easy', pixels=0.9),
        _task('inborn', untrained=0.7),
      )
    )
  )
  assert re.search(r'^At chance: coin \(', text, re.M)
  assert re.search(r'^Below chance: upside \(', text, re.M)
  assert re.search(r'^Pixels do as well or better: easy \(', text, re.M)
  assert re.search(r'^Untrained does as well or better: inborn \(', text, re.M)
  assert 'good' not in text


def test_what_untrained_means_depends_on_the_start():
  scratch = wording.methods(_results(_task('good')))['untrained']
  assert 'before training' in scratch and 'random' not in scratch
  tuned = wording.methods(_results(_task('good'), initial_weights='w.pth'))['untrained']
  assert 'random values' in tuned and 'not on w.pth' in tuned
  assert 'before training' not in tuned


def test_findings_of_a_run_without_fault():
  (line,) = wording.findings(_results(_task('good')))
  assert 'above chance' in line


def test_only_the_demo_is_said_to_be_the_demo():
  assert 'No pain labels' in data_notes.what_it_is(['orl_identity', 'tapping_rest'])
  assert 'No pain labels' not in data_notes.what_it_is(['orl_identity', 'mine'])
  assert 'not an assessment of pain' in data_notes.what_it_is(['mine'])


names = st.from_regex(r'[a-z][a-z0-9_]{0,60}', fullmatch=True)


@given(
  names=st.lists(names, min_size=1, max_size=14, unique=True),
  title=names,
  split=st.text(st.characters(codec='ascii', categories=['L', 'Zs']), max_size=400),
  unbalanced=st.booleans(),
  count=st.integers(1, 10_000_000),
)
@settings(deadline=None, max_examples=50)
def test_terminal_page_fits_a_hundred_columns(names, title, split, unbalanced, count):
  results = _results(
    *(
      _task(name, split=split, unbalanced=unbalanced, n_train=count, n_test=count) for name in names
    ),
    title=title,
  )
  text = terminal.text_page(results, files={'page': 'r.html'})
  assert max(map(len, text.splitlines())) <= 100
  table = text.split('in %:\n')[1].split('\n\n')[0].splitlines()
  assert len(table) == len(names) + 1
  assert ('F1' in table[0]) == unbalanced


def test_terminal_page_says_what_was_run():
  text = terminal.text_page(_results(_task('coin', probe=0.52)), files={'page': 'r.html'})
  assert text.startswith('demo: step 600 of 600\npainformer_nano, 32 x 32 pixels, 40,904')
  assert '33,600 images: 6m40s of pure training, 84.0 images/s on 1 x cpu.' in text
  assert re.search(
    r'^coin +52\.0 +42\.3-61\.5 +65\.0 +60\.0 +55\.0 +50\.0 +100  at chance$', text, re.M
  )
  assert 'UNFINISHED' not in text


def test_unfinished_run_is_said_to_be():
  results = _results(_task(), step=200)
  assert 'UNFINISHED: 400 steps' in terminal.text_page(results, files={})
  assert 'UNFINISHED: 400 steps' in html_page(results, curves=b'', scatter=b'')


class _Page(html.parser.HTMLParser):
  """Collects what a page loads, and checks that its tags are closed in order."""

  VOID = {'meta', 'img', 'br', 'link'}

  def __init__(self, text):
    super().__init__()
    self.open, self.loads, self.text = [], [], ''
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.loads += [v for k, v in attributes if k in ('src', 'href', 'data')]
    if tag not in self.VOID:
      self.open.append(tag)

  def handle_startendtag(self, tag, attributes):
    self.handle_starttag(tag, attributes)
    self.handle_endtag(tag)

  def handle_endtag(self, tag):
    assert self.open.pop() == tag

  def handle_data(self, data):
    self.text += data


def _png(colour):
  file = io.BytesIO()
  Image.new('RGB', (4, 3), colour).save(file, 'png')
  return file.getvalue()


def test_html_page_holds_all_it_needs():
  curves, scatter = _png('red'), _png('blue')
  text = html_page(
    _results(_task('coin', probe=0.52), _task('<x>')), curves=curves, scatter=scatter
  )
  page = _Page(text)
  assert page.open == []
  prefix = 'data:image/png;base64,'
  assert [base64.b64decode(v.removeprefix(prefix)) for v in page.loads] == [curves, scatter]
  assert not re.search(r'https?://|@import|url\(|<script', text)
  assert 'Which of two. <b>Not</b> bold & not safe.' in page.text  # As text, escaped.
  assert 'at chance' in page.text and '42.3–61.5' in page.text
  assert '<x>' in page.text


def test_record_of_a_task_is_plain_json():
  record = _task(unbalanced=True).record()
  assert json.loads(json.dumps(record)) == record
  assert record['probe_verdict'] == 'above chance'
  assert record['probe_interval'][0] < record['probe_accuracy'] < record['probe_interval'][1]
  assert {f.name for f in dataclasses.fields(TaskResult)} >= {'n_train', 'n_test'}
