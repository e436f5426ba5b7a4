"""Entry point of `painformer`: from here on signals end the command, see `core.stopping`."""

from painformer_jax.core import stopping


def main(argv: list[str] | None = None) -> int:
  """Runs one command; returns its exit status.

  Args:
    argv: the arguments; None for those of this process, which ends after the call: its
      signals are ignored from then on, since the command is done.
  """
  with stopping.EndsAtSignals(for_good=argv is None):
    # All else is imported in here: it takes a while, in which signals may come.
    from painformer_jax.cli import commands

    return commands.run(argv)
