"""Policies by name: what plugins offer, and what the seed's `PolicyRegistry.register` was given."""

from __future__ import annotations

import difflib
import importlib
import threading
from collections.abc import Callable, Mapping
from typing import ClassVar

from oao_harness.errors import ConfigError

__all__ = ["PolicyRegistry", "resolve_policy"]


class PolicyRegistry:
    """The seed's door to named policies: what is registered here can be named like a built-in policy."""

    _lock: ClassVar = threading.Lock()
    _factories: ClassVar[dict[str, Callable[[], object]]] = {}

    @classmethod
    def register(cls, name: str, factory: Callable[[], object]) -> None:
        """Offer a policy by name.

        Args:
            name: What a user writes.
            factory: Makes a new policy, for example its class.
        """
        with cls._lock:
            cls._factories[name] = factory

    @classmethod
    def unregister(cls, name: str) -> None:
        """Withdraw a policy; an unknown name is ignored."""
        with cls._lock:
            cls._factories.pop(name, None)

    @classmethod
    def registered(cls) -> Mapping[str, Callable[[], object]]:
        """Return what is registered, by name."""
        with cls._lock:
            return dict(cls._factories)


def resolve_policy(name: str, offered: Mapping[str, Callable[[], object]]) -> object:
    """Return a new policy for a name, the policy of a TOML file, or the object that `module:attribute` names.

    Args:
        name: What the user wrote; what ends in `.toml` or holds a slash is the path of a policy file.
        offered: Factories by name, from plugins.

    Raises:
        ConfigError: The name is unknown, with the known ones; or the file has mistakes, a line for each.
    """
    known = {**offered, **PolicyRegistry.registered()}
    if name in known:
        return known[name]()
    if name.endswith(".toml") or "/" in name or "\\" in name:
        from oao_harness.policy.file import load_policy  # noqa: PLC0415 - pydantic models, only where there is a file

        return load_policy(name)
    if ":" in name:
        return _import(name)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ConfigError(
        f"unknown policy {name!r}{hint}; known: {', '.join(sorted(known))}, a .toml file, or module:attribute"
    )


def _import(path: str) -> object:
    module_name, _, attribute = path.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"policy {path!r} cannot be imported: {error}; check module:attribute and the folder you are in"
        ) from error
    return found() if isinstance(found, type) else found
