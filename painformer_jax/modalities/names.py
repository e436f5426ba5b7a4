"""The modalities by name, of which there are two kinds."""

# What images and videos show.
PICTURES = ('rgb', 'face', 'thermal', 'depth')
# What recorded signals measure.
SIGNALS = ('ecg', 'emg', 'gsr', 'fnirs')
# Other names of modalities -> their names here.
ALIASES = {'eda': 'gsr'}


def modality_of(name: str) -> str:
  """A modality's name here: 'EDA' -> 'gsr'. Names that are not known stay as they are."""
  lower = name.lower()
  return ALIASES.get(lower, lower if lower in (*PICTURES, *SIGNALS) else name)
