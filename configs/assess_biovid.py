"""BioVid Part A: a table like the paper's, from the dataset's folder and released weights.

    painformer assess --config configs/assess_biovid.py --workdir runs/biovid \\
        --config.data_dir=/data/BioVid --config.weights=painformer.pth

`:mixer_published` after the file's name uses the published size, which needs a GPU; the
laptop size is this project's own. `--check` lists what is missing. How signals are drawn as
images and how the Embedding-Mixer is trained is reconstructed: the paper's values are not
public. Further tables: `--config.protocol=loso-reactive` (67 subjects) or `hold-out`, each
with its own --workdir; with `--config.embeddings=runs/biovid_embeddings` they share the
embeddings.

`:signals` leaves the videos out: rows of ECG, EMG and GSR, alone and fused.

BioVid has no thermal or depth videos; the paper makes both from RGB. `:thermal,depth`
after the file's name (or `:mixer_published,thermal,depth`, or one of them) adds their
rows and, with both, RGB+thermal+depth+GSR. Each needs a network that you have:

    --config.modalities.thermal.network=thermal.onnx \\
    --config.modalities.depth.network=depth.onnx

or for depth the face mesh, labelled as a stand-in: `--config.modalities.depth.stand_in=True`.
To use thermal or depth frames that you have instead:

    --config.image_sources="{'thermal': 'thermal/{subject}/{sample}.mp4'}" \\
    --config.modalities.thermal.source=thermal --config.modalities.thermal.frames.crop=False

Which modalities the paper's Fusion N encodes is not public; here it is all of the face.
"""

from ml_collections import ConfigDict

from painformer_jax import InputError
from painformer_jax.assessment.config import ENCODERS, defaults

MADE = ('thermal', 'depth')  # From the videos, by a network.
SIGNALS = 'signals'  # Without the videos.
# What may be written after the file's name, each of which adds or removes fields.
OPTIONS = (*MADE, ','.join(MADE), SIGNALS)
EMG = ('emg_trapezius', 'emg_corrugator', 'emg_zygomaticus')


def get_config(options: str = '') -> ConfigDict:
  """The table's configuration.

  Args:
    options: separated by commas: a preset of the Embedding-Mixer, 'thermal', 'depth',
      'signals'.

  Raises:
    InputError: an option is none of these, or 'signals' meets one that needs videos.
  """
  chosen = [option for option in options.split(',') if option]
  sizes = [option for option in chosen if option not in (*MADE, SIGNALS)] or ['mixer_laptop']
  if len(sizes) > 1 or sizes[0] not in ENCODERS:
    raise InputError(
      f'configs/assess_biovid.py takes one of {", ".join(ENCODERS)}, and '
      f'{", ".join((*MADE, SIGNALS))}, not {options!r}'
    )
  config = defaults(sizes[0], ENCODERS[sizes[0]])
  config.dataset = 'biovid'
  made = [name for name in MADE if name in chosen]
  with_videos = SIGNALS not in chosen
  if made and not with_videos:
    raise InputError(
      f'configs/assess_biovid.py:{options}: {made[0]} is made from the videos, which '
      f'{SIGNALS!r} leaves out'
    )
  config.modalities = {
    **({'rgb': dict(source='video', image_type='face')} if with_videos else {}),
    **{
      name: dict(
        source='video', image_type=name, network='', stand_in=False, frames=dict(crop=True)
      )
      for name in made
    },
    **{name: dict(source=name) for name in ('ecg', 'gsr', *EMG)},
  }

  def row(label, kind, *modalities, **further):
    return dict(fusion=dict(kind=kind, modalities=modalities, **further), label=label)

  config.rows = {
    'ecg': row('ECG', 'add', 'ecg'),
    'emg': row('EMG', 'add', 'emg_trapezius'),
    'emg-three': row('EMG, three muscles', 'concat', *EMG),
    'gsr': row('GSR', 'add', 'gsr'),
    'gsr-concat': row('GSR', 'concat', 'gsr'),
  }
  if with_videos:
    config.rows.update(
      {
        'rgb': row('RGB', 'add', 'rgb'),
        'fusion-1': row('RGB+GSR', 'fusion-1', 'rgb', 'gsr'),
        'fusion-2': row('RGB+GSR', 'fusion-2', 'rgb', 'gsr'),
        'fusion-n': row('RGB+GSR', 'fusion-n', 'rgb', 'gsr', coded=('rgb',)),
      }
    )
  else:
    config.rows.update(
      {
        'fusion-1': row('ECG+EMG+GSR', 'fusion-1', 'ecg', 'emg_trapezius', 'gsr'),
        'fusion-2': row('ECG+EMG+GSR', 'fusion-2', 'ecg', 'emg_trapezius', 'gsr'),
      }
    )
  for name in made:
    config.rows[name] = row(name, 'add', name)
  if len(made) == 2:
    label, face = 'RGB+thermal+depth+GSR', ('rgb', *made)
    config.rows['all-1'] = row(label, 'fusion-1', *face, 'gsr')
    config.rows['all-2'] = row(label, 'fusion-2', *face, 'gsr')
    config.rows['all-n'] = row(label, 'fusion-n', *face, 'gsr', coded=face)
  config.reference = 'gsr'
  config.tasks = ('BL1-PA4', '5-class')
  config.protocol = 'loso'
  config.normalise = 'none'
  return config
