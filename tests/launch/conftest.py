"""Fixtures of several files here: a cloud that is folders."""

from tpu_vm_standins import cloud, env

__all__ = ['cloud', 'env']
