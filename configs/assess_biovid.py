"""BioVid Part A: a table like the paper's, from the dataset's folder and released weights.

    painformer assess --config configs/assess_biovid.py --workdir runs/biovid \\
        --config.data_dir=/data/BioVid --config.weights=painformer.pth

`:mixer_published` behind the file's name takes the published size, a GPU's work; the
laptop size is this project's own. `--check` first lists what is missing. How signals are
drawn, how the Mixer trains and the thermal and depth networks are reconstructed: the
paper's values are not public. Thermal needs a network of yours (ONNX), see `thermal`, or
frames that you have: `config.pictures = dict(thermal='thermal/{subject}/{sample}.mp4')`
and a modality `dict(source='thermal', picture='thermal')`.
"""

from ml_collections import ConfigDict

from painformer_jax.assessment.config import defaults

_ENCODERS = {'mixer_laptop': 'video_encoder_laptop', 'mixer_published': 'video_encoder_published'}
EMG = ('emg_trapezius', 'emg_corrugator', 'emg_zygomaticus')


def get_config(mixer: str = 'mixer_laptop') -> ConfigDict:
  """The table's configuration for a size of the Mixer."""
  config = defaults(mixer, _ENCODERS.get(mixer, 'video_encoder_laptop'))
  config.dataset = 'biovid'
  config.modalities = {
      'rgb': dict(source='video', picture='face'),
      **{name: dict(source=name) for name in ('ecg', 'gsr', *EMG)}}
  def row(label, kind, *modalities, **further):
    return dict(fusion=dict(kind=kind, modalities=modalities, **further), label=label)
  config.rows = {
      'rgb': row('RGB', 'add', 'rgb'),
      'ecg': row('ECG', 'add', 'ecg'),
      'emg': row('EMG', 'add', 'emg_trapezius'),
      'emg-three': row('EMG, three muscles', 'concat', *EMG),
      'gsr': row('GSR', 'add', 'gsr'),
      'gsr-concat': row('GSR', 'concat', 'gsr'),
      'fusion-1': row('RGB+GSR', 'fusion-1', 'rgb', 'gsr'),
      'fusion-2': row('RGB+GSR', 'fusion-2', 'rgb', 'gsr'),
      'fusion-n': row('RGB+GSR', 'fusion-n', 'rgb', 'gsr', coded=('rgb',))}
  config.reference = 'gsr'
  config.tasks = ('BL1-PA4', '5-class')
  config.protocol = 'loso'
  config.normalise = 'none'
  return config


def thermal(network: str, **settings) -> dict:
  """An entry of config.modalities: thermal frames from the video by an .onnx network."""
  return dict(source='video', picture='thermal', network=network, **settings)
