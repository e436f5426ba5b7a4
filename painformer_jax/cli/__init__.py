"""The `painformer` command: one thin module a sub-command."""
