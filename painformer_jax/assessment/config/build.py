"""From a config file's ConfigDict to a checked `AssessConfig`."""

import dataclasses
import json
from collections.abc import Mapping

import ml_collections

from painformer_jax.assessment.config.checks import check
from painformer_jax.assessment.config.fields import FIT_FIELDS, MIXER_FIELDS, AssessConfig
from painformer_jax.assessment.mixers.fit_config import FitConfig
from painformer_jax.core.config_fields import build, changes, with_defaults
from painformer_jax.models import embedding_mixer_config

# Preset of the Mixer -> preset of the Video-Encoder of its size.
ENCODERS = {'mixer_laptop': 'video_encoder_laptop', 'mixer_published': 'video_encoder_published'}


def defaults(
  mixer_name: str = 'mixer_laptop', encoder_name: str = 'video_encoder_laptop'
) -> ml_collections.ConfigDict:
  """A config with every field at its default, for config files to start from.

  Args:
    mixer_name, encoder_name: presets. All their fields are written to `config.mixer` and
      `config.encoder`, so that a run's record is complete even if presets change.

  Returns:
    A ConfigDict without dataset, modalities, rows, tasks and protocol, which the file
    must set; `weights` and `data_dir` are ''.

  Raises:
    InputError: there is no such preset.
  """
  plain = AssessConfig(dataset='demo', modalities={}, rows={}, tasks=(), protocol='', weights='')
  tree = dataclasses.asdict(plain)
  for name in ('dataset', 'modalities', 'rows', 'tasks', 'protocol'):
    del tree[name]
  for part, name, further in (('mixer', mixer_name, ()), ('encoder', encoder_name, ('outputs',))):
    shape = dataclasses.asdict(embedding_mixer_config.make_config(name))
    tree[part] = {'name': name} | {field: shape[field] for field in MIXER_FIELDS + further}
  tree['fit'] = {
    f.name: f.default for f in dataclasses.fields(FitConfig) if f.name in FIT_FIELDS
  } | {'steps': 0}
  return ml_collections.ConfigDict(tree)


def from_config_dict(config: ml_collections.ConfigDict | Mapping) -> AssessConfig:
  """Checks a ConfigDict and turns it into an AssessConfig.

  Raises:
    InputError: a field is unknown or missing, or a value does not fit.
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
  check(result)
  return result


def changed_fields(config: AssessConfig, stored: Mapping) -> list[str]:
  """Fields in which a config differs from a run's record, as 'path: stored -> now'.

  Fields that an older release did not have count as having their defaults; those that
  may change when a run is resumed are left out.
  """
  return changes(
    json.loads(config.to_json()), with_defaults(AssessConfig, stored), free=AssessConfig.RESUMABLE
  )
