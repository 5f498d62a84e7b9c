"""Loads a plugin from a single file: checked, compiled from what was checked, activated; unloaded without a trace."""

from __future__ import annotations

import inspect
import logging
import sys
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Final, cast

from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from oao_harness.errors import ConfigError
from oao_harness.plugins.base import PluginInterface
from oao_harness.plugins.manifest import Manifest, digest_of, read_manifest
from oao_harness.plugins.project import Verify, project_plugins
from oao_harness.plugins.signing import is_signed_by_its_key
from oao_harness.plugins.trust import Trust, find_trust
from oao_harness.plugins.verification import Verdict, check_fits
from oao_harness.policy.registry import PolicyRegistry
from oao_hookspecs import PROJECT

__all__ = ["MANIFEST_SUFFIX", "Loaded", "PluginLoader", "active_plugins", "judge_file"]

_log: Final = logging.getLogger(__name__)
MANIFEST_SUFFIX: Final = ".oao.json"
"""Beside `my_plugin.py` lies `my_plugin.py.oao.json`."""
_MOST_BYTES: Final = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A plugin that is active."""

    plugin: PluginInterface
    path: Path
    module: ModuleType = field(repr=False)
    hooks: frozenset[str] | None = None
    """The only ones that it may implement; None for any."""
    registered: Mapping[str, Callable[[], object] | None] = field(default_factory=dict[str, "Callable[[], object]"])
    """Policies that it registered, and what had their names before."""

    @property
    def name(self) -> str:
        """What the plugin calls itself."""
        return self.plugin.name

    @property
    def has_hooks(self) -> bool:
        """True where it has anything that is meant as a hook."""
        return any(name.startswith(f"{PROJECT}_") for name in dir(self.plugin))


class PluginLoader:
    """Loads plugins of a single file, and unloads them. Those that are active are the process's."""

    _lock: ClassVar = threading.RLock()
    _active: ClassVar[dict[str, Loaded]] = {}

    @classmethod
    def load(cls, path: str | Path, *, verify: Verify | None = None) -> PluginInterface:
        """Check a plugin's file, run it, and activate the plugin; return it.

        Where the file is signed (`oao plugins sign my_plugin.py`) and the project trusts who did it, it must be what
        was signed; under `strict` it must be signed.

        Args:
            path: Of the file: a module with one class that implements `PluginInterface`.
            verify: `auto` or `strict`; what the project's `[tool.oao] verify` says by default.

        Raises:
            ConfigError: The file cannot be read, was altered, is not trusted, or cannot be run; it has no such class,
                or more than one; a plugin of that name is active; or it cannot be activated.
        """
        place = Path(path)
        source = _read(place)
        project = project_plugins()
        strict = "verify = 'strict'" if verify == "strict" else ""
        if verify is None and project.verify == "strict":
            strict = project.verify_from
        manifest = _admitted(place, source, find_trust(), strict)
        with cls._lock:
            module = _run(place, source)
            try:
                plugin = _plugin_in(module, place)
                _check_identity(plugin, manifest, place)
                if plugin.name in cls._active:
                    raise ConfigError(
                        f"{place}: a plugin {plugin.name!r} is active already, from {cls._active[plugin.name].path}; "
                        "unload it first, or give this one another name"
                    )
                before = PolicyRegistry.registered()
                try:
                    plugin.activate()
                except (Exception, SystemExit) as error:
                    _withdraw(_registered_since(before))
                    raise ConfigError(
                        f"{place}: plugin {plugin.name!r} cannot be activated: {type(error).__name__}: {error}"
                    ) from error
                hooks = None if manifest is None else frozenset(manifest.hooks)
                cls._active[plugin.name] = Loaded(
                    plugin=plugin, path=place, module=module, hooks=hooks, registered=_registered_since(before)
                )
            except BaseException:
                sys.modules.pop(module.__name__, None)
                raise
        return plugin

    @classmethod
    def unload(cls, plugin: PluginInterface | str) -> None:
        """Deactivate a plugin and forget it: its module, its policies, its hooks.

        An `Orchestrator` that was made before keeps its hooks: no rule ends in the middle of its work.

        Args:
            plugin: What `load` returned, or its name.

        Raises:
            ConfigError: It is not active, or its `deactivate` fails; it is forgotten even so.
        """
        name = plugin if isinstance(plugin, str) else plugin.name
        with cls._lock:
            loaded = cls._active.pop(name, None)
            if loaded is None:
                known = ", ".join(sorted(cls._active)) or "none"
                raise ConfigError(f"no plugin {name!r} is active; active: {known}")
            try:
                loaded.plugin.deactivate()
            except (Exception, SystemExit) as error:
                raise ConfigError(
                    f"{loaded.path}: plugin {name!r} failed when it was deactivated, and is unloaded: "
                    f"{type(error).__name__}: {error}"
                ) from error
            finally:
                _withdraw(loaded.registered)
                sys.modules.pop(loaded.module.__name__, None)

    @classmethod
    def loaded(cls) -> Mapping[str, PluginInterface]:
        """Return the active plugins by name."""
        with cls._lock:
            return {name: one.plugin for name, one in cls._active.items()}

    @classmethod
    def _all(cls) -> tuple[Loaded, ...]:
        with cls._lock:
            return tuple(cls._active.values())


def active_plugins() -> tuple[Loaded, ...]:
    """Return the plugins that are active, in the order in which they were loaded."""
    return PluginLoader._all()  # pyright: ignore[reportPrivateUsage] - the same module


def judge_file(path: Path, trust: Trust, *, source: bytes | None = None) -> Verdict:
    """Compare a plugin's file with the manifest beside it, and that with whom the project trusts.

    Args:
        path: Of the file.
        trust: Whom the project trusts.
        source: What the file holds, where somebody has read it.

    Raises:
        ConfigError: It cannot be read, its manifest is none, or `cryptography` is missing.
    """
    source = _read(path) if source is None else source
    beside = path.with_name(path.name + MANIFEST_SUFFIX)
    if not beside.is_file():
        if whose := trust.who_signs(canonicalize_name(path.stem)):
            return Verdict(state="altered", reason=f"nobody signed it, and {trust.path.name} says that {whose} does")
        return Verdict(state="unsigned", reason="nobody signed it")
    manifest = read_manifest(beside.read_bytes(), str(beside))
    if not is_signed_by_its_key(manifest):
        return Verdict(state="altered", reason="its manifest is not what was signed", manifest=manifest)
    if dict(manifest.files) != {path.name: digest_of(source)}:
        return Verdict(state="altered", reason="it is not the file that was signed", manifest=manifest)
    if reason := check_fits(manifest):
        return Verdict(state="incompatible", reason=reason, manifest=manifest)
    if reason := trust.refusal(manifest):
        return Verdict(state="untrusted", reason=reason, manifest=manifest)
    return Verdict(state="verified", manifest=manifest, owner=trust.owner(manifest.key))


def _admitted(path: Path, source: bytes, trust: Trust, strict: str) -> Manifest | None:
    """Return the manifest that holds for a file, None for one that nobody signed.

    Raises:
        ConfigError: It may not run.
    """
    try:
        verdict = judge_file(path, trust, source=source)
    except ConfigError:
        if strict or trust.keys or _has_cryptography():
            raise
        return None
    if verdict.state == "verified":
        return verdict.manifest
    if verdict.state in {"altered", "incompatible"}:
        raise ConfigError(f"{path} is refused: {verdict.reason}; get it again from where you trust, or sign it again")
    known = verdict.manifest is not None and trust.who_signs(verdict.manifest.name)
    if strict or known:
        why = f"{strict} admits verified plugins only" if strict else f"{trust.path.name} says that {known} signs it"
        raise ConfigError(
            f"{path} is refused: {verdict.reason}, and {why} (see: oao plugins sign --help, oao plugins trust --help)"
        )
    return None


def _has_cryptography() -> bool:
    import importlib.util  # noqa: PLC0415 - for this question alone

    return importlib.util.find_spec("cryptography") is not None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"plugin {str(path)!r} cannot be read: {error.strerror or error}; give the path of a Python file"
        ) from error
    if len(content) > _MOST_BYTES:
        raise ConfigError(f"plugin {str(path)!r} is larger than {_MOST_BYTES:,} bytes; give the path of a Python file")
    return content


def _run(path: Path, source: bytes) -> ModuleType:
    """Run what was read: what lies on the disk by now, and cached byte code, do not count."""
    name = f"_oao_plugin_{path.stem}"
    count = 1
    while name in sys.modules:
        count += 1
        name = f"_oao_plugin_{path.stem}_{count}"
    module = ModuleType(name)
    module.__file__ = str(path)
    # Dataclasses and pickle look their module up.
    sys.modules[name] = module
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))  # noqa: S102 - it was checked
    except (Exception, SystemExit) as error:
        sys.modules.pop(name, None)
        raise ConfigError(f"plugin {str(path)!r} cannot be run: {type(error).__name__}: {error}") from error
    except BaseException:
        sys.modules.pop(name, None)
        raise
    return module


def _plugin_in(module: ModuleType, path: Path) -> PluginInterface:
    found = [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, PluginInterface)
        and one.__module__ == module.__name__
        and not inspect.isabstract(one)
    ]
    if len(found) != 1:
        has = f"has {len(found)} of them: {', '.join(one.__name__ for one in found)}" if found else "has none"
        halves = [
            f"{one.__name__} lacks {_lacking(one)}"
            for one in vars(module).values()
            if isinstance(one, type) and one.__module__ == module.__name__ and inspect.isabstract(one)
        ]
        raise ConfigError(
            f"{path}: a plugin's file has one class that implements PluginInterface, and this one {has}"
            f"{' (' + '; '.join(halves) + ')' if halves and not found else ''}"
        )
    try:
        return found[0]()
    except Exception as error:
        raise ConfigError(f"{path}: {found[0].__name__}() cannot be made: {error}; it takes no arguments") from error


def _lacking(abstract: type) -> str:
    return ", ".join(sorted(cast("frozenset[str]", getattr(abstract, "__abstractmethods__", frozenset[str]()))))


def _check_identity(plugin: PluginInterface, manifest: Manifest | None, path: Path) -> None:
    name, version = cast("object", plugin.name), cast("object", plugin.version)
    if not isinstance(name, str) or not name or not isinstance(version, str):
        raise ConfigError(f"{path}: name is {name!r:.80} and version {version!r:.80}; both must be texts")
    try:
        Version(version)
    except InvalidVersion as error:
        raise ConfigError(f"{path}: version {version!r:.80} is none that PEP 440 knows; write for example 1.0.0") from (
            error
        )
    if manifest is None:
        _log.info("plugin %r (%s) is loaded unsigned", name, path)
        return
    if Version(manifest.version) != Version(version):
        raise ConfigError(
            f"{path} is refused: it says it is version {version}, and version {manifest.version} was signed"
        )


def _registered_since(before: Mapping[str, Callable[[], object]]) -> dict[str, Callable[[], object] | None]:
    now = PolicyRegistry.registered()
    return {name: before.get(name) for name, factory in now.items() if before.get(name) is not factory}


def _withdraw(registered: Mapping[str, Callable[[], object] | None]) -> None:
    for name, before in registered.items():
        if before is None:
            PolicyRegistry.unregister(name)
        else:
            PolicyRegistry.register(name, before)
