"""The configuration of an assessment: one file is one table.

Config files are plain Python with `get_config()` returning a ConfigDict; this module
turns one into dataclasses and checks it before any work starts.
"""

import dataclasses
import itertools
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal

import ml_collections

from painformer_jax.assessment.datasets import ai4pain, biovid, demo_study, pictures
from painformer_jax.assessment.embedding.embed import EmbeddingSettings
from painformer_jax.assessment.folds import protocols, tasks
from painformer_jax.assessment.folds.protocols import BLOCKS, PROTOCOLS
from painformer_jax.assessment.folds.tasks import TASKS
from painformer_jax.assessment.mixers.finetune_config import FinetuneConfig
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.fusion import FusionConfig
from painformer_jax.core.config_fields import build, changes, hint, with_defaults
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer_config
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig

Dataset = Literal['biovid', 'ai4pain-2024', 'ai4pain-2025', 'ai4pain-2026', 'demo', 'planted']
# Preset of the Mixer -> that of the Video-Encoder of its size.
ENCODERS = {'mixer_laptop': 'video_encoder_laptop', 'mixer_published': 'video_encoder_published'}

_FIT_FIELDS = tuple(
  f.name for f in dataclasses.fields(FitConfig) if f.name not in ('model', 'seeds')
)
# `outputs` follows from the task, the rest from the embeddings and the fusion.
_MIXER_FIELDS = tuple(
  f.name
  for f in dataclasses.fields(EmbeddingMixerConfig)
  if f.name not in ('outputs', 'input_width', 'positions', 'encoder', 'encoder_tokens')
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowConfig:
  """One line of the table.

  Attributes:
    fusion: which modalities, and how they are joined.
    label: what the table calls the modalities; '' for their names.
    tasks: those of the config that it takes part in; none for all.
  """

  fusion: FusionConfig
  label: str = ''
  tasks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlantedConfig:
  """The folder of dataset 'planted', which the run writes, see `planted.Plan`."""

  subjects: int = 20
  per_level: int = 10
  effect: float = 2.0
  subject_spread: float = 0.5
  seed: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class FnirsConfig:
  """Where the fNIRS of AI4Pain 2024 lies, see `ai4pain.FnirsTables`; '' for none."""

  path: str = ''
  columns: tuple[str, ...] = ()
  rate: float = 0.0
  delimiter: str = ','


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssessConfig:
  """Everything that decides an assessment.

  Attributes:
    dataset: which reader opens `data_dir`; 'planted' and 'demo' make their own data.
    modalities: name -> how its embeddings are made; only of those that a row takes.
    rows: name -> a line of the table.
    tasks: of `TASKS`.
    protocol: of `PROTOCOLS`.
    weights: of the backbone: whatever `painformer embed --weights` takes.
    data_dir: of the dataset; '' for the demo corpus's usual cache.
    mixer, encoder: preset of `embedding_mixer_config.PRESETS` under 'name', and fields
      to replace; the encoder serves rows with fusion 'fusion-n'.
    fit: fields of `FitConfig`; `steps` 0 for epochs.
    seeds: each fold trains once with each.
    backbone: 'frozen', or 'fine-tuned' together with the Mixer, for each row by itself;
      only on a single fixed split.
    finetune: how; its epochs and batch take the place of those of `fit`.
    hold_out: subjects that protocol 'hold-out' tests on; none for the 26 of BioVid.
    normalise: 'none'; 'study' standardises embeddings by all samples, 'subject' each
      subject's by their own. Both use unlabelled recordings of those tested on.
    grid: field of `FitConfig` or of the mixer -> values to choose among, on
      `inner_folds` of each fold's training subjects, with the first seed.
    inner_folds: how many parts the training subjects are divided into for it.
    shuffled: so many further runs with labels shuffled within subjects (moved round in
      time within blocks, whose windows overlap), which must come out at chance; 0 for
      none.
    reference: row that the others are compared with, on each task; '' for none.
    pictures: further sources, such as thermal frames that you have: name -> path below
      `data_dir` of a video, or of a folder of images, with {subject}, {sample} and
      {split} (as its folder is spelt), such as 'thermal/{subject}/{sample}.mp4'.
    labels: CSV with the labels of AI4Pain 2024, see `ai4pain.open_2024`; '' for the
      names of the clips.
    fnirs: of AI4Pain 2024.
    planted: of dataset 'planted'.
    gap: seconds between blocks of time, of dataset 'demo'.
    assessor: also train every row on all samples and keep it, for assess-clip.
    embeddings: folder that runs on the same data share, so that each modality is embedded
      once for all tables; '' for one in the run's own folder.
    findings: 'stop' where the check of the folder finds anything; 'go on' leaves what
      is missing out.
    max_left_out: share of the samples, in [0, 1], that may lack a modality or have it
      unusable; above it the run stops.
    batch_size: images at once, when embedding.
    memory_limit: bytes for training, on each device; 0 for half of what is free.
    figures: draw them (matplotlib).
  """

  dataset: Dataset
  modalities: Mapping[str, EmbeddingSettings]
  rows: Mapping[str, RowConfig]
  tasks: tuple[str, ...]
  protocol: str
  weights: str
  data_dir: str = ''
  mixer: Mapping[str, Any] = dataclasses.field(default_factory=lambda: {'name': 'mixer_laptop'})
  encoder: Mapping[str, Any] = dataclasses.field(
    default_factory=lambda: {'name': 'video_encoder_laptop'}
  )
  fit: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  seeds: tuple[int, ...] = (0,)
  backbone: Literal['frozen', 'fine-tuned'] = 'frozen'
  finetune: FinetuneConfig = FinetuneConfig()
  hold_out: tuple[str, ...] = ()
  normalise: Literal['none', 'study', 'subject'] = 'none'
  grid: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  inner_folds: int = 3
  shuffled: int = 0
  reference: str = ''
  pictures: Mapping[str, str] = dataclasses.field(default_factory=dict)
  labels: str = ''
  fnirs: FnirsConfig = FnirsConfig()
  planted: PlantedConfig = PlantedConfig()
  gap: float = 10.0
  assessor: bool = False
  embeddings: str = ''
  findings: Literal['stop', 'go on'] = 'stop'
  max_left_out: float = 0.1
  batch_size: int = 16
  memory_limit: int = 0
  figures: bool = True

  # Fields that may change when a run is continued: they leave its figures alone.
  RESUMABLE: typing.ClassVar = frozenset(
    {
      'data_dir',
      'embeddings',
      'findings',
      'max_left_out',
      'batch_size',
      'memory_limit',
      'figures',
      'reference',
      'assessor',
      'finetune.readers',
      'finetune.keep_images',
    }
  )

  @property
  def finetunes(self) -> bool:
    return self.backbone == 'fine-tuned'

  @property
  def used(self) -> dict[str, EmbeddingSettings]:
    """Those of the modalities that a row takes."""
    names = dict.fromkeys(m for row in self.rows.values() for m in row.fusion.modalities)
    return {name: self.modalities[name] for name in names}

  def tasks_of(self, row: str) -> tuple[str, ...]:
    return self.rows[row].tasks or self.tasks

  @property
  def points(self) -> list[dict[str, Any]]:
    """Every combination of the grid's values; one empty one without a grid."""
    return [dict(zip(self.grid, values)) for values in itertools.product(*self.grid.values())]

  def mixer_config(self, point: Mapping[str, Any] = {}, **fixed) -> EmbeddingMixerConfig:
    """The mixer at a point of the grid, with fields that the data fix."""
    fields = {k: v for k, v in self.mixer.items() if k != 'name'}
    chosen = {k: v for k, v in point.items() if k in _MIXER_FIELDS}
    return embedding_mixer_config.make_config(self.mixer['name'], **{**fields, **chosen, **fixed})

  def encoder_config(self, **fixed) -> EmbeddingMixerConfig:
    fields = {k: v for k, v in self.encoder.items() if k != 'name'}
    return embedding_mixer_config.make_config(self.encoder['name'], **{**fields, **fixed})

  def fit_config(
    self, model: EmbeddingMixerConfig, point: Mapping[str, Any] = {}, **fixed
  ) -> FitConfig:
    """How a model trains at a point of the grid."""
    chosen = {k: v for k, v in point.items() if k in _FIT_FIELDS}
    values = {'seeds': self.seeds, **self.fit, **chosen, **fixed}
    values['steps'] = values.get('steps') or None
    try:
      return FitConfig(model=model, **values)
    except (TypeError, ValueError) as error:
      raise InputError(f'config.fit: {error}') from error

  def to_json(self) -> str:
    return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)


def defaults(
  mixer_name: str = 'mixer_laptop', encoder_name: str = 'video_encoder_laptop'
) -> ml_collections.ConfigDict:
  """A config with every field at its default, for config files to start from.

  Args:
    mixer_name, encoder_name: presets; all fields of their shapes become `config.mixer`
      and `config.encoder`, so that a run's record says what was trained even if presets
      change.

  Returns:
    A ConfigDict without dataset, modalities, rows, tasks, protocol: those are the
    file's; `weights` and `data_dir` are ''.

  Raises:
    InputError: no such preset.
  """
  plain = AssessConfig(dataset='demo', modalities={}, rows={}, tasks=(), protocol='', weights='')
  tree = dataclasses.asdict(plain)
  for name in ('dataset', 'modalities', 'rows', 'tasks', 'protocol'):
    del tree[name]
  for part, name, further in (('mixer', mixer_name, ()), ('encoder', encoder_name, ('outputs',))):
    shape = dataclasses.asdict(embedding_mixer_config.make_config(name))
    tree[part] = {'name': name} | {field: shape[field] for field in _MIXER_FIELDS + further}
  tree['fit'] = {
    f.name: f.default for f in dataclasses.fields(FitConfig) if f.name in _FIT_FIELDS
  } | {'steps': 0}
  return ml_collections.ConfigDict(tree)


def from_config_dict(config: ml_collections.ConfigDict | Mapping) -> AssessConfig:
  """Checks a ConfigDict and turns it into an AssessConfig.

  Raises:
    InputError: an unknown or missing field, or a value that does not fit.
  """
  if isinstance(config, ml_collections.ConfigDict):
    config = config.to_dict()
  result = build(AssessConfig, config, where='config')
  # A ConfigDict keeps no order: single modalities first, as tables do.
  result = dataclasses.replace(
    result,
    rows=dict(
      sorted(result.rows.items(), key=lambda item: (len(item[1].fusion.modalities), item[0]))
    ),
  )
  _check_names(result)
  _check_finetuning(result)
  _check_training(result)
  for part in ('mixer', 'encoder'):
    _check_preset(part, getattr(result, part))
  return result


def changed_fields(config: AssessConfig, stored: Mapping) -> list[str]:
  """Fields, as 'path: stored -> now', in which a run differs from its record.

  Fields that an older release did not have count as having their defaults.
  """
  return changes(
    json.loads(config.to_json()), with_defaults(AssessConfig, stored), free=AssessConfig.RESUMABLE
  )


def _check_preset(part: str, fields: Mapping[str, Any]) -> None:
  """Raises InputError where one preset is named and all fields are those of its sibling."""

  def of(name: str) -> dict[str, Any]:
    shape = dataclasses.asdict(embedding_mixer_config.make_config(name))
    return {'name': fields['name']} | {key: shape[key] for key in fields if key != 'name'}

  # Where few fields are given, they are replaced on purpose, whatever else has such values.
  if not fields.keys() >= {*_MIXER_FIELDS} or fields == of(fields['name']):
    return
  kind = fields['name'].rpartition('_')[0]
  for other in embedding_mixer_config.PRESETS:
    if other.rpartition('_')[0] == kind and fields == of(other):
      raise InputError(
        f'config.{part}.name is {fields["name"]!r}, but the other fields are '
        f'those of {other}: name the preset in `defaults(...)`'
      )


def _check_names(config: AssessConfig) -> None:
  """Everything that names something names what there is."""
  if not config.weights:
    raise InputError(
      'config.weights is empty: name the weights of the backbone, such as '
      '--config.weights=painformer.pth'
    )
  if not config.data_dir and config.dataset not in ('demo', 'planted'):
    raise InputError(
      f'config.data_dir is empty: name the folder of {config.dataset}, such as '
      f'--config.data_dir=/data/{config.dataset}'
    )
  pictures.check_patterns(
    config.pictures,
    known=(*biovid.MODALITIES, *ai4pain.SIGNALS, ai4pain.FNIRS, *demo_study.PICTURE_COLUMNS),
  )
  for name in ('modalities', 'rows', 'tasks', 'seeds'):
    if not getattr(config, name):
      raise InputError(f'config.{name} is empty: name at least one')
  for task in config.tasks:
    if task not in TASKS:
      raise InputError(f'config.tasks: there is no {task!r}{hint(task, TASKS)}')
  tasks.check_tasks(config.dataset, config.tasks)
  if config.protocol not in PROTOCOLS:
    raise InputError(f'config.protocol is {config.protocol!r}{hint(config.protocol, PROTOCOLS)}')
  if (config.protocol == BLOCKS) != (config.dataset == 'demo'):
    raise InputError(
      f"config.protocol is {config.protocol!r}: 'blocks' is for dataset 'demo', and nothing else is"
    )
  for name, row in config.rows.items():
    for modality in row.fusion.modalities:
      if modality not in config.modalities:
        raise InputError(
          f'config.rows.{name}.fusion.modalities: there is no '
          f'{modality!r}{hint(modality, config.modalities)}'
        )
    for task in row.tasks:
      if task not in config.tasks:
        raise InputError(
          f'config.rows.{name}.tasks: {task!r} is none of config.tasks{hint(task, config.tasks)}'
        )
  for name, settings in config.used.items():
    if (
      settings.source == 'video'
      and settings.picture in ('thermal', 'depth')
      and not settings.network
      and not settings.stand_in
    ):
      raise InputError(
        f'config.modalities.{name}: the videos are RGB: name an .onnx file that makes '
        f'{settings.picture} frames of them (--config.modalities.{name}.network=FILE)'
        + (
          f', or take the face mesh (--config.modalities.{name}.stand_in=True)'
          if settings.picture == 'depth'
          else ''
        )
        + ', or frames of your own in config.pictures'
      )
  if config.reference and config.reference not in config.rows:
    raise InputError(
      f'config.reference: there is no row {config.reference!r}{hint(config.reference, config.rows)}'
    )


def _check_finetuning(config: AssessConfig) -> None:
  """Raises InputError for what a fine-tuned backbone cannot do."""
  if config.hold_out and config.protocol != 'hold-out':
    raise InputError(
      f"config.hold_out names subjects, but config.protocol is '{config.protocol}': take 'hold-out'"
    )
  if not config.finetunes:
    return
  reasons = {
    'protocol': (
      config.protocol not in protocols.FIXED,
      'fine-tuning would train a backbone for every fold; take a fixed split '
      f'({", ".join(map(repr, protocols.FIXED))})',
    ),
    'normalise': (
      config.normalise != 'none',
      "the embeddings change while the backbone learns; take 'none'",
    ),
    'grid': (bool(config.grid), 'every point would train a backbone; fix the values'),
    'assessor': (config.assessor, 'only Mixers on a frozen backbone are kept for assess-clip'),
  }
  for name, (wrong, why) in reasons.items():
    if wrong:
      raise InputError(
        f'config.{name} is {getattr(config, name)!r}, but config.backbone is '
        f"'fine-tuned': {why}, or set config.backbone to 'frozen'"
      )


def _check_training(config: AssessConfig) -> None:
  """Raises InputError for values that no training could use."""
  for part in ('mixer', 'encoder'):
    values = getattr(config, part)
    known = ('name', *_MIXER_FIELDS, *(('outputs',) if part == 'encoder' else ()))
    for field in values:
      if field not in known:
        raise InputError(f'config.{part} has no field {field!r}{hint(field, known)}')
    if values.get('name') not in embedding_mixer_config.PRESETS:
      raise InputError(
        f'config.{part}.name is {values.get("name")!r}'
        f'{hint(values.get("name"), embedding_mixer_config.PRESETS)}'
      )
  for field in config.fit:
    if field not in _FIT_FIELDS:
      raise InputError(f'config.fit has no field {field!r}{hint(field, _FIT_FIELDS)}')
  for field, values in config.grid.items():
    if field not in _FIT_FIELDS + _MIXER_FIELDS:
      raise InputError(
        f'config.grid has no field {field!r}{hint(field, _FIT_FIELDS + _MIXER_FIELDS)}'
      )
    if not isinstance(values, (list, tuple)) or not values:
      raise InputError(f'config.grid.{field} is {values!r}: list the values to choose among')
  if config.inner_folds < 2:
    raise InputError(f'config.inner_folds is {config.inner_folds}, below 2')
  for name, least in (('shuffled', 0), ('batch_size', 1), ('memory_limit', 0), ('gap', 0)):
    if getattr(config, name) < least:
      raise InputError(f'config.{name} is {getattr(config, name)}, below {least}')
  for point in config.points:
    try:
      config.fit_config(config.mixer_config(point), point)
    except TypeError as error:
      raise InputError(f'config.mixer, fit or grid: {error}') from error
  config.encoder_config()
