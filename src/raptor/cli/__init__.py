"""The command line."""

from raptor.cli.app import app, main

__all__ = ["app", "main"]
