"""The command ``igc-ref``."""

from igc_ref.cli.commands import main

__all__ = ["main"]
