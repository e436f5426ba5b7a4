"""Fusion, Embedding-Mixers and their training, all folds at once."""
