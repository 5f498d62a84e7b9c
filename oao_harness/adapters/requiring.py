"""Is a framework the one that oao governs? Asked before its classes are patched."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from oao_harness.errors import FrameworkError

__all__ = ["require", "require_version"]


def require_version(distribution: str, at_least: str) -> None:
    """Refuse a framework that is older than the oldest one that was tried.

    Args:
        distribution: The package, as it is installed.
        at_least: The oldest version, such as `0.24`.

    Raises:
        FrameworkError: It is older; or nobody knows its version.
    """
    found = _installed(distribution)
    if found is None or _numbers(found) < _numbers(at_least):
        raise FrameworkError(
            f"{distribution} {found or 'of unknown version'} is installed, and oao governs {at_least} or newer; "
            f"upgrade it: pip install '{distribution}>={at_least}'"
        )


def _numbers(version: str) -> tuple[int, ...]:
    """Return the release of a version: `1.26.0rc1` is 1.26.0."""
    found = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, found.group().split("."))) if found is not None else ()


def _installed(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def require(cls: type, names: Iterable[str], distribution: str) -> None:
    """Refuse a framework whose class lacks what is patched: what cannot be governed must not run unnoticed.

    Args:
        cls: The class.
        names: Its methods and attributes that the adapter relies on.
        distribution: The package that the class comes from.

    Raises:
        FrameworkError: One is missing.
    """
    annotated = {name for base in cls.__mro__ for name in vars(base).get("__annotations__", {})}
    missing = [name for name in names if not hasattr(cls, name) and name not in annotated]
    if not missing:
        return
    raise FrameworkError(
        f"{cls.__module__}.{cls.__qualname__} has no {', '.join(missing)}, which oao governs; "
        f"installed is {distribution} {_installed(distribution) or 'of unknown version'}; "
        f"install a version that oao-harness supports (see its extras), or a newer oao-harness"
    )
