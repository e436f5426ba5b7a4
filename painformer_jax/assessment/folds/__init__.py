"""Folds: who is trained on, who is tested on, in which order."""
