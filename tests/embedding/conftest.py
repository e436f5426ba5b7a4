"""Fixtures of several files here: a photograph, weights of the nano model."""

from nano_weights import model, stored
from row_readers import astronaut

__all__ = ['astronaut', 'model', 'stored']
