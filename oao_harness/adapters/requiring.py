"""Is a framework the one that oao governs? Asked before its classes are patched."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version

from oao_harness.errors import FrameworkError

__all__ = ["require"]


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
    try:
        installed = version(distribution)
    except PackageNotFoundError:
        installed = "of unknown version"
    raise FrameworkError(
        f"{cls.__module__}.{cls.__qualname__} has no {', '.join(missing)}, which oao governs; "
        f"installed is {distribution} {installed}; "
        f"install a version that oao-harness supports (see its extras), or a newer oao-harness"
    )
