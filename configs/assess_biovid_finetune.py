"""BioVid Part A with the backbone fine-tuned, on the 61/26 hold-out: a GPU's work.

    painformer assess --config configs/assess_biovid_finetune.py --workdir runs/biovid_tuned \\
        --config.data_dir=/data/BioVid --config.weights=painformer.pth

Each row trains a backbone and a Mixer of its own, from images, on 61 people, and tests
them on 26; what it costs is printed first. Beside it stands the same table with
`--config.backbone=frozen` and another --workdir. AI4Pain's fixed split needs no file of
its own: `configs/assess_ai4pain.py` takes `--config.backbone=fine-tuned` (of 2025 and 2026
also `--config.normalise=none`). `:mixer_published` behind this file's name takes the
Mixer's published size. Every value here is this project's: whether and how the paper
fine-tunes is not public.
"""

from ml_collections import ConfigDict

from painformer_jax.assessment.config import ENCODERS, defaults
from painformer_jax.core.errors import InputError


def get_config(size: str = 'mixer_laptop') -> ConfigDict:
  """The fine-tuned table's configuration, with that preset of the Mixer.

  Raises:
    InputError: another preset.
  """
  if size not in ENCODERS:
    raise InputError(f'the Mixer is one of {", ".join(ENCODERS)}, not {size}')
  config = defaults(size, ENCODERS[size])
  config.dataset = 'biovid'
  # Every fifth frame: 28 of a clip, 4 MB of images kept on the disk while it trains.
  config.modalities = dict(
    rgb=dict(source='video', image_type='face', frames=dict(every=5)),
    ecg=dict(source='ecg'),
    gsr=dict(source='gsr'),
  )

  def row(label, kind, *modalities):
    return dict(fusion=dict(kind=kind, modalities=modalities), label=label)

  config.rows = {
    'rgb': row('RGB', 'add', 'rgb'),
    'ecg': row('ECG', 'add', 'ecg'),
    'gsr': row('GSR', 'add', 'gsr'),
    'fusion-1': row('RGB+GSR', 'fusion-1', 'rgb', 'gsr'),
  }
  config.tasks = ('BL1-PA4',)
  config.protocol = 'hold-out'
  config.backbone = 'fine-tuned'
  # The stem and the spectral stages stay: (patch_embed|block|norm)[12].
  config.finetune.frozen = ('(patch_embed|block|norm)[12]/.*',)
  config.finetune.dtype = 'bfloat16'
  config.finetune.images_at_once = 64  # Activations of so many in memory: 6 GB, by count.
  return config
