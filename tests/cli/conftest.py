"""Fixtures of several files here: weights of the nano model."""

from nano_weights import model, stored

__all__ = ['model', 'stored']
