"""Finds what `pkg:X` names, and makes a case of it. What goes wrong is the author's to mend, and one line."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import pytest

from oao_harness.errors import UsageError
from oao_harness.loading import import_module, prefer_working_folder
from oao_harness.plugins.manager import make_manager
from pytest_oao.testing.adapter import AdapterCase
from pytest_oao.testing.cases import LedgerCase, ListenerCase, PolicyCase, SchedulerCase, StoreCase

__all__ = ["KINDS", "case_of", "named"]

C = TypeVar("C")

KINDS: Final = ("store", "scheduler", "ledger", "listener", "policy", "adapter")
"""Each has an option `--oao-KIND` and a module `test_KIND`."""
_CASES: Final[Mapping[str, type[Any]]] = {
    "store": StoreCase,
    "scheduler": SchedulerCase,
    "ledger": LedgerCase,
    "listener": ListenerCase,
    "policy": PolicyCase,
    "adapter": AdapterCase,
}


def named(config: pytest.Config, kind: str) -> str:
    """Return what the option of a kind names, "" where it was not given."""
    return str(config.getoption(f"oao_{kind}", None) or "")


def case_of(kind: str, name: str) -> Any:
    """Return the case that `pkg:X` names.

    Args:
        kind: One of `KINDS`.
        name: `module:attribute`; a policy may also be named as `Orchestrator(policy=...)` takes it.

    Raises:
        pytest.UsageError: It cannot be imported, or is nothing that can be tested.
    """
    option = f"--oao-{kind}={name}"
    try:
        if kind == "policy" and (":" not in name or name.endswith(".toml")):
            return _named_policy(name)
        found: Any = _import(name)
    except UsageError as error:
        raise pytest.UsageError(f"oao: {option}: {error}") from error
    wanted: Any = _CASES[kind]
    if kind == "adapter" and isinstance(found, type) and issubclass(found, wanted):
        return found()
    cls = type(cast("object", found))
    if issubclass(cls, wanted):
        return found
    if issubclass(cls, tuple(_CASES.values())):
        raise pytest.UsageError(f"oao: {option}: it is a {cls.__name__}; a {kind} needs a {wanted.__name__}")
    if kind == "adapter":
        raise pytest.UsageError(f"oao: {option}: {found!r:.80} is no AdapterCase; name one, or a class of one")
    cannot = getattr(found, "cannot", {})
    if kind == "policy":
        make = cast("Callable[[], object]", found) if _makes(found) else functools.partial(_same, found)
        return PolicyCase(make=make, cannot=cannot)
    if not callable(found):
        raise pytest.UsageError(
            f"oao: {option}: {found!r:.80} makes no {kind}; name a class, a function that returns one, "
            f"or a {wanted.__name__}"
        )
    opens: Any = found if _takes_folder(found) else functools.partial(_without_folder, found)
    return wanted(make=opens, cannot=cannot)


def _import(name: str) -> object:
    module, _, path = name.partition(":")
    if not module or not path or "/" in module or module.endswith(".py"):
        raise UsageError(f"{name!r} is not of the form pkg:X; write for example my_package:MyPlugin")
    prefer_working_folder()
    found: object = import_module(module)
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            own = [one for one in vars(found) if not one.startswith("_")]
            close = difflib.get_close_matches(attribute, own, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise UsageError(f"{name!r}: {module!r} has no {attribute!r}{hint}")
        found = getattr(found, attribute)
    return found


def _named_policy(name: str) -> PolicyCase:
    make = functools.partial(_policy, name)
    make()
    return PolicyCase(make=make)


def _policy(name: str) -> object:
    return make_manager([name])[1][0]


def _makes(found: object) -> bool:
    return inspect.isclass(found) or inspect.isfunction(found) or isinstance(found, functools.partial)


def _same(policy: object) -> object:
    return policy


def _takes_folder(make: Callable[..., object]) -> bool:
    try:
        parameters = inspect.signature(make).parameters.values()
    except (TypeError, ValueError):
        return False
    places = {inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD}
    return any(one.default is one.empty and one.kind in places for one in parameters)


def _without_folder(make: Callable[[], C], _folder: Path) -> C:
    return make()
