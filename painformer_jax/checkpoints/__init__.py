"""Weights and training states on disk. Only this package knows Orbax."""
