"""Imports the CEL library without its command line, which loads a terminal toolkit: 50 ms instead of a second."""

from __future__ import annotations

import sys
from types import ModuleType

__all__ = ["STDLIB_FUNCTIONS", "cel"]

if "cel" not in sys.modules:
    # Its package imports `cel.cli` at once, which nobody here needs. Afterwards it can be imported as ever.
    sys.modules["cel.cli"] = ModuleType("cel.cli")
    try:
        import cel

        delattr(cel, "cli")
    finally:
        del sys.modules["cel.cli"]

import cel
from cel.stdlib import STDLIB_FUNCTIONS
