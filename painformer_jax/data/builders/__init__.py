"""TFDS builders that write ArrayRecord without TensorFlow."""
