import collections

import numpy as np
import pytest
from test_augment_ops import photo, random_image

from painformer_jax.data.augment import automatic, modalities, ops


def recorded(monkeypatch, policy, draws, image=None):
  """What a policy applies, as a list of (name, value) for each draw."""
  calls, apply = [], ops.apply

  def record(name, image, value, **options):
    calls[-1].append((name, value))
    return apply(name, image, value, **options)

  monkeypatch.setattr(ops, 'apply', record)
  image = random_image(0) if image is None else image
  for seed in range(draws):
    calls.append([])
    policy(image, np.random.default_rng(seed))
  monkeypatch.undo()
  return calls


def levels(start, stop, count=31, signed=False, base=0.0):
  values = np.linspace(start, stop, count)
  return base + np.concatenate([values, -values] if signed else [values])


def bits(most, steps, bins=31):
  """As torchvision counts them: down from `most` by so many in all."""
  return most - np.round(np.arange(bins) / ((bins - 1) / steps))


# torchvision's TrivialAugmentWide for images of 224 pixels.
TRIVIAL = {
  'identity': [0],
  'autocontrast': [0],
  'equalize': [0],
  'shear_x': levels(0, 0.99, signed=True),
  'shear_y': levels(0, 0.99, signed=True),
  'translate_x': levels(0, 32, signed=True),
  'translate_y': levels(0, 32, signed=True),
  'rotate': levels(0, 135, signed=True),
  **dict.fromkeys(
    ('brightness', 'colour', 'contrast', 'sharpness'), levels(0, 0.99, signed=True, base=1)
  ),
  'posterize': bits(8, 6),
  'solarize': levels(255, 0),
}


def test_trivial_augment_draws_one_operation_at_any_level(monkeypatch):
  draws = 12_000
  calls = recorded(
    monkeypatch, automatic.TrivialAugmentWide(), draws, np.zeros((4, 4, 3), np.uint8)
  )
  assert all(len(call) == 1 for call in calls)
  found = collections.defaultdict(collections.Counter)
  for [(name, value)] in calls:
    found[name][round(float(value), 6)] += 1
  assert found.keys() == TRIVIAL.keys()
  for name, counts in found.items():
    assert set(counts) == set(np.round(TRIVIAL[name], 6)), name
    # Evenly: four standard deviations of a count.
    share = draws / len(TRIVIAL)
    assert abs(counts.total() - share) < 4 * share**0.5
    if len(TRIVIAL[name]) > 1:
      above = sum(c for value, c in counts.items() if value > np.median(TRIVIAL[name]))
      assert 0.4 < above / counts.total() < 0.6 or name == 'posterize'


@pytest.mark.parametrize(
  'space,expected',
  [
    (automatic.TRIVIAL_WIDE, bits(8, 6)),
    (automatic.RAND, bits(8, 4)),
    (automatic.AUGMIX, bits(4, 4, bins=10)),
  ],
)
def test_bits_are_those_of_torchvision(space, expected):
  steps = len(expected) - 1
  found = [space.levels['posterize'].value(n / steps, False) for n in range(steps + 1)]
  assert found == expected.tolist()


@pytest.mark.parametrize('n,magnitude', [(1, 30), (2, 9), (5, 0)])
def test_randaugment_draws_n_operations_at_one_level(monkeypatch, n, magnitude):
  calls = recorded(monkeypatch, automatic.RandAugment(n=n, magnitude=magnitude), 400)
  assert {len(call) for call in calls} == {n}
  share = magnitude / 30
  strongest = {
    'shear_x': 0.3,
    'shear_y': 0.3,
    'translate_x': 150 / 331 * 224,
    'rotate': 30.0,
    'translate_y': 150 / 331 * 224,
  }
  for name, value in (step for call in calls for step in call):
    if name in strongest:
      assert abs(value) == pytest.approx(share * strongest[name])
    elif name in ('brightness', 'colour', 'contrast', 'sharpness'):
      assert abs(value - 1) == pytest.approx(0.9 * share)
    elif name == 'posterize':
      assert value == 8 - round(4 * share)
    elif name == 'solarize':
      assert value == pytest.approx(255 * (1 - share))
    else:
      assert name in ('identity', 'autocontrast', 'equalize') and value == 0
  assert {name for call in calls for name, _ in call} == automatic.RAND.levels.keys()


def test_strength_zero_leaves_nearly_all_alone():
  """RandAugment of magnitude 0 changes by equalize, autocontrast and solarize at 255."""
  image, same = photo(), 0
  for seed in range(60):
    changed = automatic.RandAugment(n=1, magnitude=0)(image, np.random.default_rng(seed))
    same += np.array_equal(changed, image)
  assert same >= 40


@pytest.mark.parametrize('severity,width,depth', [(3, 3, 0), (1, 1, 2), (10, 5, 1)])
def test_augmix_is_a_mixture_of_chains(monkeypatch, severity, width, depth):
  policy = automatic.AugMix(severity=severity, width=width, depth=depth)
  calls = recorded(monkeypatch, policy, 150)
  lengths = {len(call) for call in calls}
  assert lengths == {width * depth} if depth else lengths == set(range(width, 3 * width + 1))
  strongest = {'shear_x': 0.3, 'rotate': 30, 'translate_x': 224 / 3}
  for name, value in (step for call in calls for step in call):
    if name in strongest:
      assert abs(value) <= strongest[name] * (severity - 1) / 9 + 1e-9
  assert 'identity' not in {name for call in calls for name, _ in call}


@pytest.mark.parametrize('alpha', [0.2, 1.0, 8.0])
def test_augmix_against_its_statement(monkeypatch, alpha):
  """Shares from Dirichlet and Beta, chains mixed in exact arithmetic."""
  image = photo()
  for seed in range(12):
    policy = automatic.AugMix(severity=5, width=4, depth=0, alpha=alpha)
    [steps] = recorded(
      monkeypatch, lambda image, _: policy(image, np.random.default_rng(seed)), 1, image
    )
    rng = np.random.default_rng(seed)
    shares, changed = rng.dirichlet([alpha] * 4), rng.beta(alpha, alpha)
    exact, steps = (1 - changed) * image.astype(float), iter(steps)
    for share in shares:
      form = image
      for _ in range(int(1 + 3 * rng.random())):
        rng.random(3)
        form = _apply(form, next(steps))
      exact += changed * share * form
    assert next(steps, None) is None
    found = policy(image, np.random.default_rng(seed))
    # Rounded to whole levels at each of four mixtures.
    assert np.abs(found - exact).max() < 2 and np.abs(found - exact).mean() < 0.6


def _apply(image, step):
  name, value = step
  return ops.apply(name, image, value, fill=0)


def test_a_single_operation_is_left_to_a_narrow_modality():
  only = modalities.Modality(ops=('brightness',))
  changed = {
    automatic.TrivialAugmentWide(modality=only)(photo(), np.random.default_rng(seed)).mean().round()
    for seed in range(40)
  }
  assert len(changed) > 10


def test_the_paper_s_strengths_scale_with_the_image():
  """A third of the width moves a third of the width, at any size."""
  for side in (56, 224, 448):
    image = np.zeros((side, side, 3), np.uint8)
    image[:, 0] = 255
    moved = ops.apply('translate_x', image, 224 / 4)
    assert np.flatnonzero(moved[0, :, 0]) == [side // 4]
