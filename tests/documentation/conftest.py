"""Pages about plugins play in the same project as the tests of plugins do."""

from __future__ import annotations

from tests.plugins.conftest import oao, project, site

__all__ = ["oao", "project", "site"]
