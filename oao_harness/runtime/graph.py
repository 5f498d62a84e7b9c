"""A graph of agents as a value: nodes, what each waits for, and what is wrong with it. Runs nothing."""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

from oao_harness.errors import ConfigError
from oao_harness.runtime.requeuing import Retries
from oao_hookspecs import Json

__all__ = ["Outputs", "TaskGraph", "TaskNode"]

Outputs: TypeAlias = Mapping[str, Json]
"""What the dependencies of a node returned, by name, as JSON; a dependency that was skipped is not in it."""


@dataclass(frozen=True, slots=True)
class TaskNode:
    """One agent in a graph.

    Args:
        name: Unique in the graph.
        agent: As for `Orchestrator.run`; another graph too.
        task: What it is asked. None: the task of the graph. A text, or the graph's task where that is one, has what
            the dependencies returned appended to it. A function is called with what they returned, by name, and with
            the graph's task where it takes a second argument; what it returns is the task, as it is. Anything else is
            handed over as it is. A list or set of names in this place is taken as `dependencies`.
        dependencies: Names of the nodes that must have ended before.
        policy: Holds for this node alone, together with that of the graph.
        retries: How often it is tried again where its agent failed: a number, or `Retries`.
        when: Called with what the dependencies returned; the node is skipped where it does not return a true value.
        over: Name of a dependency that returns a list: the agent is run once for each item, as if the dependency had
            returned that item alone, and the result of the node is a list in the same order.

    Raises:
        ConfigError: A name, a dependency or a number of retries is none.
    """

    name: str
    agent: object
    task: object = None
    dependencies: Collection[str] = ()
    policy: object | str | Sequence[object | str] | None = None
    retries: int | Retries | None = None
    when: Callable[[Outputs], object] | None = None
    over: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(cast("object", self.name), str) or not self.name.strip():
            raise ConfigError(f"a node named {self.name!r}: give a text that is not empty")
        task, given = self.task, cast("object", self.dependencies)
        if not given and isinstance(task, set | frozenset | list | tuple):
            found = cast("Collection[object]", task)
            if isinstance(task, set | frozenset) or all(isinstance(one, str) for one in found):
                task, given = None, found
        names = self._names(given)
        if self.over is not None and self.over not in names:
            names = (*names, self.over)
        object.__setattr__(self, "task", task)
        object.__setattr__(self, "dependencies", names)
        object.__setattr__(self, "retries", self._retries(cast("object", self.retries)))

    def _names(self, given: object) -> tuple[str, ...]:
        hint = f"node {self.name!r}: dependencies={given!r:.100}: give the names of other nodes, such as {{'research'}}"
        if isinstance(given, str | bytes) or not isinstance(given, Collection):
            raise ConfigError(hint)
        names = list(cast("Collection[object]", given))
        if not all(isinstance(one, str) for one in names):
            raise ConfigError(hint)
        found = cast("list[str]", names)
        # The order of a set is another one in each process.
        return tuple(dict.fromkeys(sorted(found) if isinstance(given, set | frozenset) else found))

    def _retries(self, given: object) -> Retries | None:
        if given is None or isinstance(given, Retries):
            return given
        if not isinstance(given, int) or isinstance(given, bool):
            raise ConfigError(f"node {self.name!r}: retries={given!r:.60}: give a whole number, or Retries(...)")
        return Retries(times=given, transient_only=False) if given else None

    @property
    def tries(self) -> Retries | None:
        """How often it is tried again; None never."""
        return cast("Retries | None", self.retries)


class TaskGraph:
    """Agents, and which of them wait for which. It is an agent itself: `oao run module:graph "task"`.

    Args:
        nodes: The first nodes.
        name: Name of the workflow in reports.

    Raises:
        ConfigError: A node is there twice.
    """

    def __init__(self, nodes: Iterable[TaskNode] = (), *, name: str = "graph") -> None:
        self.name = name
        self._nodes: dict[str, TaskNode] = {}
        for node in nodes:
            self.add_node(node)

    @property
    def nodes(self) -> Mapping[str, TaskNode]:
        """The nodes by name, in the order they were added."""
        return dict(self._nodes)

    def add_node(self, node: TaskNode) -> None:
        """Add a node; those that it depends on may follow later.

        Raises:
            ConfigError: It is no `TaskNode`, or there is one of that name.
        """
        if not isinstance(cast("object", node), TaskNode):
            raise ConfigError(f"{node!r:.80} is no node; write TaskNode(name, agent, task, dependencies={{...}})")
        if node.name in self._nodes:
            raise ConfigError(f"there is a node {node.name!r} already; every node of a graph has a name of its own")
        self._nodes[node.name] = node

    def validate(self) -> None:
        """Check that every dependency is there and that no node waits for itself.

        Raises:
            ConfigError: The graph is empty, a dependency is missing, or there is a cycle; the message names the path.
        """
        self.order()

    def order(self) -> list[str]:
        """Return the names so that each node comes after those that it depends on, else as they were added.

        Raises:
            ConfigError: See `validate`.
        """
        if not self._nodes:
            raise ConfigError(f"graph {self.name!r} has no node; add one: graph.add_node(TaskNode(name, agent))")
        self._require_dependencies()
        dependents = self.dependents()
        waits_for = {name: len(node.dependencies) for name, node in self._nodes.items()}
        ready = deque(name for name, count in waits_for.items() if not count)
        found: list[str] = []
        while ready:
            name = ready.popleft()
            found.append(name)
            for other in dependents[name]:
                waits_for[other] -= 1
                if not waits_for[other]:
                    ready.append(other)
        if len(found) < len(self._nodes):
            path = self._cycle({name for name, count in waits_for.items() if count})
            raise ConfigError(f"the graph has a cycle: {' -> '.join(path)} (each waits for the next)")
        return found

    def dependents(self) -> dict[str, list[str]]:
        """Return for each node those that depend on it directly."""
        found: dict[str, list[str]] = {name: [] for name in self._nodes}
        for name, node in self._nodes.items():
            for dependency in node.dependencies:
                found.setdefault(dependency, []).append(name)
        return found

    def descendants(self, names: Iterable[str]) -> set[str]:
        """Return all nodes that depend on some nodes, directly or through others; without those."""
        dependents, found = self.dependents(), set[str]()
        open_ = list(names)
        while open_:
            new = [one for one in dependents[open_.pop()] if one not in found]
            found.update(new)
            open_ += new
        return found

    def ends(self) -> list[str]:
        """Return the nodes on which no other depends, in the order they were added."""
        return [name for name, others in self.dependents().items() if not others]

    def layers(self) -> list[list[str]]:
        """Return the nodes in rows: each is one below the lowest of those that it depends on."""
        depth: dict[str, int] = {}
        rows: list[list[str]] = []
        for name in self.order():
            depth[name] = max((depth[one] + 1 for one in self._nodes[name].dependencies), default=0)
            if depth[name] == len(rows):
                rows.append([])
            rows[depth[name]].append(name)
        return rows

    def require(self, name: str) -> TaskNode:
        """Return a node.

        Raises:
            ConfigError: There is none of that name.
        """
        node = self._nodes.get(name)
        if node is None:
            raise ConfigError(f"there is no node {name!r} in graph {self.name!r}; {self._hint(name)}")
        return node

    def _require_dependencies(self) -> None:
        for name, node in self._nodes.items():
            for dependency in node.dependencies:
                if dependency not in self._nodes:
                    raise ConfigError(
                        f"node {name!r} depends on {dependency!r}, which is not in the graph ({name} -> {dependency}); "
                        f"{self._hint(dependency)}"
                    )

    def _hint(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._nodes, n=1)
        some = [*self._nodes][:8]
        return f"did you mean {close[0]!r}?" if close else f"it has {', '.join(some)}{', ...' * (len(self._nodes) > 8)}"

    def _cycle(self, left: set[str]) -> list[str]:
        """Return a cycle among nodes of which each waits for another of them, its first node at both ends."""
        name: str = next(one for one in self._nodes if one in left)
        path: list[str] = []
        seen: dict[str, int] = {}
        while name not in seen:
            seen[name] = len(path)
            path.append(name)
            name = next(one for one in self._nodes[name].dependencies if one in left)
        return [*path[seen[name] :], name]

    def __repr__(self) -> str:
        return f"TaskGraph({self.name!r}, {len(self._nodes)} nodes)"
