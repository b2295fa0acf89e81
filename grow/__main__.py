"""`python -m grow` is the `grow` command."""

from grow.cli import app

app()
