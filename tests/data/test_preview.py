import cv2
import numpy as np
import pytest
from tiny_tasks import store_tiny

from painformer_jax.core.errors import InputError
from painformer_jax.core.pictures import resize_to_square
from painformer_jax.data import preview
from painformer_jax.data.augment import POLICIES, ops
from painformer_jax.data.decode import decode_rgb
from painformer_jax.data.prepared import open_task
from painformer_jax.modalities import canvas

TILE = 64


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  folder = tmp_path_factory.mktemp('data')
  store_tiny(folder, 'faces', train=12, classes=3, image_size=TILE, modality='face')
  store_tiny(folder, 'waves', train=2, classes=2, image_size=TILE, modality='waveform')
  return folder


def drawn(data_dir, tasks=('faces',), **options):
  options = {'augment': 'flip', 'image_size': TILE, 'tile': TILE, **options}
  return preview.contact_sheet(data_dir, tasks, **options)


def tiles(sheet, versions):
  """The tiles of a sheet, by row, found by the lines around them."""
  first = preview._columns(versions, TILE)[0]
  line = (sheet[:, first : first + TILE] == canvas.LINE).all((1, 2))
  # The line above each task is as light as those around its tiles.
  tops = [y + 1 for y in np.flatnonzero(line) if y + TILE + 1 < len(line) and line[y + TILE + 1]]
  return [
    [sheet[top : top + TILE, left : left + TILE] for left in preview._columns(versions, TILE)]
    for top in tops
  ]


def stored(data_dir, task, split='train'):
  records = open_task(data_dir, task).records(split)
  return [decode_rgb(records[n]['image']) for n in range(len(records))]


def position(image, images):
  [found] = [n for n, other in enumerate(images) if np.array_equal(image, other)]
  return found


def test_a_row_is_an_image_as_stored_and_its_versions(data_dir):
  sheet = drawn(
    data_dir,
    ['faces', 'waves'],
    images=3,
    versions=4,
    augment={'faces': 'flip', 'waves': 'noise(9)'},
  )
  assert sheet.dtype == np.uint8 and sheet.ndim == 3
  rows = tiles(sheet, 4)
  assert len(rows) == 3 + 2, 'all of a split that has fewer'
  found = [position(row[0], stored(data_dir, 'faces')) for row in rows[:3]]
  assert len(set(found)) == 3
  for row in rows[:3]:
    for version in row[1:]:
      np.testing.assert_array_equal(version, ops.flip(row[0]))
  for row in rows[3:]:
    position(row[0], stored(data_dir, 'waves'))
    spread = [(version.astype(float) - row[0]).std() for version in row[1:]]
    assert all(5 < s < 10 for s in spread)
    assert len({version.tobytes() for version in row[1:]}) == 4


def test_it_depends_on_the_seed_alone(data_dir):
  first = drawn(data_dir, augment='paper', seed=1)
  np.testing.assert_array_equal(first, drawn(data_dir, augment='paper', seed=1))
  assert not np.array_equal(first, drawn(data_dir, augment='paper', seed=2))
  # Other tasks on the sheet do not change a task's part.
  both = drawn(data_dir, ['faces', 'waves'], augment='paper', seed=1)
  np.testing.assert_array_equal(both[: len(first)], first)


def test_policies_go_by_the_task_s_modality(data_dir):
  with pytest.raises(InputError, match="'flip' is not for images of modality 'waveform'"):
    drawn(data_dir, ['waves'], augment='noise(8)|flip')
  drawn(data_dir, ['faces'], augment='noise(8)|flip')


def test_images_are_augmented_at_the_size_of_training(data_dir):
  """Shown smaller, or larger in whole pixels."""
  options = dict(images=1, versions=1, augment='identity')
  small = tiles(drawn(data_dir, image_size=TILE // 2, **options), 1)[0]
  np.testing.assert_array_equal(small[0], np.repeat(np.repeat(small[0][::2, ::2], 2, 0), 2, 1))
  large = tiles(drawn(data_dir, image_size=2 * TILE, **options), 1)[0]
  position(
    large[0],
    [
      cv2.resize(resize_to_square(image, 2 * TILE), (TILE, TILE), interpolation=cv2.INTER_AREA)
      for image in stored(data_dir, 'faces')
    ],
  )


def text_ink(sheet):
  """Rows of the sheet that have ink in them."""
  return (sheet < 90).all(-1).any(1)


def test_captions_say_what_is_shown(data_dir, monkeypatch):
  texts, write = [], canvas.write
  monkeypatch.setattr(
    canvas,
    'write',
    lambda part, text, *args, **kwargs: (texts.append(text), write(part, text, *args, **kwargs))[1],
  )
  sheet = drawn(data_dir, images=2, versions=2, augment='paper')
  assert texts[:6] == [
    'faces',
    'face, 3 classes, 12 images in train',
    f'policy: paper = {POLICIES["paper"].text}',
    'as stored',
    '1',
    '2',
  ]
  images = stored(data_dir, 'faces')
  for row, (title, key) in zip(tiles(sheet, 2), (texts[6:8], texts[8:10]), strict=True):
    number = position(row[0], images)
    assert (title, key) == (f'class {number % 3}', str(number))


def test_text_stays_within_the_margin(data_dir, monkeypatch):
  store_tiny(data_dir.parent / 'long', 'n' * 90, train=1, test=1, image_size=TILE)
  sheet = drawn(
    data_dir.parent / 'long', ['n' * 90], images=1, versions=1, augment='|'.join(['flip'] * 60)
  )
  margin = preview._MARGIN - 2
  assert text_ink(sheet).any()
  assert (sheet[:, -margin:] == canvas.PAPER).all()
  assert (sheet[:, :margin] == canvas.PAPER).all()
  part = canvas.blank(30, 300)
  end = canvas.write(part, 'Gesichter, müde: 顔', (16, 20), room=268, size=0.4)
  assert 100 < end < 284 and (part != canvas.PAPER).any()


@pytest.mark.parametrize('suffix', canvas.KIND.suffixes)
def test_files(data_dir, tmp_path, suffix):
  path = tmp_path / f'sheet{suffix.upper()}'
  preview.write_contact_sheet(
    path, data_dir, ['faces'], augment='flip', image_size=TILE, tile=TILE, images=2
  )
  found = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB).astype(float)
  sheet = drawn(data_dir, images=2)
  assert np.abs(found - sheet).mean() < (1e-9 if suffix == '.png' else 12)
  assert list(tmp_path.iterdir()) == [path], 'nothing half-written is left'


@pytest.mark.parametrize(
  'tasks,options,message',
  [
    ([], {}, 'a contact sheet needs at least one task'),
    (['none_such'], {}, "no task 'none_such' in"),
    (['faces'], {'split': 'exam'}, "has no split 'exam', only train, test"),
    (['faces'], {'augment': 'flop@1'}, "'flop@1' is no operation"),
    (['faces', 'waves'], {'augment': {'faces': 'flip'}}, 'no augmentation given for task waves'),
    (['faces'], {'images': 0}, 'images is 0, below 1'),
    (['faces'], {'versions': 0}, 'versions is 0, below 1'),
    (['faces'], {'seed': -1}, 'seed is -1, below 0'),
    (['faces'], {'tile': 10}, 'tile is 10, below 48'),
    (['faces'], {'image_size': 1}, 'image_size is 1, below 8'),
  ],
)
def test_bad_input_is_one_line(data_dir, tmp_path, tasks, options, message):
  with pytest.raises(InputError) as error:
    preview.write_contact_sheet(
      tmp_path / 'sheet.png', data_dir, tasks, **{'augment': 'flip', **options}
    )
  assert message in str(error.value) and len(str(error.value).splitlines()) == 1
  assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written(data_dir, tmp_path):
  for path, message in (
    (tmp_path / 'sheet.gif', r'must end in .png, .jpg or .jpeg'),
    (tmp_path / 'no' / 'sheet.png', 'there is no folder'),
  ):
    with pytest.raises(InputError, match=message):
      preview.write_contact_sheet(path, data_dir, ['faces'], augment='flip')
  with pytest.raises(InputError, match='too many for JPEG'):
    store_tiny(tmp_path, 'many', train=400, test=1, image_size=16)
    preview.write_contact_sheet(
      tmp_path / 'x.jpg',
      tmp_path,
      ['many'],
      augment='flip',
      images=400,
      versions=1,
      tile=160,
      image_size=16,
    )
