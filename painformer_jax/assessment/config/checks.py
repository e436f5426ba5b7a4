"""Checks of a configuration, before any work starts."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from painformer_jax.assessment.config.fields import FIT_FIELDS, MIXER_FIELDS, AssessConfig
from painformer_jax.assessment.datasets import ai4pain, biovid, demo_study, image_sources
from painformer_jax.assessment.datasets.recordings import FINDING_KINDS
from painformer_jax.assessment.folds import protocols, tasks
from painformer_jax.core.config_fields import hint
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer_config


def check(config: AssessConfig) -> None:
  """Checks that the parts of a configuration fit together.

  Raises:
    InputError: they do not.
  """
  _check_names(config)
  _check_networks(config)
  _check_finetuning(config)
  _check_training(config)
  for part in ('mixer', 'encoder'):
    _check_preset(part, getattr(config, part))


def _check_preset(part: str, fields: Mapping[str, Any]) -> None:
  """Refuses the name of one preset with exactly the fields of the other of its kind."""

  def of(name: str) -> dict[str, Any]:
    shape = dataclasses.asdict(embedding_mixer_config.make_config(name))
    return {'name': fields['name']} | {key: shape[key] for key in fields if key != 'name'}

  # A config that gives only some fields replaces them on purpose.
  if not fields.keys() >= {*MIXER_FIELDS} or fields == of(fields['name']):
    return
  kind = fields['name'].rpartition('_')[0]
  for other in embedding_mixer_config.PRESETS:
    if other.rpartition('_')[0] == kind and fields == of(other):
      raise InputError(
        f'config.{part}.name is {fields["name"]!r}, but the other fields are '
        f'those of {other}: name the preset in `defaults(...)`'
      )


def _check_names(config: AssessConfig) -> None:
  """Checks that every name in the config is one of what exists."""
  if not config.data_dir and config.dataset not in ('demo', 'planted'):
    raise InputError(
      f'config.data_dir is empty: name the folder of {config.dataset}, such as '
      f'--config.data_dir=/data/{config.dataset}'
    )
  image_sources.check_patterns(
    config.image_sources,
    known=(*biovid.MODALITIES, *ai4pain.SIGNALS, ai4pain.FNIRS, *demo_study.PICTURE_COLUMNS),
  )
  for name in ('modalities', 'rows', 'tasks', 'seeds'):
    if not getattr(config, name):
      raise InputError(f'config.{name} is empty: name at least one')
  for task in config.tasks:
    if task not in tasks.TASKS:
      raise InputError(f'config.tasks: there is no {task!r}{hint(task, tasks.TASKS)}')
  tasks.check_tasks(config.dataset, config.tasks)
  if config.protocol not in protocols.PROTOCOLS:
    known = hint(config.protocol, protocols.PROTOCOLS)
    raise InputError(f'config.protocol is {config.protocol!r}{known}')
  if (config.protocol == protocols.BLOCKS) != (config.dataset == 'demo'):
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
  if config.reference and config.reference not in config.rows:
    raise InputError(
      f'config.reference: there is no row {config.reference!r}{hint(config.reference, config.rows)}'
    )


def _check_networks(config: AssessConfig) -> None:
  """Refuses thermal and depth frames of RGB videos without anything that makes them."""
  for name, settings in config.used.items():
    if (
      settings.source == 'video'
      and settings.image_type in ('thermal', 'depth')
      and not settings.network
      and not settings.stand_in
    ):
      raise InputError(
        f'config.modalities.{name}: the videos are RGB: name an .onnx file that makes '
        f'{settings.image_type} frames of them (--config.modalities.{name}.network=FILE)'
        + (
          f', or take the face mesh (--config.modalities.{name}.stand_in=True)'
          if settings.image_type == 'depth'
          else ''
        )
        + ', or frames of your own in config.image_sources'
      )


def _check_finetuning(config: AssessConfig) -> None:
  """Refuses what cannot be combined with a fine-tuned backbone."""
  if config.hold_out and config.protocol != 'hold-out':
    raise InputError(
      f"config.hold_out names subjects, but config.protocol is '{config.protocol}': take 'hold-out'"
    )
  if not config.finetunes:
    return
  reasons = {
    'protocol': (
      config.protocol not in protocols.FIXED,
      'fine-tuning would train a backbone for every fold; take a protocol of one fold '
      f'({", ".join(map(repr, protocols.FIXED))})',
    ),
    'normalise': (
      config.normalise != 'none',
      "the embeddings change while the backbone learns; take 'none'",
    ),
    'grid': (bool(config.grid), 'every point would train a backbone; choose the values'),
    'assessor': (config.assessor, 'only Mixers on a frozen backbone can be stored for assess-clip'),
  }
  for name, (wrong, why) in reasons.items():
    if wrong:
      raise InputError(
        f'config.{name} is {getattr(config, name)!r}, but config.backbone is '
        f"'fine-tuned': {why}, or set config.backbone to 'frozen'"
      )


def _check_training(config: AssessConfig) -> None:
  """Refuses values that no training could use."""
  for part in ('mixer', 'encoder'):
    values = getattr(config, part)
    known = ('name', *MIXER_FIELDS, *(('outputs',) if part == 'encoder' else ()))
    for field in values:
      if field not in known:
        raise InputError(f'config.{part} has no field {field!r}{hint(field, known)}')
    name, presets = values.get('name'), embedding_mixer_config.PRESETS
    if name not in presets:
      raise InputError(f'config.{part}.name is {name!r}{hint(name, presets)}')
  for field in config.fit:
    if field not in FIT_FIELDS:
      raise InputError(f'config.fit has no field {field!r}{hint(field, FIT_FIELDS)}')
  for field, values in config.grid.items():
    if field not in FIT_FIELDS + MIXER_FIELDS:
      raise InputError(
        f'config.grid has no field {field!r}{hint(field, FIT_FIELDS + MIXER_FIELDS)}'
      )
    if not isinstance(values, (list, tuple)) or not values:
      raise InputError(f'config.grid.{field} is {values!r}: list the values to choose among')
  if config.findings not in ('stop', 'continue'):
    for kind in config.findings.split(','):
      if kind not in FINDING_KINDS:
        known = ('stop', 'continue', *FINDING_KINDS)
        raise InputError(f'config.findings: there is no {kind!r}{hint(kind, known)}')
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
