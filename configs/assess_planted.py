"""The whole assessment on synthetic signals with a known effect, as a test of the pipeline.

A folder in BioVid's layout is written first. Skin conductance contains the planted effect,
so its accuracy must come out near the best possible one; ECG contains none and must come out
at chance, as must shuffled labels. No person was recorded: this says nothing of PainFormer.
"""

from ml_collections import ConfigDict

from painformer_jax.assessment.config import defaults


def get_config() -> ConfigDict:
  """The planted study's configuration; name the backbone with --config.weights."""
  config = defaults()
  config.dataset = 'planted'
  config.planted.subjects = 40
  config.planted.per_level = 10
  config.planted.effect = 2.0
  config.planted.subject_spread = 0.5
  waveform = dict(representations=('waveform',))
  config.modalities = dict(
    gsr=dict(source='gsr', signal=waveform), ecg=dict(source='ecg', signal=waveform)
  )
  config.rows = dict(
    gsr=dict(fusion=dict(kind='add', modalities=('gsr',)), label='GSR'),
    ecg=dict(fusion=dict(kind='add', modalities=('ecg',)), label='ECG'),
  )
  config.tasks = ('BL1-PA4',)
  config.protocol = 'loso'
  config.normalise = 'subject'
  # Small enough for minutes on two cores, and for 780 samples.
  config.mixer.update(width=16, cross_head_width=16, depth=1, self_attentions=1)
  config.fit.epochs = 20
  config.shuffled = 19
  return config
