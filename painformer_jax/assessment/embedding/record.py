"""All that embeddings depend on, so that they are reused only where nothing changed."""

import hashlib
import json
import os
import pathlib
from collections.abc import Iterator, Mapping

import numpy as np

from painformer_jax.assessment.datasets.recordings import Study

_EDGE = 4096  # Bytes at each end of a recording that its fingerprint reads.
INFORMATION = 'made'  # Key of a record for information, which is not compared.


def samples_record(study: Study, source: str) -> dict:
  """The study's samples and where their recordings are, as a count and a hash."""
  digest = hashlib.sha256()
  for sample in study.samples:
    place = sample.data.get(source)
    where = (
      None
      if place is None
      else [
        _relative(place.path, study.root),
        place.columns,
        place.rate,
        place.delimiter,
        place.start,
        place.stop,
        place.padded,
        place.rows,
        place.tolerance,
      ]
    )
    entry = [sample.subject, sample.name, where]
    if source in sample.unusable:
      entry.append(sample.unusable[source])
    digest.update(json.dumps(entry).encode() + b'\n')
  return {'count': len(study.samples), 'sha256': digest.hexdigest()}


def fingerprints(study: Study, source: str) -> dict[str, str]:
  """Recording -> hash of its length, beginning and end; '' for one that is missing.

  Reading a whole dataset at every start would take too long. So a change in the middle of
  a recording that leaves its length the same is not noticed.
  """
  paths = dict.fromkeys(
    sample.data[source].path for sample in study.samples if source in sample.data
  )
  return {_relative(path, study.root): _fingerprint(path) for path in paths}


def arrays_sha256(arrays: Mapping[str, np.ndarray]) -> str:
  """SHA-256 of a model's arrays by path, whatever file format they were read from."""
  digest = hashlib.sha256()
  for path in sorted(arrays):
    array = np.ascontiguousarray(arrays[path])
    digest.update(json.dumps([path, str(array.dtype), array.shape]).encode())
    digest.update(array.reshape(-1).view(np.uint8).data if array.size else b'')
  return digest.hexdigest()


def differences(there, here, path: str = '') -> Iterator[str]:
  """Differences of two records, such as 'settings.signal.window: 5.5 there, 4 here'."""
  if path == INFORMATION:
    return
  if isinstance(there, dict) and isinstance(here, dict):
    for key in dict.fromkeys([*there, *here]):
      yield from differences(there.get(key), here.get(key), f'{path}.{key}' if path else key)
  elif there != here:
    yield f'{path}: {_short(there)} there, {_short(here)} here'


def _fingerprint(path: pathlib.Path) -> str:
  try:
    if path.is_dir():  # Of images: their names and sizes.
      files = sorted((entry.name, entry.stat().st_size) for entry in os.scandir(path))
      return hashlib.sha256(json.dumps(files).encode()).hexdigest()
    with open(path, 'rb') as file:
      size = os.fstat(file.fileno()).st_size
      digest = hashlib.sha256(f'{size} '.encode() + file.read(_EDGE))
      if size > _EDGE:
        file.seek(max(size - _EDGE, _EDGE))
        digest.update(file.read(_EDGE))
      return digest.hexdigest()
  except OSError:
    return ''


def _relative(path: pathlib.Path, root: pathlib.Path) -> str:
  """The path below the study's folder, so that a moved dataset is still the same."""
  try:
    return pathlib.Path(path).relative_to(root).as_posix()
  except ValueError:
    return str(path)


def _short(value) -> str:
  text = value if isinstance(value, str) else json.dumps(value)
  return text if len(text) <= 24 else f'{text[:16]}...'
