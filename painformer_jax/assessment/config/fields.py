"""The fields of an assessment's configuration."""

import dataclasses
import itertools
import json
import typing
from collections.abc import Mapping
from typing import Any, Literal

from painformer_jax.assessment.datasets.ai4pain_2024 import FnirsTables
from painformer_jax.assessment.datasets.planted import PlantedPlan
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings
from painformer_jax.assessment.mixers.finetune_config import FinetuneConfig
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.assessment.mixers.fusion import FusionConfig
from painformer_jax.core.config_fields import Renamed
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer_config
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig

Dataset = Literal['biovid', 'ai4pain-2024', 'ai4pain-2025', 'ai4pain-2026', 'demo', 'planted']
# Fields of `config.fit`; the model and the seeds come from elsewhere in the config.
FIT_FIELDS = tuple(
  f.name for f in dataclasses.fields(FitConfig) if f.name not in ('model', 'seeds')
)
# Fields of `config.mixer`. `outputs` follows from the task, the others that are missing
# here from the embeddings and the fusion.
MIXER_FIELDS = tuple(
  f.name
  for f in dataclasses.fields(EmbeddingMixerConfig)
  if f.name not in ('outputs', 'input_width', 'positions', 'encoder', 'encoder_tokens')
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RowConfig:
  """One row of the table of results.

  Attributes:
    fusion: which modalities the row uses, and how they are fused.
    label: the modalities' name in the table; '' for their names in the config.
    tasks: the tasks of the config that the row is run on; none for all.
  """

  fusion: FusionConfig
  label: str = ''
  tasks: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class AssessConfig:
  """Everything that an assessment depends on.

  Attributes:
    dataset: the reader that opens `data_dir`; 'planted' and 'demo' make their own data.
    modalities: name -> how its embeddings are made; only those that a row uses are made.
    rows: name -> a row of the table.
    tasks: names in `tasks.TASKS`.
    protocol: a name in `protocols.PROTOCOLS`.
    weights: of the backbone, in any form that `painformer embed --weights` takes.
    data_dir: folder of the dataset; '' for the demo corpus's usual cache.
    mixer, encoder: a preset of `embedding_mixer_config.PRESETS` under 'name', and fields
      to replace. The encoder is for rows with fusion 'fusion-n'.
    fit: fields of `FitConfig`; `steps` 0 to train for `epochs`.
    seeds: each fold is trained once with each seed.
    backbone: 'frozen', or 'fine-tuned' together with the Mixer, for each row separately;
      only with a protocol of a single fold.
    finetune: how to fine-tune; its epochs and batch replace those of `fit`.
    hold_out: the test subjects of protocol 'hold-out'; none for the 26 of BioVid.
    normalise: 'none'; 'study' standardises embeddings over all samples, 'subject' over
      each subject's own samples. Both use unlabelled recordings of the test subjects.
    grid: a field of `fit` or of `mixer` -> values to choose among, on `inner_folds` of
      each fold's training subjects, with the first seed.
    inner_folds: number of parts that the training subjects are divided into for `grid`.
    shuffled: number of further runs with labels permuted within subjects (rotated in time
      within blocks, whose windows overlap), which must come out at chance.
    reference: row that the others are compared with, on each task; '' for none.
    image_sources: images that you have besides the dataset's own, such as thermal frames:
      name -> path below `data_dir` of a video or of a folder of images, with {subject},
      {sample} and {split} (the name of its folder), such as 'thermal/{subject}/{sample}.mp4'.
    labels: CSV with the labels of AI4Pain 2024, see `ai4pain_2024.open_study`; '' to read
      them from the names of the clips.
    fnirs: where the fNIRS tables of AI4Pain 2024 are.
    planted: the effect of dataset 'planted'.
    gap: seconds between blocks of time, of dataset 'demo'.
    assessor: whether to also train every row on all samples and store it for assess-clip.
    embeddings: folder that runs on the same data share, so that each modality is embedded
      once for all tables; '' for a folder in the run's own.
    findings: what to do when the dataset check reports problems: `stop`, or `continue`
      without the affected samples; or the kinds of `recordings.FINDING_KINDS` to continue
      in spite of, separated by commas, such as 'missing,length'. A recording on both sides
      of a fold is an error unless 'duplicate' is named; all its copies are then left out.
    max_left_out: share of the samples, in [0, 1], of which a modality may be missing or
      unusable; above it the run stops.
    batch_size: images per batch, when embedding.
    memory_limit: bytes for training on each device; 0 for half of what is free.
    figures: whether to draw figures (needs matplotlib).
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
  image_sources: Mapping[str, str] = dataclasses.field(default_factory=dict)
  labels: str = ''
  fnirs: FnirsTables = FnirsTables()
  planted: PlantedPlan = PlantedPlan()
  gap: float = 10.0
  assessor: bool = False
  embeddings: str = ''
  findings: str = 'stop'
  max_left_out: float = 0.1
  batch_size: int = 16
  memory_limit: int = 0
  figures: bool = True

  RENAMED: typing.ClassVar = Renamed(
    fields={'pictures': 'image_sources'},
    values={'findings': {'go on': 'continue'}},
    tables={'fit': FitConfig, 'grid': FitConfig},
  )
  # Fields that may change when a run is resumed: they do not change its results.
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

  def accepts(self, kind: str) -> bool:
    """Whether a run continues in spite of findings of this kind."""
    return self.findings == 'continue' or self.names(kind)

  def names(self, kind: str) -> bool:
    """Whether `findings` names this kind."""
    return kind in self.findings.split(',')

  @property
  def finetunes(self) -> bool:
    """Whether the backbone is fine-tuned."""
    return self.backbone == 'fine-tuned'

  @property
  def used(self) -> dict[str, EmbeddingSettings]:
    """Name -> settings of the modalities that a row uses."""
    names = dict.fromkeys(m for row in self.rows.values() for m in row.fusion.modalities)
    return {name: self.modalities[name] for name in names}

  @property
  def sources(self) -> tuple[str, ...]:
    """The dataset's own modalities that rows use, each once."""
    sources = dict.fromkeys(each.source for each in self.used.values())
    return tuple(source for source in sources if source not in self.image_sources)

  def tasks_of(self, row: str) -> tuple[str, ...]:
    """The tasks that a row is run on."""
    return self.rows[row].tasks or self.tasks

  @property
  def job_names(self) -> list[str]:
    """Every row on each of its tasks, as tables and results.json name them."""
    return [f'{row}, {task}' for row in self.rows for task in self.tasks_of(row)]

  @property
  def points(self) -> list[dict[str, Any]]:
    """Every combination of the grid's values; a single empty one without a grid."""
    return [dict(zip(self.grid, values)) for values in itertools.product(*self.grid.values())]

  def mixer_config(self, point: Mapping[str, Any], **fixed) -> EmbeddingMixerConfig:
    """The Mixer at a point of the grid, with the fields that the data determine."""
    fields = {k: v for k, v in self.mixer.items() if k != 'name'}
    chosen = {k: v for k, v in point.items() if k in MIXER_FIELDS}
    return embedding_mixer_config.make_config(self.mixer['name'], **{**fields, **chosen, **fixed})

  def encoder_config(self) -> EmbeddingMixerConfig:
    """The Video-Encoder of rows with fusion 'fusion-n'."""
    fields = {k: v for k, v in self.encoder.items() if k != 'name'}
    return embedding_mixer_config.make_config(self.encoder['name'], **fields)

  def fit_config(self, model: EmbeddingMixerConfig, point: Mapping[str, Any]) -> FitConfig:
    """How a model is trained at a point of the grid.

    Raises:
      InputError: a value that training cannot use.
    """
    chosen = {k: v for k, v in point.items() if k in FIT_FIELDS}
    values = {'seeds': self.seeds, **self.fit, **chosen}
    values['steps'] = values.get('steps') or None
    try:
      return FitConfig(model=model, **values)
    except (TypeError, ValueError) as error:
      raise InputError(f'config.fit: {error}') from error

  def to_json(self) -> str:
    """The configuration as a run's config.json holds it."""
    return json.dumps(dataclasses.asdict(self), indent=2, sort_keys=True)
