"""A trained assessor on one recording: a level with a probability over time.

Windows as long as the samples of its training slide over the recording. It abstains where
the face or a signal is missing for too much of a window, and where no face is found in a
window but only followed from others.
"""

import dataclasses
import os
from collections.abc import Mapping

import numpy as np

from painformer_jax.assessment.clips.assessor import Assessor
from painformer_jax.assessment.clips.curve import RELATIVE, Curve
from painformer_jax.assessment.clips.recording import Recording
from painformer_jax.assessment.clips.signals import RecordedSignals
from painformer_jax.assessment.clips.videos import RecordedVideo
from painformer_jax.assessment.embedding.record import arrays_sha256
from painformer_jax.core.errors import InputError, counted
from painformer_jax.core.progress import Log
from painformer_jax.embedding.inference import Embedder
from painformer_jax.modalities.windows import check_step
from painformer_jax.models import functional
from painformer_jax.weights.load import read_weights

# Share of a window that a recording must last at least.
_WHOLE = 0.98
# Fewest windows to standardise a person's embeddings by.
_OWN_WINDOWS = 8


def assess_clip(
  assessor: Assessor,
  recordings: Mapping[str, Recording],
  *,
  step: float = 1.0,
  weights: str | os.PathLike | None = None,
  batch_size: int = 16,
  log: Log = lambda line: None,
) -> Curve:
  """Slides the assessor over a recording.

  It abstains from windows that cannot be judged.

  Args:
    assessor: from `assessor.load`.
    recordings: source, such as 'video' or 'gsr' -> its file; exactly those that the
      assessor needs. All start at the same moment.
    step: seconds from one window's start to the next one's; at least a thousandth of the window.
    weights: path of the backbone's weights, which must be those of training; None for
      the path in training.
    batch_size: images that are embedded at once.
    log: takes lines.

  Raises:
    InputError: a source is missing or unknown, other weights, a file that cannot be
      read, or one shorter than a window.
  """
  needed = {each.source for each in assessor.settings.values()}
  if needed != recordings.keys():
    raise InputError(
      f'this assessor takes {", ".join(sorted(needed))}; given were '
      f'{", ".join(sorted(recordings)) or "none"}'
    )
  if not 0 < step < float('inf'):
    raise InputError(f'the step must be above 0 s, not {step:g}')
  if batch_size < 1:
    raise InputError(f'the batch size must be at least 1, not {batch_size}')
  window = max(source.seconds for source in assessor.sources.values())
  check_step(step, window)
  embedder, size = _embedder(assessor, weights, batch_size)
  parts = {}
  for name, settings in assessor.settings.items():
    trained = assessor.sources[name]
    kind = RecordedSignals if trained.channels else RecordedVideo
    parts[name] = kind(
      settings, trained, recordings[settings.source], embedder=embedder, image_size=size
    )
  for remark in dict.fromkeys(part.remark for part in parts.values() if part.remark):
    log(remark)
  length = min(part.seconds for part in parts.values())
  if length < _WHOLE * window:
    raise InputError(
      f'the recording lasts {length:.2f} s; this assessor judges windows of {window:.2f} s'
    )
  # A window may reach a sample or a frame beyond the end, as those of training may.
  starts = np.arange(max(1, int((length - window) / step + 1.001))) * step
  log(f'{counted(len(starts), "window")} of {window:.2f} s')
  if assessor.is_relative:
    log(RELATIVE)
  found = {name: part.windows(starts, log=log) for name, part in parts.items()}
  reasons = tuple(
    '; '.join(filter(None, each)) for each in zip(*(part.reasons for part in found.values()))
  )
  judged = [number for number, reason in enumerate(reasons) if not reason]
  if assessor.is_relative and 0 < len(judged) < _OWN_WINDOWS:
    raise InputError(
      f'{counted(len(judged), "window")} can be judged; this assessor needs {_OWN_WINDOWS} to '
      "standardise a person's recording by: give a longer one, or a shorter step"
    )
  probability = np.full((len(starts), len(assessor.classes)), np.nan)
  if judged:
    probability[judged] = assessor.probabilities(
      {
        name: dataclasses.replace(
          part.tokens, values=part.tokens.values[judged], mask=part.tokens.mask[judged]
        )
        for name, part in found.items()
      }
    )
  return Curve(
    classes=assessor.classes,
    start=starts,
    stop=starts + window,
    probability=probability,
    reason=reasons,
  )


def _embedder(
  assessor: Assessor, weights: str | os.PathLike | None, batch_size: int
) -> tuple[Embedder, int]:
  """The backbone of training, and the side of its images in pixels."""
  path = weights or assessor.weights['path']
  stored = read_weights(path)
  arrays = {name: a for name, a in stored.variables.items() if not name.startswith('head/')}
  if arrays_sha256(arrays) != assessor.weights['sha256']:
    raise InputError(
      f'{path} holds other weights than this assessor was trained with: name those (--weights)'
    )
  config = dataclasses.replace(stored.config, num_classes=0)
  return Embedder(
    functional.from_variables(config, arrays), batch_size=batch_size
  ), config.image_size
