"""The entry point: offers the policy by its name, for `--policy spend-guard`. It decides only where it is named."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from oao_hookspecs import hookimpl
from oao_spend_guard.policy import SpendGuard

__all__ = ["oao_policies"]


@hookimpl
def oao_policies() -> Mapping[str, Callable[[], object]]:
    """Offer the policy."""
    return {"spend-guard": SpendGuard}
