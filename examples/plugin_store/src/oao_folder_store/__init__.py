"""Journals as JSON lines in a folder, fenced by a file lock."""

from oao_folder_store.store import FolderStore

__all__ = ["FolderStore"]
