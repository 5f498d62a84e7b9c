"""Builds and checks one pluggy manager: which plugins there are, in which order, and who of them may decide."""

from __future__ import annotations

import difflib
import importlib
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, cast

import pluggy

from oao_harness.errors import ConfigError
from oao_harness.plugins.found import Chosen, chosen, load
from oao_harness.plugins.loader import active_plugins
from oao_harness.policy.registry import PolicyRegistry, resolve_policy
from oao_hookspecs import PROJECT, decide, observe, provide

__all__ = ["BUNDLED", "Manager", "hook_names", "make_manager"]

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


class Manager(pluggy.PluginManager):
    """pluggy's manager, and what oao knows of its plugins."""

    def __init__(self) -> None:
        super().__init__(PROJECT)
        self.undecided: frozenset[str] = frozenset()
        """The plugins that were only found by their entry point: they may not decide."""

    # pluggy looks at every attribute of a plugin, the slow way, so as to run no property.

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
    policies: Sequence[object | str], plugins: Sequence[object | str] = (), *, project: Path | None = None
) -> tuple[Manager, list[object]]:
    """Return a checked plugin manager, and the policies as objects.

    Policies are asked in the order given, before plugins. A plugin found only by its entry point may observe and
    provide; it decides only where `plugins` or the project's `[tool.oao] plugins` names it, else installing a package
    could add an Allow. Plugins are checked before they are imported; see `found`.

    Args:
        policies: Objects with oao hooks, or names of policies.
        plugins: Further plugin objects, or names of installed plugins.
        project: A folder of the project whose pyproject.toml counts; the working folder by default.

    Raises:
        ConfigError: A plugin cannot be loaded, is a class, has no hook, has a hook that does not exist or is not
            marked, asks for an argument that its hook does not have, or wraps a deciding one; or it is not what was
            signed, or not among those that are admitted.
    """
    manager = Manager()
    for module in (decide, observe, provide):
        manager.add_hookspecs(module)
    policies = [_read(policy) for policy in policies]
    named = [plugin for plugin in plugins if isinstance(plugin, str)]
    used = chosen(named, strict=_strict(policies), start=project)
    for name in BUNDLED:
        manager.register(importlib.import_module(name), name=name)
    for one in used:
        _register(manager, load(one), one.name, hooks=one.hooks)
    known = {one.name: one for one in used}
    undecided = {one.name for one in used if not one.decides}
    for owner, listeners in _answers(manager, "oao_listeners"):
        hooks = known[owner].hooks if owner in known else None
        for listener in cast("Sequence[object]", listeners):
            registered = _register(manager, listener, _name_of(listener), hooks=hooks)
            if owner in undecided:
                # Else a plugin that may not decide would offer a listener that does.
                undecided.add(registered)
    for loaded in active_plugins():
        if loaded.has_hooks:
            _register(manager, loaded.plugin, loaded.name, hooks=loaded.hooks)
    # pluggy calls the last one registered first.
    for plugin in reversed([plugin for plugin in plugins if not isinstance(plugin, str)]):
        _register(manager, plugin, _name_of(plugin))
    resolved = _with_policies(manager, policies, known)
    _check(manager)
    manager.undecided = frozenset(undecided)
    return manager, resolved


def _with_policies(
    manager: pluggy.PluginManager, policies: Sequence[object | str], known: Mapping[str, Chosen]
) -> list[object]:
    """Register policies, and return them as objects; one that a verified plugin offers has its hooks at most."""
    offered = _offered(manager)
    factories = {name: factory for name, (_, factory) in offered.items()}
    resolved: list[tuple[object, frozenset[str] | None]] = []
    for policy in policies:
        if isinstance(policy, str):
            is_plugins = policy in offered and policy not in PolicyRegistry.registered()
            owner = known.get(offered[policy][0]) if is_plugins else None
            resolved.append((resolve_policy(policy, factories), None if owner is None else owner.hooks))
        else:
            resolved.append((policy, None))
    for policy, hooks in reversed(resolved):
        _register(manager, policy, _name_of(policy), hooks=hooks)
    return [policy for policy, _ in resolved]


def _read(policy: object | str) -> object | str:
    """Return a policy file, or what `module:attribute` names, as an object: it says whether plugins are verified."""
    is_elsewhere = isinstance(policy, str) and (policy.endswith(".toml") or any(one in policy for one in "/\\:"))
    if is_elsewhere and policy not in PolicyRegistry.registered():
        return resolve_policy(cast("str", policy), {})
    return policy


def _strict(policies: Sequence[object | str]) -> str:
    """Return which policy admits verified plugins only; empty where none does."""
    for policy in policies:
        if policy == "strict" or getattr(policy, "verifies_plugins", False) is True:
            return f"policy {policy if isinstance(policy, str) else _name_of(policy)!r}"
    return ""


def _answers(manager: pluggy.PluginManager, hook: str) -> list[tuple[str, object]]:
    """Return what plugins answer to a providing hook without arguments, each with the plugin's name."""
    impls = reversed(getattr(manager.hook, hook).get_hookimpls())
    found = [(impl.plugin_name, impl.function()) for impl in impls]
    return [(name, answer) for name, answer in found if answer is not None]


def _offered(manager: pluggy.PluginManager) -> dict[str, tuple[str, Callable[[], object]]]:
    """Return the policies that plugins offer, by their names, each with the plugin's."""
    offered: dict[str, tuple[str, Callable[[], object]]] = {}
    for owner, policies in _answers(manager, "oao_policies"):
        for name, factory in cast("Mapping[str, Callable[[], object]]", policies).items():
            if name in offered:
                raise ConfigError(f"two plugins offer a policy named {name!r}; disable one of them")
            offered[name] = owner, factory
    return offered


def _name_of(plugin: object) -> str:
    name = getattr(plugin, "name", None) or getattr(plugin, "__name__", None)
    return name if isinstance(name, str) else type(plugin).__name__


def _register(manager: pluggy.PluginManager, plugin: object, name: str, *, hooks: frozenset[str] | None = None) -> str:
    """Register a plugin and return the name that it got.

    Args:
        manager: Where.
        plugin: An instance.
        name: What it is called, where nobody else is.
        hooks: The only ones that it may implement; None for any.
    """
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
    # Asked of the manager: what a plugin shows of itself may change.
    asked = {caller.name for caller in manager.get_hookcallers(plugin) or ()}
    if hooks is not None and (more := sorted(asked - hooks)):
        manager.unregister(plugin)
        raise ConfigError(
            f"plugin {name!r} implements {more[0]!r}, which its signed manifest does not name; it may only have "
            f"{', '.join(sorted(hooks)) or 'no hook'} (see: oao plugins verify)"
        )
    return unique


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
