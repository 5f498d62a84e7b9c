"""Builds and checks one pluggy manager: which plugins there are, in which order, and who of them may decide."""

from __future__ import annotations

import difflib
import functools
import importlib
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Final

import pluggy

from oao_harness.errors import ConfigError
from oao_harness.policy.registry import resolve_policy
from oao_hookspecs import PROJECT, decide, observe, provide

__all__ = ["BUNDLED", "hook_names", "make_manager", "undecided"]

# Bundled plugins are loaded by dotted name: the core imports none of them.
BUNDLED: Final = (
    "oao_harness.policy.named",
    "oao_harness.policy.prices",
    "oao_harness.adapters.registry",
    "oao_harness.stores.registry",
    "oao_harness.schedulers.registry",
    "oao_harness.listeners.registry",
)

_PREFIX: Final = f"{PROJECT}_"
_DECIDE: Final = tuple(name for name in vars(decide) if name.startswith(_PREFIX))
_OBSERVE: Final = tuple(name for name in vars(observe) if name.startswith(_PREFIX))
_PROVIDE: Final = tuple(name for name in vars(provide) if name.startswith(_PREFIX))
_SPECIFICATIONS: Final[Mapping[str, Callable[..., object]]] = {
    name: vars(module)[name]
    for module, names in ((decide, _DECIDE), (observe, _OBSERVE), (provide, _PROVIDE))
    for name in names
}


def hook_names() -> dict[str, tuple[str, ...]]:
    """Return the names of all hooks by calling mode, in the order of their files."""
    return {"decide": _DECIDE, "observe": _OBSERVE, "provide": _PROVIDE}


@functools.cache
def _installed() -> tuple[EntryPoint, ...]:
    """Entry points of the group `oao`; read once, because a scan of all distributions takes milliseconds."""
    return tuple(entry_points(group=PROJECT))


class _Manager(pluggy.PluginManager):
    """A manager that is made quickly: pluggy looks at every attribute of a plugin, the slow way, to run no property."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> pluggy.HookimplOpts | None:
        """Return how a hook was marked; Python's own names are none, nor is what a module has besides functions."""
        if name.startswith("__") and name.endswith("__"):
            return None
        if isinstance(plugin, types.ModuleType) and not inspect.isroutine(vars(plugin).get(name)):
            return None
        return super().parse_hookimpl_opts(plugin, name)

    def parse_hookspec_opts(self, module_or_class: types.ModuleType | type, name: str) -> pluggy.HookspecOpts | None:
        """Return how a hook was specified; what our files import is no specification."""
        return super().parse_hookspec_opts(module_or_class, name) if name.startswith(_PREFIX) else None


def make_manager(
    policies: Sequence[object | str], plugins: Sequence[object | str] = ()
) -> tuple[pluggy.PluginManager, list[object]]:
    """Return a checked plugin manager, and the policies as objects.

    Policies are asked in the order given, before plugins. A plugin found only by its entry point may observe and
    provide; it decides only where `plugins` names it, else installing a package could add an Allow.

    Args:
        policies: Objects with oao hooks, or names of policies.
        plugins: Further plugin objects, or names of installed plugins.

    Raises:
        ConfigError: A plugin cannot be loaded, is a class, has no hook, has a hook that does not exist or is not
            marked, asks for an argument that its hook does not have, or wraps a deciding one.
    """
    manager = _Manager(PROJECT)
    for module in (decide, observe, provide):
        manager.add_hookspecs(module)
    named = {plugin for plugin in plugins if isinstance(plugin, str)}
    found = {point.name for point in _installed()}
    if unknown := named - found:
        raise ConfigError(
            f"unknown plugin {sorted(unknown)[0]!r}; installed in the entry-point group 'oao': "
            f"{', '.join(sorted(found)) or 'none'}"
        )
    for name in BUNDLED:
        manager.register(importlib.import_module(name), name=name)
    for point in _installed():
        _register(manager, _load(point), point.name)
    for listener in [one for offered in manager.hook.oao_listeners() for one in offered]:
        _register(manager, listener, _name_of(listener))
    # pluggy calls the last one registered first.
    for plugin in reversed([plugin for plugin in plugins if not isinstance(plugin, str)]):
        _register(manager, plugin, _name_of(plugin))
    resolved = [resolve_policy(p, _offered(manager)) if isinstance(p, str) else p for p in policies]
    for policy in reversed(resolved):
        _register(manager, policy, _name_of(policy))
    _check(manager)
    return manager, resolved


def _offered(manager: pluggy.PluginManager) -> dict[str, Callable[[], object]]:
    """Return the policies that plugins offer by name."""
    offered: dict[str, Callable[[], object]] = {}
    for policies in manager.hook.oao_policies():
        for name, factory in policies.items():
            if name in offered:
                raise ConfigError(f"two plugins offer a policy named {name!r}; disable one of them")
            offered[name] = factory
    return offered


def _load(point: EntryPoint) -> object:
    try:
        return point.load()
    except Exception as error:
        raise ConfigError(f"plugin {point.name!r} ({point.value}) cannot be loaded: {error}") from error


def _name_of(plugin: object) -> str:
    name = getattr(plugin, "name", None) or getattr(plugin, "__name__", None)
    return name if isinstance(name, str) else type(plugin).__name__


def _register(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    if isinstance(plugin, type):
        raise ConfigError(f"plugin {name!r} is a class, and oao asks an instance of it; give {plugin.__name__}(...)")
    _check_methods(manager, plugin, name)
    unique, count = name, 1
    while manager.has_plugin(unique):
        count += 1
        unique = f"{name}#{count}"
    try:
        manager.register(plugin, name=unique)
    except (ValueError, pluggy.PluginValidationError) as error:
        raise ConfigError(f"plugin {name!r} is refused: {error}") from error
    if not manager.get_hookcallers(plugin):
        raise ConfigError(
            f"plugin {plugin!r:.80} has no hook of oao; mark its methods with @oao_hookspecs.hookimpl "
            "(`oao hooks` lists them)"
        )


def _check_methods(manager: pluggy.PluginManager, plugin: object, name: str) -> None:
    """Refuse what pluggy would pass over in silence, or in words that are not the author's."""
    for hook in dir(plugin):
        method: object = getattr(plugin, hook, None) if hook.startswith(_PREFIX) else None
        if not inspect.isroutine(method):
            continue
        if manager.parse_hookimpl_opts(plugin, hook) is None:
            # It would never be asked: a denial that its author counts on would be an Allow.
            raise ConfigError(
                f"plugin {name!r} has {hook!r} without @oao_hookspecs.hookimpl, so it would never be called; mark it, "
                f"or give it a name that does not start with {_PREFIX!r}"
            )
        if (specification := _SPECIFICATIONS.get(hook)) is not None:
            _check_arguments(name, hook, method, tuple(inspect.signature(specification).parameters))


def _check_arguments(name: str, hook: str, method: Callable[..., object], offered: tuple[str, ...]) -> None:
    for wanted in inspect.signature(method).parameters.values():
        optional = wanted.default is not wanted.empty or wanted.kind in {wanted.VAR_POSITIONAL, wanted.VAR_KEYWORD}
        if wanted.name not in offered and not optional:
            raise ConfigError(
                f"plugin {name!r}: {hook!r} has no argument {wanted.name!r}; take any of {', '.join(offered) or 'none'}"
            )


def _check(manager: pluggy.PluginManager) -> None:
    known = (*_DECIDE, *_OBSERVE, *_PROVIDE)
    for caller in vars(manager.hook).values():
        name = getattr(caller, "name", "")
        if name and name not in known:
            impl = caller.get_hookimpls()[0]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else "; `oao hooks` lists them"
            raise ConfigError(f"plugin {impl.plugin_name!r} implements {name!r}, which is no hook of oao{hint}")
    for name in (*_DECIDE, *_OBSERVE):
        for impl in getattr(manager.hook, name).get_hookimpls():
            if impl.wrapper or impl.hookwrapper:
                raise ConfigError(
                    f"plugin {impl.plugin_name!r} wraps {name!r}; hooks that decide or observe cannot be wrapped"
                )


def undecided(trusted: Sequence[str]) -> frozenset[str]:
    """Return the plugins that were only found by their entry point: they may not decide.

    Args:
        trusted: Names of those that configuration allows to.
    """
    return frozenset(point.name for point in _installed()) - set(trusted)
