"""The configuration of an assessment: one config file describes one table of results.

Config files are plain Python with a `get_config()` that returns a ConfigDict, which
`from_config_dict` turns into dataclasses and checks before any work starts.
"""

from painformer_jax.assessment.config.build import (
  ENCODERS,
  changed_fields,
  defaults,
  from_config_dict,
)
from painformer_jax.assessment.config.fields import AssessConfig, Dataset, RowConfig

__all__ = [
  'ENCODERS',
  'AssessConfig',
  'Dataset',
  'RowConfig',
  'changed_fields',
  'defaults',
  'from_config_dict',
]
