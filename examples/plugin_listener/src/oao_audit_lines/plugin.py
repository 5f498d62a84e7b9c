"""The entry point: the listener is offered where the environment names a file, and costs nothing where it does not."""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from pathlib import Path

from oao_audit_lines.listener import AuditLines
from oao_hookspecs import hookimpl

__all__ = ["oao_listeners"]


@functools.cache
def _listener(path: Path) -> AuditLines:
    """One for each file: every orchestrator of the process asks."""
    return AuditLines(path)


@hookimpl
def oao_listeners() -> Sequence[object]:
    """Offer the listener that `OAO_AUDIT_FILE` asks for."""
    path = os.environ.get("OAO_AUDIT_FILE", "")
    return [_listener(Path(path).absolute())] if path else []
