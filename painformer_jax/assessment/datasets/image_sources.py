"""Videos and folders of images: further ones beside a dataset, and checks of them all."""

import collections
import dataclasses
import re
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from painformer_jax.assessment.datasets import clip_check
from painformer_jax.assessment.datasets.copies import CopyFinder
from painformer_jax.assessment.datasets.copies import findings as copies_of
from painformer_jax.assessment.datasets.recordings import Copies, Finding, Locator, Sample, Study
from painformer_jax.core.errors import InputError
from painformer_jax.core.progress import Log
from painformer_jax.modalities import images, video

# A recording with fewer frames than this share of the median is reported.
_SHORT = 0.5


def check_patterns(patterns: Mapping[str, str], *, known: Sequence[str]) -> None:
  """Checks the paths of further image sources and their names.

  Args:
    patterns: source -> path, see `with_image_sources`.
    known: sources of the dataset itself, whose names are taken.

  Raises:
    InputError: a name is taken, or a path holds other fields than split, subject, sample.
  """
  for name, pattern in patterns.items():
    if name in known:
      raise InputError(
        f'config.image_sources: {name!r} is a source of the dataset; take another name'
      )
    try:
      pattern.format(split='', subject='', sample='')
    except (KeyError, IndexError, ValueError) as error:
      raise InputError(
        f'config.image_sources.{name}: {pattern!r} may hold {{split}}, {{subject}} and '
        '{sample} only'
      ) from error


def with_image_sources(study: Study, patterns: Mapping[str, str]) -> Study:
  """The study with further images of every sample, such as thermal or depth frames.

  Args:
    study: from a dataset reader.
    patterns: source -> path below the study's folder, of a video, an image, or a folder
      of images in the order of their names; it may hold {split} (the name of its folder),
      {subject} and {sample}.
  """

  def extended(sample: Sample) -> Sample:
    places = {
      name: Locator(
        path=study.root
        / pattern.format(
          split=sample.folder, subject=sample.subject, sample=sample.name.rpartition('/')[2]
        )
      )
      for name, pattern in patterns.items()
    }
    return dataclasses.replace(sample, data={**sample.data, **places})

  return dataclasses.replace(study, samples=tuple(map(extended, study.samples)))


def without_image_sources(study: Study, names: Iterable[str]) -> Study:
  """The study as the dataset reader listed it, without these sources."""
  return dataclasses.replace(
    study,
    samples=tuple(
      dataclasses.replace(
        sample, data={m: place for m, place in sample.data.items() if m not in names}
      )
      for sample in study.samples
    ),
  )


def image_files(folder: Path) -> list[Path]:
  """The images in a folder, 'frame2' before 'frame10'.

  Raises:
    InputError: there are none.
  """
  found = [
    path
    for path in folder.iterdir()
    if path.suffix.lower() in images.SUFFIXES and not path.name.startswith('.')
  ]
  if not found:
    raise InputError(f'{folder} holds no image')
  return sorted(
    found,
    key=lambda path: [
      int(part) if part.isdigit() else part for part in re.split(r'(\d+)', path.name)
    ],
  )


def count_images(path: Path) -> int:
  """Frames that a video says it has, images and their pages in a folder; 0 for others."""
  if path.is_dir():
    try:
      return sum(max(1, images.count_pages(file)) for file in image_files(path))
    except InputError:
      return 0
  if path.suffix.lower() in images.SUFFIXES:
    return images.count_pages(path)
  return video.count_frames(path)


def findings(
  study: Study,
  sources: Sequence[str],
  *,
  whole: bool,
  given: Sequence[str] = (),
  log: Log = lambda line: None,
) -> Iterator[Finding]:
  """What is missing or odd in the videos and images of a study.

  Args:
    study: from `with_image_sources`.
    sources: the sources of images to check.
    whole: whether to open every video: does it show anything, at the right rate, and is it
      there twice? Otherwise only whether the files of `given` exist.
    given: the sources that the dataset's own check does not look for.
    log: gets lines of progress.
  """
  for source in sources:
    counts: dict[Path, int] = {}
    rates: dict[Path, float] = {}  # Where the study itself fixes none.
    copies, clips = CopyFinder(), []
    for sample in study.samples:
      place = sample.data.get(source)
      if place is None or place.columns:
        continue
      path = place.path
      if path.is_file() and not path.stat().st_size and source not in given:
        continue  # Reported as missing.
      if not path.exists():
        if source in given:
          what = f'no such file or folder, for {source}'
          yield Finding(where=str(path), what=what, kind='missing')
      elif whole and path not in counts:
        counts[path] = count_images(path)
        copies.add_file(sample, source, path)
        if counts[path] and is_clip(path):
          clips.append((sample, place))
    states = clip_check.read_states([place.path for _, place in clips])
    for number, ((sample, place), state) in enumerate(zip(clips, states), 1):
      if number % 100 == 0:
        log(f'{source}: {number:,} of {len(clips):,} videos read')
      if isinstance(state, InputError):
        yield Finding(what=str(state), kind='damaged')
        continue
      for finding in clip_check.clip_faults(place, state):
        yield dataclasses.replace(finding, samples=(sample.name,))
      if state.rate and not place.rate:
        rates[place.path] = state.rate
      copies.add_clip(sample, source, state.thumbnails)
    usual = statistics.median(counts.values()) if counts else 0
    for path, count in counts.items():
      if not count:
        what = 'holds no image that can be read'
        yield Finding(where=str(path), what=what, kind='damaged')
      elif count == 1 and is_clip(path):
        continue  # Reported above.
      elif count < _SHORT * usual or count > usual / _SHORT:
        what = f'{count} frames, where the median is {usual:g}'
        yield Finding(where=str(path), what=what, kind='length')
    due = statistics.median(rates.values()) if rates else 0.0
    for path, rate in rates.items():
      if clip_check.other_rate(rate, due):
        what = f'{rate:.4g} frames a second, where the median is {due:.4g}'
        yield Finding(where=str(path), what=what, kind='time')
    repeated = collections.Counter(
      sample.data[source].path for sample in study.samples if source in sample.data
    )
    for path, times in repeated.items():
      if times > 1:
        what = f'is the {source} of {times} samples'
        same = tuple(s.name for s in study.samples if _path(s, source) == path)
        yield Finding(
          where=str(path),
          what=what,
          kind='duplicate',
          copies=(Copies(recordings=tuple((name, source) for name in same)),),
        )
    yield from copies_of(copies.copies(), study.samples)


def is_clip(path: Path) -> bool:
  """Whether a path is of a video, not of an image or a folder."""
  return not path.is_dir() and path.suffix.lower() not in images.SUFFIXES


def _path(sample: Sample, source: str) -> Path | None:
  place = sample.data.get(source)
  return None if place is None else place.path
