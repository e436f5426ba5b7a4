import cv2
import numpy as np
import pytest
from scipy.special import ndtri
from test_augment_ops import photo, random_image

from painformer_jax.core.errors import InputError
from painformer_jax.data import augment
from painformer_jax.data.augment import modalities, recipe

SIGNALS = ('waveform', 'fnirs', 'spectrogram', 'ecg', 'eeg', 'emg', 'gsr')
RECIPES = [n for n in augment.POLICIES if isinstance(augment.POLICIES[n], recipe.Recipe)]


# What runs before recipes were trained with, written out: the same draws in the same
# order, and the same arithmetic.


def stated_face(image, rng):
  size = image.shape[0]
  area, aspect = rng.uniform(0.75, 1.0), rng.uniform(0.9, 1.1)
  height = min(size, round(size * (area / aspect) ** 0.5))
  width = min(size, round(size * (area * aspect) ** 0.5))
  top, left = int(rng.integers(size - height + 1)), int(rng.integers(size - width + 1))
  image = cv2.resize(
    image[top : top + height, left : left + width], (size, size), interpolation=cv2.INTER_LINEAR
  )
  if rng.random() < 0.5:
    image = image[:, ::-1]
  image = stated_brightness(image, rng.uniform(0.8, 1.2))
  factor, mean = rng.uniform(0.8, 1.2), cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
  table = np.clip(np.round(mean + factor * (np.arange(256) - mean)), 0, 255)
  return table.astype(np.uint8)[image]


def stated_brightness(image, factor):
  return cv2.convertScaleAbs(np.ascontiguousarray(image), alpha=factor)


def stated_shift(image, shift, scale_x, scale_y):
  size = image.shape[0]
  matrix = np.array(
    [
      [scale_x, 0, (size - 1) / 2 * (1 - scale_x) + shift * size],
      [0, scale_y, (size - 1) / 2 * (1 - scale_y)],
    ]
  )
  return cv2.warpAffine(
    image, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
  )


def stated_signal(image, rng):
  image = stated_shift(
    image, rng.uniform(-0.05, 0.05), rng.uniform(0.9, 1.1), rng.uniform(0.9, 1.1)
  )
  chance = rng.random()
  if chance < 0.25:
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.0))
  if chance < 0.5:
    sigma = rng.uniform(1.0, 6.0)
    levels = np.round(sigma * ndtri((np.arange(256) + 0.5) / 256)).astype(int)
    added = levels[rng.integers(0, 256, image.shape[:2], np.uint8)]
    return np.clip(image + added[..., None], 0, 255).astype(np.uint8)
  return image


def stated_spectrogram(image, rng):
  size = image.shape[0]
  image = stated_shift(image, rng.uniform(-0.1, 0.1), rng.uniform(0.9, 1.1), 1.0)
  image = stated_brightness(image, rng.uniform(0.8, 1.2))
  band, span = rng.integers(0, size // 4 + 1, 2)
  for axis, length in ((0, band), (1, span)):
    start, mean = int(rng.integers(size - length + 1)), np.round(cv2.mean(image)[:3])
    image = image.copy()
    np.moveaxis(image, axis, 0)[start : start + length] = mean
  return image


STATED = {
  'none': lambda image, rng: image,
  'face': stated_face,
  'signal': stated_signal,
  'spectrogram': stated_spectrogram,
}


@pytest.mark.parametrize('name', STATED)
@pytest.mark.parametrize('size', [40, 96, 224])
def test_policies_in_code_are_what_they_were(name, size):
  image = cv2.resize(photo(), (size, size), interpolation=cv2.INTER_AREA)
  for seed in range(25):
    ours, theirs = np.random.default_rng(seed), np.random.default_rng(seed)
    np.testing.assert_array_equal(augment.policy(name)(image, ours), STATED[name](image, theirs))
    assert ours.bit_generator.state == theirs.bit_generator.state


def test_policies_in_code_are_all_stated():
  assert set(STATED) == set(augment.POLICIES) - set(RECIPES)


# All policies.


MANY = [
  *augment.POLICIES,
  *(
    'augmix',
    'trivial_augment',
    'randaugment(3)',
    'flip@0-1|rotate(-20,20)@0.5|noise(0,9)',
    'random_resized_crop(0.2)|posterize(1,8)|mask_blocks(20,32)@0-1|equalize@0.5',
  ),
]


@pytest.mark.parametrize(
  'spec,shape',
  [
    *((spec, (112, 112)) for spec in MANY),
    # The policies in code are for squares.
    *((spec, (37, 60)) for spec in MANY if spec not in STATED),
  ],
)
def test_images_are_of_the_same_kind_and_come_from_the_generator_alone(spec, shape):
  image = cv2.resize(photo(), shape[::-1], interpolation=cv2.INTER_AREA)
  before, policy, results = image.copy(), augment.policy(spec), set()
  for seed in range(40):
    changed = policy(image, np.random.default_rng(seed))
    assert changed.shape == image.shape and changed.dtype == np.uint8
    np.testing.assert_array_equal(changed, policy(image, np.random.default_rng(seed)))
    results.add(changed.tobytes())
  np.testing.assert_array_equal(image, before, 'the input was changed')
  assert (results == {image.tobytes()}) if spec == 'none' else len(results) > 20


@pytest.mark.parametrize('modality', ['image', 'thermal', 'eeg'])
@pytest.mark.parametrize('spec', MANY)
def test_draws_do_not_depend_on_the_image(spec, modality):
  """The generator is left in the same state whatever it was that was changed."""
  try:
    policy = augment.policy(spec, modality=modality)
  except InputError:
    assert modality != 'image'
    return
  images = [
    photo(),
    np.zeros_like(photo()),
    np.full_like(photo(), 255),
    np.random.default_rng(0).integers(0, 256, (224, 224, 3), np.uint8),
  ]
  for seed in range(10):
    states = []
    for image in images:
      rng = np.random.default_rng(seed)
      policy(image, rng)
      states.append(rng.bit_generator.state)
    assert all(state == states[0] for state in states)


# Frames of a clip, each with a generator of the same seed.


def on_clip(policy, frames, seed):
  return np.stack([policy(frame, np.random.default_rng(seed)) for frame in frames])


@pytest.mark.parametrize('spec', MANY)
def test_frames_of_a_clip_are_changed_alike(spec):
  policy = augment.policy(spec)
  frames = np.stack([photo()] * 3)
  changed = {}
  for seed in range(6):
    clip = on_clip(policy, frames, seed)
    assert clip.shape == frames.shape and clip.dtype == np.uint8
    np.testing.assert_array_equal(clip[0], clip[1])
    np.testing.assert_array_equal(clip[0], clip[2])
    np.testing.assert_array_equal(clip[0], policy(photo(), np.random.default_rng(seed)))
    changed[seed] = clip.tobytes()
  assert spec == 'none' or len(set(changed.values())) > 2, 'seeds differ'


def test_frames_move_alike_whatever_they_show():
  """A bright spot on frames of any brightness goes to the same place."""
  spec = (
    'random_resized_crop(0.5)|flip@0.5|rotate(-40,40)@0-1|translate_x(-30,30)|shear_y(-0.3,0.3)@0-1'
  )
  policy = augment.policy(spec)
  rng = np.random.default_rng(0)
  frames = np.stack([rng.integers(0, n, (96, 96, 3), np.uint8) for n in (2, 60, 120, 200)])
  frames[:, 30:50, 50:70] = 255
  for seed in range(20):
    spots = on_clip(policy, frames, seed) == 255
    assert spots[0].any()
    # Interpolated edges may reach 255 or not, by what is beside them.
    for spot in spots[1:]:
      assert (spot != spots[0]).mean() < 0.01
  mirrored = on_clip(augment.policy('flip'), frames, 0)
  np.testing.assert_array_equal(mirrored, frames[:, :, ::-1])


# Modalities.


@pytest.mark.parametrize('modality', SIGNALS)
@pytest.mark.parametrize(
  'spec',
  [
    'flip',
    'flip@0-0.5',
    'noise(3)|flip@0.1',
    'rotate(-5,5)',
    'shear_x(0.1)',
    'shear_y(0.1)',
    'invert',
    'solarize(128)',
    'face',
    'thermal',
  ],
)
def test_signals_are_not_mirrored_tilted_or_inverted(modality, spec):
  with pytest.raises(InputError, match=f"is not for images of modality '{modality}'"):
    augment.policy(spec, modality=modality)


@pytest.mark.parametrize('modality', ['thermal', 'depth'])
@pytest.mark.parametrize(
  'spec',
  ['colour(0.5)', 'solarize(100)', 'posterize(4)', 'equalize', 'invert@0-0.1', 'autocontrast'],
)
def test_pseudo_colours_keep_their_meaning(modality, spec):
  with pytest.raises(InputError, match=f"'{modality}'"):
    augment.policy(spec, modality=modality)
  augment.policy('flip@0.5|rotate(-9,9)|brightness(0.9,1.1)', modality=modality)


def test_frequencies_stay_and_amplitudes_may_move():
  augment.policy('translate_y(-9,9)', modality='waveform')
  for modality in ('spectrogram', 'eeg'):
    with pytest.raises(InputError, match='translate_y'):
      augment.policy('translate_y(-9,9)', modality=modality)


@pytest.mark.parametrize('modality', ['image', 'face', 'noise', 'something of my own'])
def test_other_modalities_are_general_images(modality):
  for spec in ('face', 'flip|invert|rotate(90)|colour(2)', 'thermal', 'paper'):
    assert augment.policy(spec, modality=modality)


def applied(monkeypatch, spec, modality, *, default=False):
  """Names of the operations that a policy applies in 300 draws."""
  names = set()
  apply = modalities.ops.apply
  monkeypatch.setattr(
    modalities.ops,
    'apply',
    lambda name, *args, **kwargs: (names.add(name), apply(name, *args, **kwargs))[1],
  )
  policy = augment.policy(spec) if default else augment.policy(spec, modality=modality)
  image = random_image(3)
  for seed in range(300):
    policy(image, np.random.default_rng(seed))
  return names


@pytest.mark.parametrize('spec', ['trivial_augment', 'randaugment', 'augmix', 'paper'])
@pytest.mark.parametrize('modality', ['thermal', 'depth', *SIGNALS, 'face'])
def test_automatic_policies_choose_from_what_suits(monkeypatch, spec, modality):
  everything = set(modalities.ops.NAMES) - {'invert'}
  suits = set(modalities.MODALITIES.get(modality, modalities.GENERAL).ops) & everything
  assert suits == everything if modality == 'face' else suits < everything
  names = applied(monkeypatch, spec, modality)
  assert names == suits - ({'identity'} if spec == 'augmix' else set())


@pytest.mark.parametrize('spec,modality', [('thermal', 'thermal'), ('biosignal', 'eeg')])
def test_policies_for_a_modality_keep_its_rules_anywhere(monkeypatch, spec, modality):
  names = applied(monkeypatch, spec, modality, default=True)
  assert names == set(modalities.MODALITIES[modality].ops)


def test_white_paper_stays_white_at_the_edges():
  """What comes from outside a drawn signal is what was at its edge; black elsewhere."""
  white = np.full((64, 64, 3), 255, np.uint8)
  rng = np.random.default_rng(0)
  assert augment.policy('translate_x(90)', modality='waveform')(white, rng).min() == 255
  assert augment.policy('translate_x(90)')(white, rng).min() == 0
