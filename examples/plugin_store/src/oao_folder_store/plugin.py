"""The entry point: opens `folder:PATH`, for `--store folder:journals`."""

from __future__ import annotations

from pathlib import Path

from oao_folder_store.store import FolderStore
from oao_hookspecs import Store, hookimpl

__all__ = ["oao_open_store"]


@hookimpl
def oao_open_store(url: str) -> Store | None:
    """Open a store; other schemes are other plugins' business."""
    scheme, _, path = url.partition(":")
    return FolderStore(Path(path or "journals")) if scheme == "folder" else None
