"""What a report means for whoever called a command: its exit code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["EXIT_CODES"]

EXIT_CODES: Final[Mapping[str, int]] = {"SUCCESS": 0, "FAILED": 1, "SUSPENDED": 3}
"""By status; 2 means that the command itself was wrong."""
