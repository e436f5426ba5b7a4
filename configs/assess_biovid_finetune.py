"""BioVid Part A with a fine-tuned backbone, on the 61/26 hold-out; needs a GPU.

    painformer assess --config configs/assess_biovid_finetune.py --workdir runs/biovid_tuned \\
        --config.data_dir=/data/BioVid --config.weights=painformer.pth

Each row trains its own backbone and Embedding-Mixer, from images, on 61 subjects and tests
them on 26; the cost is printed first. To compare, run the same table with
`--config.backbone=frozen` and another --workdir. For AI4Pain's fixed split,
`configs/assess_ai4pain.py` takes `--config.backbone=fine-tuned` (for 2025 and 2026 also
`--config.normalise=none`). `:mixer_published` after this file's name uses the published size
of the Embedding-Mixer. All values here are this project's: whether and how the paper
fine-tunes is not public.
"""

from ml_collections import ConfigDict

from painformer_jax import InputError
from painformer_jax.assessment.config import ENCODERS, defaults


def get_config(size: str = 'mixer_laptop') -> ConfigDict:
  """The table's configuration, with a preset of the Embedding-Mixer.

  Raises:
    InputError: there is no such preset.
  """
  if size not in ENCODERS:
    raise InputError(f'the Mixer is one of {", ".join(ENCODERS)}, not {size}')
  config = defaults(size, ENCODERS[size])
  config.dataset = 'biovid'
  # Every fifth frame: 28 per clip, 4 MB of images on the disk while it trains.
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
  # The stem and the spectral stages stay frozen: (patch_embed|block|norm)[12].
  config.finetune.frozen = ('(patch_embed|block|norm)[12]/.*',)
  config.finetune.dtype = 'bfloat16'
  config.finetune.images_at_once = 64  # Activations of 64 images take about 6 GB.
  return config
