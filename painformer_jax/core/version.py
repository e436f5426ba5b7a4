"""The version of this package; setup.cfg reads it here."""

VERSION = '0.1.0'
