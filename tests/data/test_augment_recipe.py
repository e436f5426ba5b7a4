import pickle

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_augment_ops import photo

from painformer_jax.core.errors import InputError
from painformer_jax.data import augment
from painformer_jax.data.augment import ops, recipe

EXAMPLE = (
  'random_resized_crop(0.6)|flip@0.5|augmix@0-0.5|trivial_augment@0-0.5|'
  'noise(8)@0-0.3|mask_blocks(3,32)@0-0.5|centre_crop(200)'
)


def steps(text):
  return [(s.name, s.values, s.low, s.high) for s in recipe.parse(text).steps]


def test_an_example():
  assert steps(EXAMPLE) == [
    ('random_resized_crop', (0.6, 4 / 3), 1, 1),
    ('flip', (), 0.5, 0.5),
    ('augmix', (3, 3, 0, 1.0), 0, 0.5),
    ('trivial_augment', (), 0, 0.5),
    ('noise', (8, 8), 0, 0.3),
    ('mask_blocks', (3, 32), 0, 0.5),
    ('centre_crop', (200,), 1, 1),
  ]


@pytest.mark.parametrize(
  'text,expected',
  [
    (
      ' flip @ 0.5 | noise( 1 , 2.5 ) @ .1 - .25 ',
      [('flip', (), 0.5, 0.5), ('noise', (1, 2.5), 0.1, 0.25)],
    ),
    ('augmix(5,2)', [('augmix', (5, 2, 0, 1.0), 1, 1)]),
    ('augmix()', [('augmix', (3, 3, 0, 1.0), 1, 1)]),
    ('randaugment(1, 30)@1', [('randaugment', (1, 30), 1, 1)]),
    ('rotate(-20,-10.)@0', [('rotate', (-20, -10), 0, 0)]),
    ('random_resized_crop(1,1)', [('random_resized_crop', (1, 1), 1, 1)]),
    ('identity', [('identity', (), 1, 1)]),
  ],
)
def test_ways_to_write_it(text, expected):
  assert steps(text) == expected


@pytest.mark.parametrize(
  'text,part,reason',
  [
    ('flip|', "''", 'is not of the form name, name(1,2), name@0.5 or name@0-0.5'),
    ('|flip', "''", 'is not of the form'),
    ('flip,noise(8)', "'flip,noise(8)'", 'is not of the form'),
    ('flip@', "'flip@'", 'is not of the form'),
    ('flip@0.5-', "'flip@0.5-'", 'is not of the form'),
    ('flip@-0.5', "'flip@-0.5'", 'is not of the form'),
    ('flip|noise(8', "'noise(8'", 'is not of the form'),
    ('noise(8)(9)', "'noise(8)(9)'", 'is not of the form'),
    ('flip@nan', "'flip@nan'", 'is not of the form'),
    ('flip|flop@0.5', "'flop@0.5'", 'is no operation'),
    ('paper|flip', "'paper'", 'is no operation'),
    ('flip@1.5', "'flip@1.5'", 'has a probability that is not in [0, 1]'),
    ('flip@0.5-0.2', "'flip@0.5-0.2'", 'has a probability that is not in [0, 1], or a range'),
    ('flip@0-2', "'flip@0-2'", 'has a probability'),
    ('noise(8,2)', "'noise(8,2)'", 'has a range upside down'),
    ('flip(1)', "'flip(1)'", 'takes no numbers'),
    ('noise@0.5', "'noise@0.5'", 'takes (sigma or low, high)'),
    ('noise(1,2,3)', "'noise(1,2,3)'", 'takes (sigma or low, high)'),
    ('mask_blocks(3)', "'mask_blocks(3)'", 'takes (count, pixels of 224)'),
    ('augmix(1,2,3,4,5)', "'augmix(1,2,3,4,5)'", 'takes (severity, width, depth, alpha)'),
    ('noise(x)', "'noise(x)'", "has 'x' for sigma, which is no number"),
    ('noise(1e3)', "'noise(1e3)'", "has '1e3' for sigma, which is no number"),
    ('noise(1,)', "'noise(1,)'", "has '' for sigma, which is no number"),
    ('noise(inf)', "'noise(inf)'", "has 'inf' for sigma, which is no number"),
    ('noise(-1)', "'noise(-1)'", 'needs a number from 0 to 255 for sigma'),
    ('mask_blocks(2.5,32)', "'mask_blocks(2.5,32)'", 'needs a whole number from 1 to 1000'),
    ('mask_blocks(0,32)', "'mask_blocks(0,32)'", 'needs a whole number from 1 to 1000'),
    ('mask_blocks(3,225)', "'mask_blocks(3,225)'", 'needs a number from 1 to 224'),
    ('centre_crop(0)', "'centre_crop(0)'", 'needs a number from 1 to 224'),
    ('posterize(0)', "'posterize(0)'", 'needs a whole number from 1 to 8 for bits'),
    ('augmix(11)', "'augmix(11)'", 'needs a whole number from 1 to 10 for severity'),
    ('augmix(3,3,0,0)', "'augmix(3,3,0,0)'", 'needs a number from 0.01 to 100 for alpha'),
    ('random_resized_crop(0)', "'random_resized_crop(0)'", 'needs a number from 0.01 to 1'),
    ('flip\n', None, None),
    ('fl\nip|x', "'fl\\nip'", 'is not of the form'),
  ],
)
def test_what_cannot_be_read_is_shown(text, part, reason):
  if part is None:
    assert steps(text) == [('flip', (), 1, 1)]
    return
  with pytest.raises(InputError) as error:
    augment.policy(text)
  message = str(error.value)
  assert len(message.splitlines()) == 1
  assert message.startswith(f'augmentation {text!r}: {part} {reason}'), message
  assert (
    message.endswith('trivial_augment)') and '(operations: augmix, autocontrast, blur, ' in message
  )


def test_a_single_unknown_word_may_be_either():
  with pytest.raises(InputError) as error:
    augment.policy('magic')
  assert str(error.value).startswith(
    "no augmentation 'magic' (known: face, none, signal, spectrogram, biosignal, paper, "
    'thermal, augmix, '
  )
  with pytest.raises(InputError, match=r"'faces'; did you mean face\?"):
    augment.policy('faces')
  with pytest.raises(InputError, match=r"'trivialaugment'; did you mean trivial_augment\?"):
    augment.policy('trivialaugment')


@settings(max_examples=300, deadline=None)
@given(st.text('flipnose_(),|@-. 0123456789', max_size=40))
def test_any_text_is_a_recipe_or_one_line(text):
  try:
    policy = augment.policy(text)
  except InputError as error:
    assert len(str(error).splitlines()) == 1
  else:
    image = policy(np.zeros((8, 8, 3), np.uint8), np.random.default_rng(0))
    assert image.shape == (8, 8, 3)


def test_recipes_can_be_sent_to_other_processes():
  policy = augment.policy(EXAMPLE, modality='face')
  again = pickle.loads(pickle.dumps(policy))
  assert again == policy
  for seed in range(5):
    np.testing.assert_array_equal(
      again(photo(), np.random.default_rng(seed)), policy(photo(), np.random.default_rng(seed))
    )


# Probabilities.


@pytest.mark.parametrize(
  'text,expected',
  [
    ('invert', 1),
    ('invert@1', 1),
    ('invert@0', 0),
    ('invert@0.3', 0.3),
    ('invert@0-0.5', 0.25),
    ('invert@0.5-1', 0.75),
  ],
)
def test_probabilities(text, expected):
  image, policy = np.zeros((4, 4, 3), np.uint8), augment.policy(text)
  rng, draws = np.random.default_rng(0), 4000
  share = sum(policy(image, rng)[0, 0, 0] == 255 for _ in range(draws)) / draws
  assert abs(share - expected) <= 4 * (expected * (1 - expected) / draws) ** 0.5


def test_each_operation_has_a_draw_of_its_own():
  """Three at a half: all eight outcomes, about evenly."""
  image, rng = np.full((8, 8, 3), 100, np.uint8), np.random.default_rng(0)
  image[:, :4] = 30
  policy = augment.policy('flip@0.5|invert@0.5|posterize(3)@0.5')
  found = [policy(image, rng).tobytes() for _ in range(1600)]
  counts = [found.count(outcome) for outcome in set(found)]
  assert len(counts) == 8 and min(counts) > 140


# Operations that only recipes have.


def test_strengths_are_drawn_between_two_numbers():
  image = np.full((4, 4, 3), 100, np.uint8)
  policy, rng = augment.policy('brightness(0.5,1.5)'), np.random.default_rng(0)
  found = np.array([policy(image, rng)[0, 0, 0] for _ in range(2000)])
  assert found.min() < 55 and found.max() > 145 and abs(found.mean() - 99.5) < 3
  assert {augment.policy('posterize(2,4)')(photo(), rng).tobytes() for _ in range(60)} == {
    ops.posterize(photo(), bits).tobytes() for bits in (2, 3, 4)
  }


@pytest.mark.parametrize(
  'text,expected',
  [
    ('flip', ops.flip),
    ('rotate(30)', lambda image: ops.rotate(image, 30)),
    ('shear_x(-0.5)', lambda image: ops.shear_x(image, -0.5)),
    ('colour(0.25)', lambda image: ops.colour(image, 0.25)),
    ('solarize(128)', lambda image: ops.solarize(image, 128)),
    ('equalize', ops.equalize),
    ('identity', lambda image: image),
    ('translate_y(-20)', lambda image: ops.translate_y(image, -20)),
    ('blur(2)', lambda image: ops.blur(image, 2.0)),
    ('centre_crop(224)', lambda image: image),
    ('random_resized_crop(1,1)', lambda image: image),
  ],
)
def test_operations_of_the_table(text, expected):
  image = photo()
  np.testing.assert_array_equal(
    augment.policy(text)(image, np.random.default_rng(0)), expected(image)
  )


def test_centre_crop():
  """The middle 200 of 224 pixels, and that share of any other size."""
  found = augment.policy('centre_crop(200)')(photo(), np.random.default_rng(0))
  np.testing.assert_array_equal(found, cv2.resize(photo()[12:212, 12:212], (224, 224)))
  half = cv2.resize(photo(), (112, 112))
  found = augment.policy('centre_crop(200)')(half, np.random.default_rng(0))
  np.testing.assert_array_equal(found, cv2.resize(half[6:106, 6:106], (112, 112)))


def test_random_resized_crop(monkeypatch):
  boxes = []
  monkeypatch.setattr(ops, 'crop_resized', lambda image, **box: (boxes.append(box), image)[1])
  policy, rng = augment.policy('random_resized_crop(0.25,1.5)'), np.random.default_rng(0)
  for _ in range(3000):
    policy(photo(), rng)
  height, width, top, left = (
    np.array([box[key] for box in boxes]) for key in ('height', 'width', 'top', 'left')
  )
  for start, side in ((top, height), (left, width)):
    assert start.min() == 0 and (start + side <= 224).all() and (start + side).max() == 224
  area, aspect = height * width / 224**2, width / height
  assert 0.24 < area.min() < 0.27 and area.max() > 0.97
  assert 1 / 1.52 < aspect.min() < 0.68 and 1.48 < aspect.max() < 1.52
  assert abs(np.log(aspect).mean()) < 0.02
  assert abs(np.median(area) - 0.625) < 0.03


@pytest.mark.parametrize('side', [112, 224])
@pytest.mark.parametrize('count,block', [(3, 32), (20, 32), (1, 224)])
def test_mask_blocks(monkeypatch, side, count, block):
  """Blocks of the mean colour anywhere within the image, in proportion to its size."""
  boxes, mask_boxes = [], ops.mask_boxes
  monkeypatch.setattr(
    ops,
    'mask_boxes',
    lambda image, corners, **size: (
      boxes.append((corners, size)),
      mask_boxes(image, corners, **size),
    )[1],
  )
  image = np.random.default_rng(0).integers(120, 136, (side, side, 3), np.uint8)
  policy, size = augment.policy(f'mask_blocks({count},{block})'), block * side // 224
  for seed in range(200):
    found = policy(image, np.random.default_rng(seed))
    corners, sizes = boxes[-1]
    assert len(corners) == count and sizes == {'height': size, 'width': size}
    expected = image.copy()
    for top, left in corners:
      expected[top : top + size, left : left + size] = np.round(image.mean((0, 1)))
    np.testing.assert_array_equal(found, expected)
  places = np.concatenate([corners for corners, _ in boxes])
  assert places.min() == 0 and places.max() == side - size
  assert np.abs(places.mean(0) - (side - size) / 2).max() <= 0.05 * side


def test_shift_scale(monkeypatch):
  found = []
  monkeypatch.setattr(ops, 'shift_scale', lambda image, **values: (found.append(values), image)[1])
  policy, rng = augment.policy('shift_scale(0.05,0.1)'), np.random.default_rng(0)
  for _ in range(500):
    policy(photo(), rng)
  shift, scale = (np.array([f[key] for f in found]) for key in ('shift', 'scale_x'))
  assert -0.05 <= shift.min() < -0.045 and 0.045 < shift.max() <= 0.05
  assert 0.9 <= scale.min() < 0.91 and 1.09 < scale.max() <= 1.1
  assert {f['scale_y'] for f in found} == {1}


def test_noise_and_blur_strengths():
  grey = np.full((224, 224, 3), 128, np.uint8)
  rng = np.random.default_rng(0)
  assert abs(augment.policy('noise(8)')(grey, rng).std() - 8) < 0.3
  spread = [augment.policy('noise(2,10)')(grey, rng).std() for _ in range(40)]
  assert 1.8 < min(spread) < 3.5 and 8.5 < max(spread) < 10.2
  # A blur of 2 pixels at 224 is one of 1 pixel at 112.
  half = cv2.resize(photo(), (112, 112))
  np.testing.assert_array_equal(augment.policy('blur(2)')(half, rng), ops.blur(half, 1.0))
