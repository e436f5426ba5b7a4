"""Faces in clips: found, followed as one person each, cropped without alignment.

The paper's frames are MTCNN crops without alignment. The margin, the thresholds and the
treatment of frames without a detection are not public: the defaults here are reconstructed.
"""

from painformer_jax.modalities.faces.boxes import FaceBox
from painformer_jax.modalities.faces.config import FaceConfig
from painformer_jax.modalities.faces.cropping import crop
from painformer_jax.modalities.faces.detection import ClipDetector, Detector
from painformer_jax.modalities.faces.following import VERSION, Face, follow

__all__ = ['VERSION', 'ClipDetector', 'Detector', 'Face', 'FaceBox', 'FaceConfig', 'crop', 'follow']
