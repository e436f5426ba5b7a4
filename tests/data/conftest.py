"""Fixtures of several files here: a made-up demo corpus."""

from demo_cache import made_up

__all__ = ['made_up']
