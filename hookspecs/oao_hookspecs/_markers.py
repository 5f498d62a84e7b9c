"""The two pluggy markers of the project."""

from __future__ import annotations

from typing import Final

import pluggy

PROJECT: Final = "oao"
"""The name under which pluggy knows hooks, and the group of entry points that plugins are found by."""
hookspec: Final = pluggy.HookspecMarker(PROJECT)
"""Marks the specification of a hook; for oao itself."""
hookimpl: Final = pluggy.HookimplMarker(PROJECT)
"""Marks a function of a plugin as the implementation of the hook that has its name."""
