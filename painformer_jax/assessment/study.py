"""Opens and checks the folder that a configuration names."""

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets import ai4pain, biovid, demo_study, pictures, planted
from painformer_jax.assessment.datasets.recordings import Finding, Study
from painformer_jax.assessment.embedding.sample_images import SampleReader, channels_of
from painformer_jax.core.errors import InputError
from painformer_jax.data.demo.fetch import default_cache_dir

_OPEN = {'ai4pain-2025': ai4pain.open_2025, 'ai4pain-2026': ai4pain.open_2026}


def open_study(config: AssessConfig, workdir: str | os.PathLike) -> Study:
  """Lists the samples; datasets 'demo' and 'planted' are made first, once.

  Args:
    config: of the assessment.
    workdir: where 'demo' and 'planted' put their tables, in `data`.

  Raises:
    InputError: no such folder, or nothing usable in it; fNIRS of a dataset that has none.
  """
  return pictures.with_pictures(_open(config, Path(workdir, 'data')), config.pictures)


def _open(config: AssessConfig, folder: Path) -> Study:
  sources = sources_of(config)
  _check_fnirs(config, sources)
  if config.dataset == 'demo':
    cache = config.data_dir or default_cache_dir()
    return demo_study.open_study(cache, folder, gap=config.gap)
  if config.dataset == 'planted':
    return biovid.open_study(_planted_folder(config, folder), modalities=sources)
  if config.dataset == 'biovid':
    return biovid.open_study(config.data_dir, modalities=sources)
  if config.dataset == 'ai4pain-2024':
    tables = None
    if config.fnirs.path:
      f = config.fnirs
      tables = ai4pain.FnirsTables(
        path=f.path, columns=f.columns, rate=f.rate, delimiter=f.delimiter
      )
    return ai4pain.open_2024(config.data_dir, fnirs=tables, labels=config.labels or None)
  return _OPEN[config.dataset](config.data_dir, modalities=sources)


def _check_fnirs(config: AssessConfig, sources: tuple[str, ...]) -> None:
  """Raises InputError where rows and `config.fnirs` do not agree on fNIRS."""
  taken = ai4pain.FNIRS in sources
  if config.fnirs.path and not taken:
    raise InputError(
      'config.fnirs.path is set, but no row takes fnirs: take '
      'configs/assess_ai4pain.py:2024-fnirs, or leave it empty'
    )
  if taken and not config.fnirs.path and config.dataset == 'ai4pain-2024':
    raise InputError(
      'config.fnirs.path is empty, but rows take fnirs: name one table a clip, such as '
      "--config.fnirs.path='{split}/fnirs/{subject}/{sample}.csv', its channels in "
      'config.fnirs.columns and its rate in config.fnirs.rate'
    )


def check(
  config: AssessConfig,
  study: Study,
  *,
  whole: bool,
  progress: Callable[[str], None] = lambda line: None,
) -> list[Finding]:
  """Everything missing or odd in the study's folder.

  Args:
    config: of the assessment.
    study: from `open_study`.
    whole: also look into every table, at its values, and open every video; else only
      whether every file is there and not empty.
    progress: takes lines.
  """
  depth = 'signals' if whole else 'files'
  findings, own = [], pictures.without_pictures(study, config.pictures)
  if config.dataset == 'biovid':
    findings = biovid.check(own, depth=depth, progress=progress)
  elif config.dataset == 'planted':
    plan = planted_plan(config)
    findings = biovid.check(
      own, depth=depth, subjects=plan.subjects, per_level=plan.per_level, progress=progress
    )
  elif config.dataset != 'demo':
    edition = int(config.dataset.removeprefix('ai4pain-'))
    findings = ai4pain.check(
      own,
      depth=depth,
      segments=ai4pain.SEGMENTS.get(edition),
      people=ai4pain.expected_people(own.root, protocol=config.protocol),
    )
  # Of signals, one table may hold many samples; of pictures, a file is one sample's.
  shown = [
    source
    for source in dict.fromkeys(each.source for each in config.used.values())
    if source in study.modalities and not channels_of(study, source)
  ]
  return [
    *findings,
    *pictures.findings(study, shown, whole=whole, given=list(config.pictures), progress=progress),
    *_config_findings(config, study),
  ]


def _config_findings(config: AssessConfig, study: Study) -> Iterator[Finding]:
  """Modalities that the study does not have, or that cannot be read here."""
  for name, settings in config.used.items():
    where = f'config.modalities.{name}'
    if settings.source not in study.modalities:
      yield Finding(where=where, what=f'no sample of {study.name} has {settings.source}')
      continue
    try:
      SampleReader(settings, channels=channels_of(study, settings.source), image_size=32)
    except InputError as error:
      yield Finding(where=where, what=str(error))


def sources_of(config: AssessConfig) -> tuple[str, ...]:
  """The dataset's own modalities that the rows need, each once."""
  return tuple(
    dict.fromkeys(
      each.source for each in config.used.values() if each.source not in config.pictures
    )
  )


def has_seen_demo(weights: str | os.PathLike) -> bool:
  """Whether the weights are a run that was trained on the tasks of dataset 'demo'."""
  try:
    tasks = json.loads(Path(weights, 'config.json').read_text())['tasks']
  except (OSError, ValueError, KeyError, TypeError):
    return False
  return bool({'stimulus_rest', 'tapping_rest'} & set(tasks))


def planted_plan(config: AssessConfig) -> planted.Plan:
  values = config.planted
  return planted.Plan(
    subjects=values.subjects,
    per_level=values.per_level,
    effect=values.effect,
    subject_spread=values.subject_spread,
    seed=values.seed,
  )


def _planted_folder(config: AssessConfig, folder: Path) -> Path:
  """The planted study at data_dir, else in the workdir; written where there is none."""
  root = Path(config.data_dir) if config.data_dir else folder
  plan = planted_plan(config)
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
