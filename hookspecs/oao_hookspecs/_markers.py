"""The two pluggy markers of the project."""

from __future__ import annotations

from typing import Final

import pluggy

PROJECT: Final = "oao"
hookspec: Final = pluggy.HookspecMarker(PROJECT)
hookimpl: Final = pluggy.HookimplMarker(PROJECT)
