"""Reads vcrpy cassettes; the reader is `oao_harness.importing.cassette`."""

from __future__ import annotations

from oao_harness.importing.cassette import Interaction, load_cassette

__all__ = ["Interaction", "load_cassette"]
