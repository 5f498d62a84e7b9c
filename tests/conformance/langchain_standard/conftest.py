"""What LangChain's standard suite expects of a project: the settings of vcrpy for its benchmark."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="module")
def vcr_config() -> dict[str, Any]:
    from langchain_tests.conftest import base_vcr_config

    return base_vcr_config()


@pytest.fixture
def vcr() -> None:
    """No cassette: the one test that needs it is turned off, see `enable_vcr_tests`."""
