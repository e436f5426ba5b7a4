"""Checks the dataset folder that a configuration names."""

import collections
import dataclasses
from collections.abc import Iterable, Iterator

from painformer_jax.assessment.config import AssessConfig
from painformer_jax.assessment.datasets import (
  ai4pain,
  ai4pain_check,
  ai4pain_segments,
  biovid,
  image_sources,
)
from painformer_jax.assessment.datasets.recordings import Finding, Sample, Study, named
from painformer_jax.assessment.embedding.sample_images import SampleReader
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log


def check_study(
  config: AssessConfig, study: Study, *, whole: bool, log: Log = lambda line: None
) -> list[Finding]:
  """Lists everything missing or odd in a study's folder.

  Args:
    config: of the assessment.
    study: from `opening.open_study`.
    whole: whether to also read every table and open every video; otherwise only whether
      every file is there and not empty.
    log: gets lines of progress.
  """
  dataset = image_sources.without_image_sources(study, config.image_sources)
  findings: list[Finding] = []
  rules = {each.source: each.signal.quality for each in config.used.values()}
  if config.dataset == 'biovid':
    findings = biovid.check(dataset, whole=whole, rules=rules, log=log)
  elif config.dataset == 'planted':
    plan = config.planted
    findings = biovid.check(
      dataset, whole=whole, subjects=plan.subjects, per_level=plan.per_level, rules=rules, log=log
    )
  elif config.dataset != 'demo':
    edition = int(config.dataset.removeprefix('ai4pain-'))
    findings = ai4pain_check.check(
      dataset,
      whole=whole,
      segments=ai4pain_segments.SEGMENTS.get(edition),
      subjects=ai4pain.expected_subjects(dataset.root, protocol=config.protocol),
      rules=rules,
    )
  return [
    *findings,
    *_image_findings(config, study, whole=whole, log=log),
    *_modality_findings(config, study),
  ]


def findings_that_stop(config: AssessConfig, findings: Iterable[Finding]) -> list[Finding]:
  """Findings because of which a run does not begin.

  Those that `config.findings` accepts are not among them, nor those of signals that are odd
  but usable, which `--check` alone lists.
  """
  odd = ('blank', 'flat', 'spike', 'clipped', 'length', 'time')
  return [f for f in findings if not config.accepts(f.kind) and (f.unusable or f.kind not in odd)]


def without_copies(study: Study, findings: Iterable[Finding]) -> Study:
  """The study without any recording that is there twice: which copy is true is not known."""
  reasons: dict[str, dict[str, str]] = collections.defaultdict(dict)
  for copies in (copies for finding in findings for copies in finding.copies):
    for name, source in copies.recordings:
      others = [
        own if other == name else f'that of {other}' if own == source else f'the {own} of {other}'
        for other, own in copies.recordings
        if (other, own) != (name, source)
      ]
      reasons[name][source] = f'its {source} is the same recording as {named(others)}'
  return dataclasses.replace(
    study,
    samples=tuple(
      dataclasses.replace(sample, unusable={**sample.unusable, **reasons[sample.name]})
      if sample.name in reasons
      else sample
      for sample in study.samples
    ),
  )


def without_faint(study: Study, findings: Iterable[Finding]) -> Study:
  """The study without signals that only a comparison with others shows to be unusable."""
  reasons = {
    (name, source): str(finding)
    for finding in findings
    for name in finding.samples
    for source in finding.sources
  }

  def without(sample: Sample) -> Sample:
    own = {source: reason for (name, source), reason in reasons.items() if name == sample.name}
    return dataclasses.replace(sample, unusable={**sample.unusable, **own}) if own else sample

  return dataclasses.replace(study, samples=tuple(map(without, study.samples)))


def _image_findings(
  config: AssessConfig, study: Study, *, whole: bool, log: Log
) -> Iterator[Finding]:
  """Problems of videos and image folders, each of which belongs to a single sample."""
  sources = [
    source
    for source in dict.fromkeys(each.source for each in config.used.values())
    if source in study.modalities and not study.channels_of(source)
  ]
  return image_sources.findings(
    study, sources, whole=whole, given=list(config.image_sources), log=log
  )


def _modality_findings(config: AssessConfig, study: Study) -> Iterator[Finding]:
  """Modalities that the study does not have, or that cannot be read on this machine."""
  for name, settings in config.used.items():
    where = f'config.modalities.{name}'
    if settings.source not in study.modalities:
      yield Finding(
        where=where, what=f'no sample of {study.name} has {settings.source}', kind='setting'
      )
      continue
    try:
      SampleReader(settings, channels=study.channels_of(settings.source), image_size=32)
    except InputError as error:
      yield Finding(where=where, what=str(error), kind='setting')
