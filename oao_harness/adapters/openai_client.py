"""Governs the `openai` client: its requests of models, sync and async, also where nobody wraps it."""

from __future__ import annotations

from oao_harness.adapters import sdk_clients

__all__ = ["install"]


def install() -> None:
    """Patch the leaf of the client; once.

    Raises:
        FrameworkError: The installed version has no such leaf.
    """
    sdk_clients.install("openai")
