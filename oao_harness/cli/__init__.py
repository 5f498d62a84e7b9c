"""The command `oao`: a face over the public API. It decides nothing that the API does not."""

from __future__ import annotations

from oao_harness.cli.app import main

__all__ = ["main"]
