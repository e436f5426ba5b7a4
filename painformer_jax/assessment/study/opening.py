"""Opens the dataset folder that a configuration names."""

import os
from pathlib import Path

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets import (
  ai4pain,
  ai4pain_2024,
  ai4pain_segments,
  biovid,
  demo_study,
  image_sources,
  planted,
)
from painformer_jax.assessment.datasets.recordings import Study
from painformer_jax.core.errors import InputError
from painformer_jax.data.demo.fetch import default_cache_dir


def open_study(config: AssessConfig, workdir: str | os.PathLike) -> Study:
  """Lists the samples of a dataset; 'demo' and 'planted' are written first, once.

  Args:
    config: of the assessment.
    workdir: 'demo' and 'planted' are written to its folder `data`.

  Raises:
    InputError: the folder is missing or has no usable sample, or a row uses a modality
      that the dataset does not have.
  """
  study = _open_dataset(config, Path(workdir, 'data'))
  return image_sources.with_image_sources(study, config.image_sources)


def _open_dataset(config: AssessConfig, folder: Path) -> Study:
  """The study without the further image sources of the config."""
  _check_fnirs(config)
  if config.dataset == 'demo':
    cache = config.data_dir or default_cache_dir()
    return demo_study.open_study(cache, folder, gap=config.gap)
  if config.dataset == 'planted':
    return biovid.open_study(_planted_folder(config, folder), modalities=config.sources)
  if config.dataset == 'biovid':
    return biovid.open_study(config.data_dir, modalities=config.sources)
  if config.dataset == 'ai4pain-2024':
    return ai4pain_2024.open_study(
      config.data_dir, fnirs=config.fnirs, labels=config.labels or None
    )
  edition = int(config.dataset.removeprefix('ai4pain-'))
  return ai4pain_segments.open_study(config.data_dir, edition, modalities=config.sources)


def _check_fnirs(config: AssessConfig) -> None:
  """Refuses rows that use fNIRS without a path to it, and a path that no row uses."""
  used = ai4pain.FNIRS in config.sources
  if config.fnirs.path and not used:
    raise InputError(
      'config.fnirs.path is set, but no row takes fnirs: take '
      'configs/assess_ai4pain.py:2024-fnirs, or leave it empty'
    )
  if used and not config.fnirs.path and config.dataset == 'ai4pain-2024':
    raise InputError(
      'config.fnirs.path is empty, but rows take fnirs: name one table per clip, such as '
      "--config.fnirs.path='{split}/fnirs/{subject}/{sample}.csv', its channels in "
      'config.fnirs.columns and its rate in config.fnirs.rate'
    )


def _planted_folder(config: AssessConfig, folder: Path) -> Path:
  """The folder of the planted study: `data_dir`, else in the workdir; written if missing."""
  root, plan = Path(config.data_dir) if config.data_dir else folder, config.planted
  if not root.exists():
    try:
      root.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
      raise InputError(f'{root.parent} cannot be made: {error.strerror}') from error
    return planted.write_study(root, plan)
  found = planted.read_plan(root)
  if found is None:
    raise InputError(f'{root} exists and is no planted study: name another config.data_dir')
  if found != plan:
    raise InputError(
      f'{root} was planted with {found}, the config asks for {plan}: name another config.data_dir'
    )
  return root
