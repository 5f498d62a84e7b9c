"""The clock of the machine this process runs on."""

from __future__ import annotations

import time

__all__ = ["SystemClock"]


class SystemClock:
    """Reads the system's clocks."""

    def time(self) -> float:
        """Return Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return time.monotonic()
