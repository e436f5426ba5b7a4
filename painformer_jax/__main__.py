"""`python -m painformer_jax`, the same as the console script `painformer`."""

import sys

from painformer_jax.cli.main import main

if __name__ == '__main__':
  sys.exit(main())
