"""oao as a service: HTTP, server-sent events and a dashboard over the same public API as the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fastapi import FastAPI

    from oao_harness.server.app import create_app
    from oao_harness.server.settings import Settings

    app: FastAPI

__all__ = ["Settings", "app", "create_app"]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Make what is asked for: `app` opens the store of the project that the working folder is in."""
        if name == "create_app":
            from oao_harness.server.app import create_app  # noqa: PLC0415 - its libraries are an extra

            return create_app
        if name == "Settings":
            from oao_harness.server.settings import Settings  # noqa: PLC0415

            return Settings
        if name == "app":
            from oao_harness.loading import prefer_working_folder  # noqa: PLC0415
            from oao_harness.server.app import create_app  # noqa: PLC0415

            prefer_working_folder()
            globals()["app"] = made = create_app()
            return made
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
