"""The command line: one file per command, no logic of its own."""

from segdeploy.cli.main import main

__all__ = ["main"]
