"""Fixtures of several files here: studies, a finished run, a demo corpus."""

from assess_runs import finished, small
from demo_cache import made_up
from embedding_studies import root, small_parts, study, whole
from nano_weights import stored

__all__ = ['finished', 'made_up', 'root', 'small', 'small_parts', 'stored', 'study', 'whole']
