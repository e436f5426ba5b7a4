"""The datasets that can be prepared: a table of their readers.

A reader's module is imported when it is first used.
"""

import dataclasses
import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from painformer_jax.core.progress import Log
from painformer_jax.data.task_source import TaskSource

PAGES = Path(__file__).parent.parent / 'pages'


@dataclasses.dataclass(frozen=True, kw_only=True)
class Option:
  """One keyword argument of a reader, and its option on the command line.

  Attributes:
    name: of the argument, in snake_case.
    type: turns the option's text into its value: int, float or str.
    default: where it is not given.
    help: one line, without the default.
    choices: the values it may have, or None.
  """

  name: str
  type: Callable[[str], Any]
  default: int | float | str
  help: str
  choices: tuple[str, ...] | None = None

  @property
  def flag(self) -> str:
    return f'--{self.name.replace("_", "-")}'


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetReader:
  """How one dataset is read.

  Attributes:
    summary: the layout that it expects, in one line.
    function: 'module:function' in this package.
    fixed: arguments that tell apart several readers of one function.
    page: name of its page in `PAGES`: how to get and prepare the dataset.
    task: the task's usual name; None where the user must choose one.
    options: what the function takes beside source, name and report.
  """

  summary: str
  function: str
  page: str
  task: str | None
  options: tuple[Option, ...]
  fixed: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def load(self) -> Callable[..., TaskSource]:
    """The function itself."""
    module, _, function = self.function.partition(':')
    return getattr(importlib.import_module(f'{__package__}.{module}'), function)

  def build(
    self, source: str | Path, *, name: str | None = None, report: Log = print, **options
  ) -> TaskSource:
    """Lists the dataset below `source` as a task.

    Args:
      source: the dataset's folder (or the manifest).
      name: the task's name; None for the usual one.
      report: takes a line for each thing that is left out or unusual.
      options: as `self.options` names them.

    Raises:
      InputError: as the reader says.
    """
    name = self.task if name is None else name
    if name is None:
      raise TypeError('this reader needs a name for the task')
    return self.load()(source, name, report=report, **self.fixed, **options)


_IMAGE_SIZE = Option(
  name='image_size', type=int, default=224, help='side of the stored square images, pixels'
)
_SHORT_SIDE = Option(
  name='short_side',
  type=int,
  default=0,
  help='keep the aspect ratio and shrink the shorter side to so many pixels, never '
  'enlarging; 0 resizes to a square of --image-size',
)
_ENCODING = Option(
  name='encoding',
  type=str,
  default='jpeg',
  choices=('jpeg', 'png'),
  help='how images are stored: JPEG of quality 95, or PNG',
)
_STORED = (_IMAGE_SIZE, _SHORT_SIDE, _ENCODING)
_SEED = Option(name='split_seed', type=int, default=0, help='of the choice of what is held out')
_MAX_MISSING = Option(
  name='max_missing', type=float, default=0.01, help='share of the listed files that may be missing'
)


def _fraction(default: float, of: str) -> Option:
  return Option(
    name='test_fraction', type=float, default=default, help=f'share of {of} held out for testing'
  )


_SPEAKING = (
  *_STORED,
  Option(
    name='hold_out',
    type=str,
    default='command',
    choices=('command', 'trial'),
    help='what is held out whole: a share of the utterances, or trial 2',
  ),
  _fraction(0.1, "each subject's utterances"),
  _SEED,
  Option(
    name='frame_step', type=int, default=1, help='take every so many-th frame of an utterance'
  ),
)

READERS: dict[str, DatasetReader] = {
  'folder': DatasetReader(
    summary='SOURCE/{train,test}/CLASS/*.jpg or .png, or SOURCE/CLASS/* with a part held out',
    function='folder:folder_task',
    page='folder',
    task=None,
    options=(
      *_STORED,
      _fraction(0.2, 'each class (without train and test folders)'),
      _SEED,
      Option(name='modality', type=str, default='image', help='kind of input, such as face'),
      Option(name='licence', type=str, default='not stated', help='terms of the images'),
    ),
  ),
  'vggface2': DatasetReader(
    summary='VGGFace2: SOURCE/{train,test}/n000001/0001_01.jpg',
    function='vggface2:vggface2_task',
    page='vggface2',
    task='vggface2',
    options=(*_STORED, _fraction(0.05, "each identity's images"), _SEED),
  ),
  'digiface': DatasetReader(
    summary='DigiFace-1M: SOURCE/IDENTITY/*.png, or one folder deeper',
    function='digiface:digiface_task',
    page='digiface',
    task='digiface',
    options=(*_STORED, _fraction(0.05, "each identity's images"), _SEED),
  ),
  'speakingfaces-rgb': DatasetReader(
    summary='SpeakingFaces, colour: SOURCE/{train,valid,test}_data/sub_N/trial_N/'
    'rgb_image_cmd_aligned/*_3.png',
    function='speakingfaces:speakingfaces_task',
    fixed={'stream': 'rgb'},
    page='speakingfaces',
    task='speakingfaces_rgb',
    options=_SPEAKING,
  ),
  'speakingfaces-thermal': DatasetReader(
    summary='SpeakingFaces, thermal: SOURCE/{train,valid,test}_data/sub_N/'
    'trial_N/thr_image_cmd/*_1.png',
    function='speakingfaces:speakingfaces_task',
    fixed={'stream': 'thermal'},
    page='speakingfaces',
    task='speakingfaces_thermal',
    options=_SPEAKING,
  ),
  'affectnet': DatasetReader(
    summary='AffectNet: SOURCE/Manually_Annotated_file_lists/*.csv, or '
    'SOURCE/{train_set,val_set}/{images,annotations}',
    function='affectnet:affectnet_task',
    page='affectnet',
    task='affectnet',
    options=(
      *_STORED,
      _fraction(0.02, 'each expression (without a validation part)'),
      _SEED,
      _MAX_MISSING,
    ),
  ),
  'rafdb-basic': DatasetReader(
    summary='RAF-DB, 7 expressions: SOURCE/EmoLabel/list_patition_label.txt, SOURCE/Image/aligned',
    function='rafdb:rafdb_task',
    fixed={'part': 'basic'},
    page='rafdb',
    task='rafdb_basic',
    options=(*_STORED, _MAX_MISSING),
  ),
  'rafdb-compound': DatasetReader(
    summary='RAF-DB, 11 compound expressions, in the layout of the basic ones',
    function='rafdb:rafdb_task',
    fixed={'part': 'compound'},
    page='rafdb',
    task='rafdb_compound',
    options=(*_STORED, _MAX_MISSING),
  ),
  'manifest': DatasetReader(
    summary='images or signals that SOURCE, a .csv, .tsv or .parquet, lists',
    function='manifest:manifest_task',
    page='manifest',
    task=None,
    options=(
      Option(
        name='representation',
        type=str,
        default='waveform',
        choices=('waveform', 'psd', 'angle', 'phase'),
        help='how signals are drawn',
      ),
      Option(name='segment', type=int, default=256, help="samples in a spectrogram's segment"),
      Option(name='rate', type=float, default=0.0, help='Hz, for rows without a rate'),
      Option(
        name='classes',
        type=str,
        default='',
        help='names in the order of the labels, separated by commas; else those found, sorted',
      ),
      *_STORED,
      _fraction(0.2, 'identities or rows (without a column split)'),
      _SEED,
      _MAX_MISSING,
      Option(
        name='modality',
        type=str,
        default='',
        help='kind of input; empty for image, waveform or spectrogram',
      ),
      Option(name='licence', type=str, default='not stated', help='terms of the data'),
    ),
  ),
}
