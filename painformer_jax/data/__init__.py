"""From recordings and folders to batches of uint8 images."""
