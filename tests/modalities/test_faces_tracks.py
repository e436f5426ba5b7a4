"""Boxes to one track a person, and whose face is where in each frame; no detector."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from painformer_jax.modalities import faces
from painformer_jax.modalities.faces import FaceBox, FaceConfig, following
from painformer_jax.modalities.faces.scenes import Scenes
from painformer_jax.modalities.video import Frame


def box(x, y=50.0, side=20.0):
  return FaceBox(left=x - side / 2, top=y - side / 2, width=side, height=side)


def picture(kind: int) -> np.ndarray:
  """Pictures of different kinds look different, those of one kind are the same."""
  rng = np.random.default_rng(kind)
  return np.kron(rng.integers(0, 256, (5, 10, 3), np.uint8), np.ones((20, 20, 1), np.uint8))


def track(found, *, rate=10.0, scenes='', **config):
  """Follows the boxes found in each frame.

  Args:
    found: a list of boxes, one box or None a frame.
    rate: frames a second.
    scenes: a letter a frame; other letters are other pictures.
  """
  asked = itertools.count()

  def detect(image):
    boxes = found[next(asked) * config.get('detect_every', 1)]
    return [] if boxes is None else boxes if isinstance(boxes, list) else [boxes]

  def clip():
    for k in range(len(found)):
      image = picture(ord(scenes[k])) if scenes else np.zeros((100, 200, 3), np.uint8)
      yield Frame(number=k, time=k / rate, image=image)

  return list(faces.follow(clip, FaceConfig(**config), detect=detect))


def states(tracked):
  return ''.join(face.state[0] for face in tracked)


# --- one person --------------------------------------------------------------


def test_between_two_detections_the_box_moves_straight():
  found = track([box(20), None, None, None, FaceBox(left=18, top=56, width=28, height=36)])
  assert states(found) == 'dtttd'
  for face, wanted in zip(found[1:4], ((12, 44, 22, 24), (14, 48, 24, 28), (16, 52, 26, 32))):
    assert dataclasses.astuple(face.box) == pytest.approx(wanted)
  assert [face.frame.number for face in found] == [0, 1, 2, 3, 4]


def test_before_the_first_and_after_the_last_the_box_is_held():
  found = track([None, None, None, box(30), None, None, None], max_gap=0.25)
  assert states(found) == 'nhhdhhn'
  assert all(face.box == box(30) for face in found[1:6])
  assert all(face.box is None and face.person == 0 for face in found if face.state == 'none')


def test_over_a_longer_gap_nothing_is_tracked():
  # 0.35 s at 10 frames a second: three frames from either detection.
  found = track([box(20), *[None] * 10, box(24), None, box(24)], max_gap=0.35)
  assert states(found) == 'dhhhnnnnhhhdtd'
  assert [face.box for face in found[1:4]] == [box(20)] * 3
  assert [face.box for face in found[8:11]] == [box(24)] * 3
  # Where both detections are near, the earlier one holds a frame.
  found = track([box(20), *[None] * 4, box(24)], max_gap=0.35)
  assert states(found) == 'dhhhhd' and [f.box for f in found[1:5]] == [box(20)] * 3 + [box(24)]


def test_no_gap_is_bridged_where_none_may_be():
  assert states(track([box(20), None, box(20)], max_gap=0.0)) == 'dnd'


def test_faces_may_be_looked_for_in_some_frames_alone():
  found = track([box(9.0 * k) for k in range(1, 8)], detect_every=3)
  assert states(found) == 'dttdttd'
  for k, face in enumerate(found, 1):
    assert face.box.centre[0] == pytest.approx(9 * k)


def test_no_face_at_all():
  assert states(track([None] * 30, max_gap=0.5)) == 'n' * 30
  assert track([]) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.booleans(), max_size=40), st.integers(0, 8), st.sampled_from([5.0, 25, 60]))
def test_every_frame_comes_once_in_order_with_the_state_its_distance_says(seen, reach, rate):
  found = track([box(50) if s else None for s in seen], rate=rate, max_gap=(reach + 0.5) / rate)
  assert [face.frame.number for face in found] == list(range(len(seen)))
  hits = [k for k, s in enumerate(seen) if s]
  for k, face in enumerate(found):
    before = max((hit for hit in hits if hit <= k), default=-math.inf)
    after = min((hit for hit in hits if hit >= k), default=math.inf)
    near = min(k - before, after - k) <= reach
    wanted = 'tracked' if after - before <= reach else 'held' if near else 'none'
    assert face.state == ('detected' if seen[k] else wanted)
    assert (face.box is None) == (face.state == 'none')


def test_frames_without_times_are_a_twenty_fifth_apart():
  def clip():
    for k in range(40):
      yield Frame(number=k, time=math.nan, image=np.full((9, 9, 3), k, np.uint8))

  found = faces.follow(
    clip, FaceConfig(max_gap=0.4), detect=lambda image: [box(4)] if image[0, 0, 0] == 0 else []
  )
  assert states(found) == 'd' + 'h' * 10 + 'n' * 29


def test_smoothing_steadies_and_begins_anew_after_a_gap():
  found = track([box(20), box(30), box(30)], smoothing=0.1)
  step = 1 - math.exp(-1)
  assert found[1].box.centre[0] == pytest.approx(20 + 10 * step)
  assert found[2].box.centre[0] == pytest.approx(30 - 10 * (1 - step) ** 2)
  again = track([box(20), None, None, None, box(30)], smoothing=0.1, max_gap=0.15)
  assert states(again) == 'dhnhd' and again[3].box == again[4].box == box(30)


@pytest.mark.parametrize('kept', [0, 1 << 20])
def test_frames_are_kept_only_where_they_are_few(monkeypatch, kept):
  monkeypatch.setattr(following, '_KEPT', kept)
  opened = []

  def clip():
    opened.append(0)
    for k in range(4):
      opened[-1] += 1
      yield Frame(number=k, time=k / 10, image=np.zeros((4, 4, 3), np.uint8))

  found = list(faces.follow(clip, FaceConfig(), detect=lambda image: [box(2)]))
  assert states(found) == 'dddd' and [f.frame.number for f in found] == [0, 1, 2, 3]
  assert opened == ([4] if kept else [4, 4])


def test_a_frame_that_only_one_pass_can_decode_moves_no_box(monkeypatch):
  monkeypatch.setattr(following, '_KEPT', 0)
  passes = itertools.count()

  def clip():
    second = next(passes)
    for k in range(6):
      if k != (3 if second else 1):
        yield Frame(number=k, time=k / 10, image=np.full((9, 9, 3), k, np.uint8))

  detect = lambda image: [box(10.0 * image[0, 0, 0])]
  found = list(faces.follow(clip, FaceConfig(), detect=detect))
  assert [(f.frame.number, f.box and f.box.centre[0]) for f in found] == [
    (0, 0),
    (1, None),
    (2, 20),
    (4, 40),
    (5, 50),
  ]


# --- one of several people ---------------------------------------------------


def test_the_largest_or_the_central_face_is_taken():
  large, central = box(30, side=40), box(100, side=20)
  assert track([[central, large]])[0].box == large
  assert track([[large, central]], choose='central')[0].box == central


def test_the_person_is_chosen_by_the_clip_and_not_by_the_first_frame():
  # The neighbour is found first, and alone.
  large, small = box(40, side=30), box(150, side=20)
  found = track([small, small, *[[small, large]] * 6], max_gap=0.15)
  assert states(found) == 'ohdddddd' and {f.box for f in found[1:]} == {large}
  # Somebody who walks by the camera is no patient.
  patient, passing = box(40, side=20), box(150, side=60)
  found = track([*[patient] * 6, *[[patient, passing]] * 3])
  assert {f.box for f in found} == {patient} and states(found) == 'd' * 9


def test_a_track_stays_with_its_face():
  other = box(150, side=15)
  found = track([box(40), [box(44), other], [box(48), other], [other], [box(52), other]])
  assert states(found) == 'dddtd'
  assert [face.box for face in found] == [box(40), box(44), box(48), box(50), box(52)]


@pytest.mark.parametrize('choose', ['largest', 'central'])
@pytest.mark.parametrize('apart', [25, 40, 90])
def test_the_neighbour_of_a_hidden_face_is_not_taken_for_it(choose, apart):
  """The face is hidden for four frames and comes back; the neighbour stays where it is."""
  person, other = box(95, side=30), box(95 + apart, side=20)
  hidden = track([[person, other]] * 9 + [[other]] * 4 + [[other, person]] * 9, choose=choose)
  assert states(hidden) == 'd' * 9 + 't' * 4 + 'd' * 9
  assert {face.box for face in hidden} == {person}


def test_a_face_that_turns_up_while_another_is_hidden_is_somebody_else():
  """It is as near as the hidden one may have moved; but that one comes back."""
  person, other = box(60, side=30), box(88, side=22)
  found = track([[person]] * 9 + [[other]] * 4 + [[other, person]] * 9, choose='all')
  numbers = {n: {f.frame.number for f in found if f.box == b} for n, b in ((1, person), (2, other))}
  assert numbers[1] == set(range(22)) and numbers[2] >= set(range(9, 22))
  assert {f.person for f in found if f.box == person} == {1}
  assert {f.person for f in found if f.box == other} == {2}


@pytest.mark.parametrize('choose', ['largest', 'all'])
@pytest.mark.parametrize('every', [1, 2])
def test_a_face_that_passes_before_another_is_not_taken_for_it(choose, every):
  """A man walks past a woman, whose face is not found where his is before it."""
  woman, passing = box(100, side=30), [box(10 + 4.5 * k, side=24) for k in range(41)]
  hides = [abs(man.centre[0] - 100) < 25 for man in passing]
  shown = [[man] if hidden else [man, woman] for man, hidden in zip(passing, hides)]
  found = track(shown, rate=25.0, choose=choose, detect_every=every)
  hers = [face for face in found if face.person == 1]
  seen = {face.frame.number for face in hers}
  assert all(face.box.overlap(woman) > 0.99 for face in hers)
  searched = range(0, len(shown), every)
  # She is behind him.
  assert not seen & {k for k in searched if abs(passing[k].centre[0] - 100) < 15}
  assert seen >= {k for k in searched if not hides[k]}
  if choose == 'largest':
    assert all(f.state == 'other' for f in found if f.frame.number not in seen and every == 1)


def test_whoever_is_elsewhere_after_a_long_gap_is_another_person():
  # 0.35 s at 10 frames a second: three frames from the last detection.
  other = box(150)
  found = track([*[box(40)] * 6, *[other] * 5], max_gap=0.35)
  assert states(found) == 'ddddddhhhoo'
  # Who comes back to the same place is the same.
  found = track(
    [*[box(40)] * 2, *[[other]] * 9, *[[box(44), other]] * 9], max_gap=0.35, choose='all'
  )
  assert {f.person for f in found if f.box and f.box.centre[0] < 50} == {1}
  assert {f.frame.number for f in found if f.person == 1 and f.state == 'detected'} == {
    0,
    1,
    *range(11, 20),
  }


@pytest.mark.parametrize(
  'moved, side, apart, same',
  [
    (22, 20, 1, False),  # Too fast for a tenth of a second.
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
  found = track([box(60), *[None] * (apart - 1), following], choose='all')
  assert len({face.person for face in found if face.state == 'detected'}) == (1 if same else 2)


def test_a_fast_face_among_few_looks_is_not_lost_to_another():
  # A look every 0.2 s, in which the face moves by 0.9 of its side.
  other = box(180, side=15)
  found = track([[box(20 + 9.0 * k), other] if k else box(20) for k in range(9)], detect_every=2)
  assert states(found) == 'dtdtdtdtd'
  for k, face in enumerate(found):
    assert face.box.centre[0] == pytest.approx(20 + 9 * k)


def test_all_people_have_numbers_and_frames_come_once_for_each():
  large, small = box(40, side=30), box(150, side=20)
  found = track([small, [large, small], None, [small, large], None], choose='all', max_gap=0.2)
  assert [(f.frame.number, f.person, f.state[0]) for f in found] == [
    (0, 1, 'h'),
    (0, 2, 'd'),
    (1, 1, 'd'),
    (1, 2, 'd'),
    (2, 1, 't'),
    (2, 2, 't'),
    (3, 1, 'd'),
    (3, 2, 'd'),
    (4, 1, 'h'),
    (4, 2, 'h'),
  ]
  assert {f.box for f in found if f.person == 1} == {large}


@st.composite
def crowds(draw):
  """People who stay at places at least two sides apart, each seen in some frames only."""
  count, frames = draw(st.integers(1, 4)), draw(st.integers(1, 24))
  sides = [draw(st.floats(12, 20)) for _ in range(count)]
  seen = draw(
    st.lists(
      st.lists(st.booleans(), min_size=count, max_size=count), min_size=frames, max_size=frames
    )
  )
  jitter = draw(st.integers(0, 2**32 - 1))
  order = draw(st.randoms(use_true_random=False))
  rng, found = np.random.default_rng(jitter), []
  for row in seen:
    boxes = [
      box(20 + 50 * person + rng.uniform(-2, 2), 50 + rng.uniform(-2, 2), sides[person])
      for person in range(count)
      if row[person]
    ]
    order.shuffle(boxes)
    found.append(boxes)
  return found


@settings(max_examples=150, deadline=None)
@given(crowds(), st.sampled_from([5.0, 25.0]), st.sampled_from([0.0, 0.3, 2.0]), st.integers(1, 3))
def test_two_people_who_are_apart_are_never_in_one_track(found, rate, max_gap, every):
  tracked = track(found, rate=rate, max_gap=max_gap, detect_every=every, choose='all')
  where = {
    n: {round((f.box.centre[0] - 20) / 50) for f in tracked if f.person == n}
    for n in {f.person for f in tracked if f.box}
  }
  assert all(len(places) == 1 for places in where.values()), where
  # Nor is one person two: who comes back to the place is the same.
  assert len({min(places) for places in where.values()}) == len(where)
  looked = [b for boxes in found[::every] for b in boxes]
  assert sum(f.state == 'detected' for f in tracked) == len(looked)


@settings(max_examples=60, deadline=None)
@given(crowds(), st.sampled_from(['largest', 'central']))
def test_one_person_is_taken_and_no_other(found, choose):
  tracked = track(found, choose=choose)
  assert [f.frame.number for f in tracked] == list(range(len(found)))
  assert len({round((f.box.centre[0] - 20) / 50) for f in tracked if f.box}) <= 1
  for face, boxes in zip(tracked, found):
    assert face.state != 'other' or boxes
    assert face.state != 'none' or not boxes


@settings(max_examples=60, deadline=None)
@given(st.integers(-4, 4), st.integers(-4, 4), st.lists(st.booleans(), min_size=30, max_size=30))
def test_people_who_move_keep_their_tracks(first, second, hidden):
  """Two people drift apart at up to 4 pixels a frame; one of them is hidden now and then."""
  found = [
    [box(60 - abs(first) * k / 3, side=20)] * (not hide) + [box(120 + abs(second) * k / 3, side=20)]
    for k, hide in enumerate(hidden)
  ]
  tracked = track(found, rate=25.0, choose='all')
  sides = {n: {f.box.centre[0] > 90 for f in tracked if f.person == n} for n in (1, 2)}
  assert all(len(each) <= 1 for each in sides.values())


# --- scenes ------------------------------------------------------------------


def test_a_box_is_held_up_to_a_cut_and_not_beyond():
  found = track([None, None, None, None, box(50), box(50), None, None], scenes='aabbbbbc')
  assert states(found) == 'nnhhddhn'


def test_nothing_is_tracked_through_a_title():
  found = track([box(50), box(50), None, None, box(52), box(52)], scenes='aabbaa')
  # The picture after the title looks as before: it is the same person.
  assert states(found) == 'ddnndd'
  within = track([box(50), None, None, None, box(52)], scenes='aabaa')
  assert states(within) == 'dhnhd'


def test_a_person_of_another_scene_is_another_person():
  found = track([*[box(50)] * 3, *[box(50)] * 4, box(50)], scenes='aaabbbba')
  assert states(found) == 'dddooood'
  everybody = track([*[box(50)] * 3, *[box(50)] * 4, box(50)], scenes='aaabbbba', choose='all')
  assert [f.person for f in everybody] == [1, 1, 1, 2, 2, 2, 2, 1]


def test_scenes_begin_at_cuts_and_not_where_something_moves_or_the_light_changes():
  whole = picture(1)
  left, right, dark = whole.copy(), whole.copy(), whole // 2 + 20
  left[:, :90], right[:, 130:] = 128, 128
  scene_of = Scenes()
  shown = (whole, left, whole, dark, whole, picture(2), whole, left, right)
  found = [scene_of(each) for each in shown]
  # From left to right, two thirds of the picture change; but it looks like the first frame.
  assert [scene.number for scene in found] == [0, 0, 0, 0, 0, 1, 2, 2, 3]
  assert [scene.shot for scene in found] == [0, 0, 0, 0, 0, 1, 0, 0, 0]


def test_a_face_goes_on_where_the_camera_is_jerked():
  """All of the picture has another place, and the face with it."""
  wide = np.kron(
    np.random.default_rng(1).integers(0, 256, (20, 40, 3), np.uint8), np.ones((8, 8, 1), np.uint8)
  )

  def clip():
    for k in range(8):
      shift = 0 if k < 4 else 40
      yield Frame(number=k, time=k / 25, image=wide[:, shift : shift + 200])

  asked = itertools.count()

  def detect(image):
    return [box(60 if next(asked) < 4 else 20, 80, side=30), box(120, 80, side=30)]

  found = list(faces.follow(clip, FaceConfig(choose='all'), detect=detect))
  first = [f for f in found if f.box.centre[0] in (60, 20)]
  assert {f.person for f in first} == {1} and [f.state for f in first] == ['detected'] * 8
  # The other box shows something else after the cut: it is another face.
  assert len({f.person for f in found}) == 3


@pytest.mark.parametrize('same', [True, False])
def test_few_frames_of_a_face_that_moves_far_are_of_one_person(same):
  """A frame each 2 s, longer than `max_gap`; what is in the box tells who it is."""
  places = [30, 110, 40, 150]
  heads = [np.random.default_rng(0 if same else k).integers(0, 256, (3, 3, 3)) for k in range(4)]

  def clip():
    for k, place in enumerate(places):
      image = np.full((100, 200, 3), 90, np.uint8)
      image[35:65, place - 15 : place + 15] = np.kron(heads[k], np.ones((10, 10, 1)))
      yield Frame(number=50 * k, time=2.0 * k, image=image)

  detect = lambda image: [box(15 + np.flatnonzero((image[50] != 90).any(-1))[0], side=30)]
  found = list(faces.follow(clip, FaceConfig(), detect=detect))
  assert states(found) == ('dddd' if same else 'dodo')


def test_frames_of_other_sizes_are_other_scenes():
  def clip():
    for k in range(4):
      size = (40, 60, 3) if k < 2 else (300, 20, 3)
      yield Frame(
        number=k, time=k / 10, image=np.random.default_rng(k // 2).integers(0, 256, size, np.uint8)
      )

  found = list(faces.follow(clip, FaceConfig(), detect=lambda image: [box(10, 10)]))
  assert [face.frame.number for face in found] == [0, 1, 2, 3]
