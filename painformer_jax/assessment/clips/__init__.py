"""A trained assessor on one recording."""
