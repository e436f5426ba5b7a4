"""Meshes and sharding. Only this package knows about devices."""
