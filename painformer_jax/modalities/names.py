"""The modalities by name, of which there are two kinds."""

# What images and videos show.
PICTURES = ('rgb', 'face', 'thermal', 'depth')
# What recorded signals measure.
SIGNALS = ('ecg', 'emg', 'gsr', 'fnirs')
