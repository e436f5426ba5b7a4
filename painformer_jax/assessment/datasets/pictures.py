"""Videos and folders of images in a study: where further ones lie, and what is odd in them."""

import collections
import dataclasses
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from painformer_jax.assessment.datasets.recordings import Finding, Locator, Sample, Study
from painformer_jax.core.errors import InputError
from painformer_jax.modalities import images, video

# A recording of fewer frames than this share of the usual number is odd.
_SHORT = 0.5


def check_patterns(patterns: Mapping[str, str], *, known: Sequence[str]) -> None:
  """Asserts that patterns name files by split, subject and sample, under names of their own.

  Raises:
    InputError: they do not.
  """
  for name, pattern in patterns.items():
    if name in known:
      raise InputError(f'config.pictures: {name!r} is a source of the dataset; take another name')
    try:
      pattern.format(split='', subject='', sample='')
    except (KeyError, IndexError, ValueError) as error:
      raise InputError(
        f'config.pictures.{name}: {pattern!r} may hold {{split}}, {{subject}} and {{sample}} only'
      ) from error


def with_pictures(study: Study, patterns: Mapping[str, str]) -> Study:
  """The study with further pictures of every sample: thermal frames, depth maps.

  Args:
    study: from a reader of datasets.
    patterns: source -> path below the study's folder, of a video, an image, or a folder
      of images in the order of their names; may hold {split} (as the folder is spelt),
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


def without_pictures(study: Study, names: Iterable[str]) -> Study:
  """The study as its reader listed it."""
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
  """Images in a folder, 'frame2' before 'frame10'.

  Raises:
    InputError: there is none.
  """
  found = [path for path in folder.iterdir() if path.suffix.lower() in images.SUFFIXES]
  if not found:
    raise InputError(f'{folder} holds no image')
  return sorted(
    found,
    key=lambda path: [
      int(part) if part.isdigit() else part for part in re.split(r'(\d+)', path.name)
    ],
  )


def count_pictures(path: Path) -> int:
  """Frames of a video as it says, images of a folder, 1 of an image; 0 of anything else."""
  if path.is_dir():
    try:
      return len(image_files(path))
    except InputError:
      return 0
  if path.suffix.lower() in images.SUFFIXES:
    return 1
  return video.count_frames(path)


def findings(
  study: Study,
  sources: Sequence[str],
  *,
  whole: bool,
  given: Sequence[str] = (),
  log: Callable[[str], None] = lambda line: None,
) -> Iterator[Finding]:
  """What is missing or odd in the pictures of a study.

  Args:
    study: from `with_pictures`.
    sources: of pictures, to be looked at.
    whole: also open every video; else only whether the files of `given` are there.
    given: those of the sources that the reader of the dataset has not looked for.
    log: gets lines of progress.
  """
  for source in sources:
    counts: dict[Path, int] = {}
    for number, sample in enumerate(study.samples, 1):
      place = sample.data.get(source)
      if place is None or place.columns:
        continue
      path = place.path
      if not path.exists():
        if source in given:
          yield Finding(where=str(path), what=f'no such file or folder, for {source}')
      elif whole:
        counts[path] = count_pictures(path)
        if number % 500 == 0:
          log(f'{source}: {number:,} of {len(study.samples):,} samples opened')
    usual = statistics.median(counts.values()) if counts else 0
    for path, count in counts.items():
      if not count:
        yield Finding(where=str(path), what='holds no picture that can be read')
      elif count < _SHORT * usual:
        yield Finding(where=str(path), what=f'{count} frames, where others have {usual:g}')
    repeated = collections.Counter(
      sample.data[source].path for sample in study.samples if source in sample.data
    )
    for path, times in repeated.items():
      if times > 1:
        yield Finding(where=str(path), what=f'is the {source} of {times} samples')
