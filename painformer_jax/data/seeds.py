"""Seeds of their own for each use of a run's seed."""

import hashlib


def derived_seed(seed: int, *names: str) -> int:
  """32 bits that depend on the seed and on what they are for, and seem unrelated."""
  digest = hashlib.blake2b('/'.join([str(seed), *names]).encode(), digest_size=4)
  return int.from_bytes(digest.digest())
