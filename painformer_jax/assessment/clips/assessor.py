"""A trained Embedding-Mixer with all that it takes to use it on a new recording.

    assessor.json   the classes, the modalities, how embeddings are made, and the scores
    arrays.npz      its parameters of every seed, and the embeddings' mean and spread

It is trained on all samples of a study. Its scores are those that the folds of the same
assessment reached on samples they had not seen.
"""

import dataclasses
import json
import os
import pathlib
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from painformer_jax.assessment.clips.calibration import calibrated
from painformer_jax.assessment.embedding.modality_folder import Tokens
from painformer_jax.assessment.embedding.sample_images import EmbeddingSettings
from painformer_jax.assessment.embedding.sample_shape import SampleShape
from painformer_jax.assessment.experiment.normalise import normalised
from painformer_jax.assessment.mixers.fusion import FusionConfig, decide
from painformer_jax.assessment.mixers.inputs import assemble
from painformer_jax.assessment.mixers.predict import predict
from painformer_jax.assessment.results import summary as results
from painformer_jax.core.config_fields import build, with_defaults
from painformer_jax.core.errors import InputError
from painformer_jax.models import embedding_mixer
from painformer_jax.models.embedding_mixer_config import EmbeddingMixerConfig

DESCRIPTION = 'assessor.json'
ARRAYS = 'arrays.npz'
FORMAT = 'painformer assessor'
VERSION = 1


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Assessor:
  """A trained assessor, as `load` reads it.

  Attributes:
    task: name of the task.
    classes: names of its classes.
    fusion: of its modalities.
    settings: name -> how that modality is embedded.
    sources: name -> what a sample of that modality was in training.
    normalise: of `AssessConfig.normalise`.
    mean, std: name -> float64 [tokens, width], of the training samples.
    models: of each input of the fusion.
    parameters: of each input, path -> float32 [seeds, ...].
    temperature: that logits are divided by.
    weights: of the backbone, 'path' and 'sha256'.
    measured: accuracy, its interval and calibration, of the folds.
    synthetic: whether it was trained on signals that nobody was recorded for.
  """

  task: str
  classes: tuple[str, ...]
  fusion: FusionConfig
  settings: Mapping[str, EmbeddingSettings]
  sources: Mapping[str, SampleShape]
  normalise: str
  mean: Mapping[str, np.ndarray]
  std: Mapping[str, np.ndarray]
  models: tuple[EmbeddingMixerConfig, ...]
  parameters: tuple[Mapping[str, np.ndarray], ...]
  temperature: float
  weights: Mapping[str, str]
  measured: Mapping[str, Any]
  synthetic: bool = False

  @property
  def notice(self) -> str:
    """What a reader of its levels must know first, in one line."""
    if not self.synthetic:
      return results.NOTICE
    dataset = self.measured.get('dataset', 'a synthetic study')
    return (
      f'Trained on synthetic recordings ({dataset}): these levels say nothing about any person. '
      f'{results.NOTICE}'
    )

  @property
  def is_relative(self) -> bool:
    """Whether it standardises a recording by its own windows.

    Its levels then say how a window differs from the others of the same recording.
    """
    return self.normalise == 'subject'

  def probabilities(self, tokens: Mapping[str, Tokens]) -> np.ndarray:
    """The probability of each class, averaged over seeds.

    Args:
      tokens: embeddings of its modalities, not normalised, all of the same samples.

    Returns:
      float64 [samples, classes].
    """
    ready = {name: self._normalised(name, part) for name, part in tokens.items()}
    inputs = assemble(self.fusion, ready)
    logits = [
      predict(model, parameters, each, seeds=True)
      for model, parameters, each in zip(self.models, self.parameters, inputs)
    ]
    joined = decide(self.fusion, logits, there=[each.there for each in inputs])
    return calibrated(joined.astype(np.float64), self.temperature).mean(axis=0)

  def _normalised(self, name: str, tokens: Tokens) -> Tokens:
    if self.normalise == 'none':
      return tokens
    if self.normalise == 'subject':
      one = np.zeros(len(tokens.values), int).astype(str)
      return normalised(tokens, one, how='subject')
    values = (tokens.values - self.mean[name]) / self.std[name]
    return dataclasses.replace(tokens, values=values.astype(np.float32))


def load(folder: str | os.PathLike) -> Assessor:
  """Reads a folder that `train.save` wrote.

  Raises:
    InputError: it is no such folder, or damaged.
  """
  folder = pathlib.Path(folder)
  if not (folder / DESCRIPTION).is_file():
    raise InputError(
      f'{folder} holds no trained assessor (no {DESCRIPTION}): `painformer assess` '
      'with --config.assessor=True writes them to assessors/ of its workdir'
    )
  try:
    tree = json.loads((folder / DESCRIPTION).read_text())
    if tree['format'] != FORMAT or tree['version'] > VERSION:
      raise ValueError('of another format or a newer version')
    with np.load(folder / ARRAYS, allow_pickle=False) as file:
      arrays = {name: file[name] for name in file.files}
    models = tuple(build(EmbeddingMixerConfig, m, where='models') for m in tree['models'])
    parameters = tuple(_below(arrays, f'{n}/') for n in range(len(models)))
    for model, own in zip(models, parameters):
      if own.keys() != embedding_mixer.abstract_parameters(model).keys():
        raise ValueError('its arrays are not those of its models')
    return Assessor(
      task=tree['task'],
      classes=tuple(tree['classes']),
      fusion=build(FusionConfig, tree['fusion'], where='fusion'),
      settings={
        name: build(EmbeddingSettings, with_defaults(EmbeddingSettings, s), where=name)
        for name, s in tree['settings'].items()
      },
      sources={name: build(SampleShape, s, where=name) for name, s in tree['sources'].items()},
      normalise=tree['normalise'],
      mean=_below(arrays, 'mean/'),
      std=_below(arrays, 'std/'),
      models=models,
      parameters=parameters,
      temperature=float(tree['temperature']),
      weights=tree['weights'],
      measured=tree['measured'],
      # Assessors of older releases say it by the name of their study.
      synthetic=bool(
        tree.get('synthetic', 'synthetic' in str(tree['measured'].get('dataset', '')))
      ),
    )
  except (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    EOFError,
    zipfile.BadZipFile,
    InputError,
  ) as error:
    raise InputError(f'{folder} is damaged ({error}): make it again') from error


def _below(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
  return {name.removeprefix(prefix): a for name, a in arrays.items() if name.startswith(prefix)}
