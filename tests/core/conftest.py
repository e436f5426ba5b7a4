"""Fixtures of several files here: weights of the nano model."""

from nano_weights import stored

__all__ = ['stored']
