"""The command line. Environment variables are read here and nowhere below."""

from mho.cli.main import main

__all__ = ["main"]
