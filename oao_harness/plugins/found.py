"""Which installed plugins are used: found by their entry points, chosen by configuration, checked before import."""

from __future__ import annotations

import functools
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final

from packaging.utils import canonicalize_name

from oao_harness.errors import ConfigError
from oao_harness.plugins.files import Verified
from oao_harness.plugins.importing import import_from
from oao_harness.plugins.project import ProjectPlugins, project_plugins
from oao_harness.plugins.trust import Trust, find_trust
from oao_harness.plugins.verification import Verdict, dist_of, judge
from oao_harness.policy.reading import close_to
from oao_hookspecs import PROJECT

__all__ = ["Chosen", "chosen", "installed", "load", "package_of", "verdict_on"]

_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """An installed plugin that is used."""

    point: EntryPoint
    decides: bool
    """True where configuration names it: else installing a package could add an Allow."""
    verified: Verified | None = None

    @property
    def name(self) -> str:
        """Its name, that of its entry point."""
        return self.point.name

    @property
    def hooks(self) -> frozenset[str] | None:
        """The only hooks that it may implement; None for any."""
        return None if self.verified is None else frozenset(self.verified.manifest.hooks)


def installed() -> tuple[EntryPoint, ...]:
    """Return the entry points of the group `oao`; looked for again where `sys.path` is another one."""
    return _scanned(tuple(sys.path))


@functools.lru_cache(maxsize=8)
def _scanned(_path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    # A scan of all distributions takes milliseconds.
    return tuple(entry_points(group=PROJECT))


def chosen(
    named: Sequence[str] = (), *, strict: str = "", start: Path | None = None, project: ProjectPlugins | None = None
) -> list[Chosen]:
    """Return the installed plugins that are used, checked; nothing of them has run.

    Args:
        named: Plugins that the caller names: they must be there, and may decide.
        strict: Why only verified plugins are admitted; empty where nobody but the project can ask for that.
        start: A folder of the project; the working folder by default.
        project: What the project says, where the caller knows it.

    Raises:
        ConfigError: A plugin that is named is not installed, is disabled, or is not verified under `strict`; one was
            altered; two have the same name.
    """
    project = project or project_plugins(start)
    if project.verify == "strict":
        strict = project.verify_from
    _check_names(named, project)
    trust = find_trust(start)
    used: list[Chosen] = []
    for point in _used(project):
        wanted = _why_named(point.name, named, project)
        verdict = verdict_on(point, trust, strict=strict)
        if not _admitted(point, verdict, trust, strict, wanted):
            continue
        decides = point.name in named or point.name in project.plugins
        used.append(Chosen(point=point, decides=decides, verified=verdict.verified))
    return used


def _used(project: ProjectPlugins) -> Iterator[EntryPoint]:
    seen: dict[str, EntryPoint] = {}
    for point in installed():
        if point.name in project.disabled:
            continue
        if point.name in seen:
            raise ConfigError(
                f"two installed packages have a plugin named {point.name!r}: {package_of(seen[point.name])} and "
                f"{package_of(point)}; uninstall one of them, else nobody knows which one is meant"
            )
        seen[point.name] = point
        yield point


def _check_names(named: Sequence[str], project: ProjectPlugins) -> None:
    names = sorted({point.name for point in installed()})
    there = f"installed in the entry-point group 'oao': {', '.join(names) or 'none'}"
    for name in named:
        if name in project.disabled:
            raise ConfigError(f"plugin {name!r} is disabled at {project.disabled[name]}; take it out of that list")
        if name not in names:
            raise ConfigError(f"unknown plugin {name!r}; {_near(name, names)}{there}")
    for name, where in project.named.items():
        if name not in names:
            what = "requires" if name in project.required else "names"
            raise ConfigError(
                f"{where}: the project {what} the plugin {name!r}, which is not installed; {_near(name, names)}install "
                f"the package that has it, or take it out; {there}"
            )
    for name, where in project.disabled.items():
        if name not in names and (near := _near(name, names)):
            raise ConfigError(f"{where}: the plugin {name!r} is disabled, and not installed; {near}take it out")


def _near(name: str, names: Sequence[str]) -> str:
    near = close_to(name, names)
    return f"{near.removeprefix('; ')} " if "did you mean" in near else ""


def _why_named(name: str, named: Sequence[str], project: ProjectPlugins) -> str:
    """Return where a plugin is named; empty for one that was merely found."""
    return project.named.get(name, "the program" if name in named else "")


def package_of(point: EntryPoint) -> str:
    """Return name and version of the package that a plugin is in."""
    return "no package" if point.dist is None else f"{canonicalize_name(point.dist.name)} {point.dist.version}"


def verdict_on(point: EntryPoint, trust: Trust, *, strict: str = "", afresh: bool = False) -> Verdict:
    """Return what is known of a plugin before it is imported.

    Args:
        point: Its entry point.
        trust: Whom the project trusts.
        strict: Why it must be verified; empty where it need not.
        afresh: See `verification.judge`.

    Raises:
        ConfigError: It must be checked, and `cryptography` is missing.
    """
    if point.dist is None:
        return Verdict(state="unsigned", reason="it belongs to no installed package")
    try:
        return judge(dist_of(point), trust, afresh=afresh)
    except ConfigError as error:
        # Nobody asked for signatures, and this one cannot be read.
        if not strict and not trust.keys:
            return Verdict(state="unsigned", reason=str(error))
        raise


def _admitted(point: EntryPoint, verdict: Verdict, trust: Trust, strict: str, wanted: str) -> bool:
    """Return True where a plugin may be imported, False for one that is left out.

    Raises:
        ConfigError: Nothing may start with it.
    """
    plugin = f"plugin {point.name!r} ({package_of(point)})"
    if verdict.state == "altered":
        raise ConfigError(
            f"{plugin} is refused: {verdict.reason}; install it again from where you trust, or disable it under "
            "[tool.oao]"
        )
    if verdict.state == "incompatible":
        raise ConfigError(f"{plugin} is refused: {verdict.reason}; upgrade one of them, or disable it under [tool.oao]")
    if verdict.state == "untrusted" and point.dist is not None:
        name = canonicalize_name(point.dist.name)
        if whose := trust.who_signs(name):
            raise ConfigError(
                f"{plugin} is refused: {verdict.reason}; {trust.path.name} says that {whose} signs {name} (see: "
                "oao plugins verify)"
            )
    if not strict or verdict.state == "verified":
        return True
    if wanted:
        raise ConfigError(
            f"{plugin} is refused: {verdict.reason}, and {strict} admits verified plugins only; it is named by "
            f"{wanted} (see: oao plugins sign --help, oao plugins trust --help)"
        )
    _say_once(f"{plugin} is left out: {verdict.reason}, and {strict} admits verified plugins only")
    return False


@functools.lru_cache(maxsize=256)
def _say_once(what: str) -> None:
    _log.warning("%s", what)


def load(one: Chosen) -> object:
    """Import a plugin and return it.

    Raises:
        ConfigError: It cannot be imported, or was altered since it was checked.
    """
    name, value = one.point.name, one.point.value
    try:
        if one.verified is not None:
            import_from(one.verified)
        return one.point.load()
    except (Exception, SystemExit) as error:
        raise ConfigError(f"plugin {name!r} ({value}) cannot be loaded: {error}") from error


def hooks_by_plugin(used: Sequence[Chosen]) -> Mapping[str, frozenset[str]]:
    """Return the only hooks that verified plugins may implement."""
    return {one.name: one.hooks for one in used if one.hooks is not None}
