"""Readers of pain datasets: samples that say where their data lie."""
