"""Agents by name: what a worker or a server may run. A job names one of these, never code."""

from __future__ import annotations

import difflib
import functools
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Final, cast

from oao_harness.errors import AgentError, ConfigError
from oao_harness.loading import load_agent
from oao_harness.plugins.manager import make_manager
from oao_harness.policy.project import ProjectFile, oao_table, policy_in_project, project_files
from oao_harness.policy.reading import close_to, table_in
from oao_harness.runtime.requeuing import Retries

__all__ = ["ENTRY_POINTS", "Agents", "Registered"]

ENTRY_POINTS: Final = "oao.agents"
"""Group of entry points: name = "module:agent"."""

# Neither a colon nor a dot nor a slash: a name can be read as nothing that would be imported.
_NAME: Final = re.compile(r"[^\W_][\w-]{0,99}")
_SPEC: Final = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
_KEYS: Final = ("agent", "max_concurrency", "policy", "retries")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registered:
    """An agent that has a name.

    Raises:
        ConfigError: The name or a number cannot be one.
    """

    name: str
    """Letters, digits, `_` and `-`, 100 at most."""
    source: str
    """Where it is registered, for messages: `pyproject.toml:12`, `plugin 'desk'`, `entry point of shop 1.2`."""
    load: Callable[[], object]
    """Returns the agent. What `Agents` hands out imports or makes it once.

    It raises `UsageError` where the agent cannot be imported.
    """
    policy: tuple[str, ...] = ()
    """Policies of its runs: names, or paths of files; empty where the registration names none."""
    max_concurrency: int | None = None
    """Runs of it at the same time in the whole fleet, >= 1; None without a limit."""
    retries: Retries | None = None
    """How often a run of it is tried again; None where the registration does not say."""

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ConfigError(
                f"{self.source}: agent {self.name!r:.120}: a name has letters, digits, _ and - only, 100 at most, "
                "and begins with a letter or a digit"
            )
        most = self.max_concurrency
        if most is not None and (isinstance(most, bool) or most < 1):
            raise ConfigError(f"{self.source}: agent {self.name!r}: max_concurrency={most!r}; give a whole number >= 1")

    def policies(self, asked: Sequence[str] = ()) -> tuple[str, ...]:
        """Return the names of the policies that a run of it is judged by: its own always, and those that are asked for.

        Where there are none of either it is `standard`, as for `oao run`.
        """
        return tuple(dict.fromkeys((*self.policy, *asked))) or ("standard",)


class Agents:
    """The agents that may be run by name.

    Args:
        registered: Each under its name.

    Raises:
        ConfigError: Two have one name.
    """

    def __init__(self, registered: Iterable[Registered] = ()) -> None:
        self._known: dict[str, Registered] = {}
        for one in registered:
            if (other := self._known.get(one.name)) is not None:
                raise ConfigError(
                    f"two agents are named {one.name!r}: {other.source} and {one.source}; rename one of them"
                )
            self._known[one.name] = _loaded_once(one)

    @classmethod
    def discover(cls, start: Path | None = None, *, plugins: Sequence[object | str] = ()) -> Agents:
        """Return the agents of the hook `oao_agents`, of the entry points `oao.agents` and of `[tool.oao.agents]`.

        Nothing of an agent is imported until it is loaded.

        ```toml
        [tool.oao.agents]
        support = "my_agents:support"

        [tool.oao.agents.refunds]
        agent = "my_agents:refunds"
        policy = "strict"             # or a list
        max_concurrency = 3
        retries = 2
        ```

        Args:
            start: A folder of the project; the working folder by default. The first pyproject.toml upwards that has
                the table counts, and the search ends at the folder with `.git`.
            plugins: Further plugin objects, as in `Orchestrator`.

        Raises:
            ConfigError: A registration is wrong, or two have one name.
        """
        return cls([*_in_project(start), *_entry_points(), *_offered(plugins)])

    @classmethod
    def of(cls, agents: Mapping[str, object]) -> Agents:
        """Return agents that are objects already, each under its name.

        Args:
            agents: For settings beside the agent give `Agents` a list of `Registered`.
        """
        return cls(
            Registered(name=name, source="Agents.of", load=functools.partial(_same, agent))
            for name, agent in agents.items()
        )

    def __contains__(self, name: object) -> bool:
        return name in self._known

    def __iter__(self) -> Iterator[Registered]:
        return iter(self._known[name] for name in self.names())

    def names(self) -> list[str]:
        """Return all names, sorted."""
        return sorted(self._known)

    def get(self, name: str) -> Registered:
        """Return the agent of a name. Nothing is imported yet.

        Raises:
            AgentError: There is none of that name.
        """
        try:
            return self._known[name]
        except KeyError:
            raise AgentError(_unknown(name, self.names())) from None


def _unknown(name: str, known: Sequence[str]) -> str:
    said = f"there is no agent named {name!r:.120}"
    if not known:
        return f"{said}: none is registered; add it to pyproject.toml under [tool.oao.agents]"
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    code = " A job names an agent, never code." if not _NAME.fullmatch(name) else ""
    return f"{said}; {hint}registered: {', '.join(known)}.{code}"


def _same(agent: object) -> object:
    return agent


def _loaded_once(one: Registered) -> Registered:
    lock, load, found = threading.Lock(), one.load, list[object]()

    def once() -> object:
        # Two workers' threads that ask at once get one agent; what failed is tried again.
        with lock:
            if not found:
                found.append(load())
            return found[0]

    return Registered(
        name=one.name,
        source=one.source,
        load=once,
        policy=one.policy,
        max_concurrency=one.max_concurrency,
        retries=one.retries,
    )


def _offered(plugins: Sequence[object | str]) -> Iterator[Registered]:
    """Yield what plugins offer."""
    manager, _ = make_manager([], plugins)
    for impl in manager.hook.oao_agents.get_hookimpls():
        source = f"plugin {impl.plugin_name!r}"
        try:
            offered: object = impl.function()
        except Exception as error:
            raise ConfigError(f"{source}: oao_agents failed: {type(error).__name__}: {error}") from error
        if not isinstance(offered, Mapping):
            raise ConfigError(f"{source}: oao_agents returned {offered!r:.80}; return names and what makes each agent")
        for name, load in cast("Mapping[object, object]", offered).items():
            if not isinstance(name, str) or not callable(load):
                raise ConfigError(
                    f"{source}: oao_agents offers {name!r:.80} as {load!r:.80}; give a name, and a function without "
                    "arguments that returns the agent"
                )
            yield Registered(name=name, source=source, load=functools.partial(_made, name, source, load))


def _made(name: str, source: str, make: Callable[[], object]) -> object:
    try:
        return make()
    except Exception as error:
        raise AgentError(f"{source}: agent {name!r} cannot be made: {type(error).__name__}: {error}") from error


def _entry_points() -> Iterator[Registered]:
    for point in entry_points(group=ENTRY_POINTS):
        source = f"entry point of {point.dist.name} {point.dist.version}" if point.dist else "entry point"
        yield Registered(
            name=point.name, source=source, load=functools.partial(load_agent, _spec_of(point.name, point, source))
        )


def _spec_of(name: str, point: EntryPoint, source: str) -> str:
    spec = point.value.partition("[")[0].strip()
    if not _SPEC.fullmatch(spec):
        raise ConfigError(f"{source}: agent {name!r} is {point.value!r:.80}; give module:agent")
    return spec


def _in_project(start: Path | None) -> Iterator[Registered]:
    for file in project_files(start):
        oao, at = oao_table(file)
        if "agents" not in oao:
            continue
        table = table_in(oao["agents"])
        if table is None:
            raise ConfigError(
                f'{at("agents")}: [tool.oao.agents] is no table; write for example support = "my_agents:support"'
            )
        for name, value in table.items():
            yield _registered(file, name, value, functools.partial(at, "agents", name))
        return


def _registered(file: ProjectFile, name: str, value: object, at: Callable[..., str]) -> Registered:
    table = {"agent": value} if (found := table_in(value)) is None else found
    head = f"agent {name!r}: "
    for key in table:
        if key not in _KEYS:
            raise ConfigError(f"{at(key)}: {head}unknown key {key!r}{close_to(key, _KEYS)}")
    spec = table.get("agent")
    if not isinstance(spec, str) or not _SPEC.fullmatch(spec):
        told = f"{spec!r:.80}" if "agent" in table else "missing"
        raise ConfigError(f"{at('agent')}: {head}agent is {told}; give module:agent, for example 'my_agents:support'")
    policies = _policies(table.get("policy", []), f"{at('policy')}: {head}")
    most = table.get("max_concurrency")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ConfigError(
            f"{at('max_concurrency')}: {head}max_concurrency is {most!r:.80}; give a whole number >= 1, or leave it out"
        )
    times = table.get("retries")
    if times is not None and (isinstance(times, bool) or not isinstance(times, int) or not 0 <= times <= 1000):
        raise ConfigError(f"{at('retries')}: {head}retries is {times!r:.80}; give a whole number from 0 to 1000")
    return Registered(
        name=name,
        source=at(),
        load=functools.partial(load_agent, spec),
        policy=tuple(policy_in_project(file, one) for one in policies),
        max_concurrency=most,
        retries=None if times is None else Retries(times=times),
    )


def _policies(value: object, where: str) -> list[str]:
    listed = cast("list[object]", value) if isinstance(value, list) else [value]
    policies = [one for one in listed if isinstance(one, str) and one]
    if len(policies) != len(listed):
        raise ConfigError(f"{where}policy is {value!r:.80}; give a name, the path of a file, or a list of them")
    return policies
