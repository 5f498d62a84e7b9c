"""`oao graph show`: a graph of agents as text or Mermaid, and for a stored run how far its nodes have come."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import click
from rich.text import Text

from oao_harness.cli.console import console
from oao_harness.cli.origins import agent_of
from oao_harness.cli.stores import find_run, kept, open_store, store_option
from oao_harness.errors import AgentError, UsageError
from oao_harness.journal.timeline import text
from oao_harness.loading import load_agent, prefer_working_folder
from oao_harness.runtime.graph import TaskGraph, TaskNode
from oao_harness.runtime.node_states import Past
from oao_harness.runtime.orchestrator import name_of
from oao_hookspecs import Record, Store

__all__ = ["command"]

_STYLES: Final[Mapping[str, str]] = {"SUCCESS": "green", "FAILED": "red", "SKIPPED": "dim", "begun": "yellow"}
_COLOURS: Final[Mapping[str, str]] = {
    "SUCCESS": "fill:#d9f2dd,stroke:#2c7a3f",
    "FAILED": "fill:#f9d6d5,stroke:#b3261e",
    "SKIPPED": "fill:#eeeeee,stroke:#999999,color:#777777",
    "begun": "fill:#fff3cd,stroke:#a67c00",
}


@click.group("graph", short_help="Draw a graph of agents.")
def command() -> None:
    """Draw a graph of agents.

    \b
    Examples:
      oao graph show my_agents:review
      oao graph show last --mermaid
    """  # noqa: D301 - click reads the control character as "do not wrap"


@command.command("show", short_help="Draw a graph, and how far a run of it has come.")
@click.argument("what", metavar="MODULE:GRAPH|RUN")
@click.argument("graph", metavar="[MODULE:GRAPH]", required=False)
@click.option("--mermaid", is_flag=True, help="Print it as Mermaid, for a page or an issue.")
@store_option
def show(*, what: str, graph: str | None, mermaid: bool, store: str) -> None:
    """Draw a graph, and how far a run of it has come.

    Of a run: its id, the unique start of one, or `last`, with the status of each node. Where the journal does not say
    which graph it was, name it too. Each node stands below what it waits for.

    \b
    Examples:
      oao graph show my_agents:review
      oao graph show last
      oao graph show 3f2a my_agents:review --mermaid
    """  # noqa: D301 - click reads the control character as "do not wrap"
    states: dict[str, str] = {}
    where = what
    if ":" not in what:
        where, states = _of_run(what, graph, store)
    prefer_working_folder()
    found = load_agent(where)
    if not isinstance(found, TaskGraph):
        raise AgentError(f"{where!r} is a {type(found).__name__} and no TaskGraph, so there is nothing to draw")
    found.validate()
    on = console()
    if mermaid:
        click.echo("\n".join(_mermaid(found, states)))
        return
    for line in _drawn(found, states):
        on.print(line)


def _of_run(wanted: str, graph: str | None, store: str) -> tuple[str, dict[str, str]]:
    """Return where the graph of a run is, and what became of its nodes."""
    if not kept(store):
        raise UsageError("no run is journaled here yet; make one with: oao run module:graph TASK")
    with open_store(store) as opened:
        records = _of_graph(opened, find_run(opened, wanted))
        past = Past.of(records, opened)
    states: dict[str, str] = {name: ended.status for name, ended in past.ended.items()}
    states |= dict.fromkeys(past.begun, "begun")
    return agent_of(records[0], graph, f"oao graph show {wanted}"), states


def _of_graph(store: Store, records: Sequence[Record]) -> Sequence[Record]:
    """Return the journal of a graph: that of a run, or of the one that it is a node of."""
    while not any(record["type"] == "plan" and record.get("adapter") == "graph" for record in records):
        parent = records[0].get("parent")
        outer = list(store.read(str(parent))) if parent is not None else []
        if not outer:
            raise UsageError(f"run {text(records[0], 'execution_id')[:8]} is none of a graph; oao show draws it")
        records = outer
    return records


def _drawn(graph: TaskGraph, states: Mapping[str, str]) -> Iterator[Text]:
    nodes = graph.nodes
    for depth, row in enumerate(graph.layers()):
        for name in row:
            line = Text("  " * depth + " ")
            line.append(name, style="bold")
            line.append(f"  {name_of(nodes[name].agent)}", style="dim")
            if nodes[name].dependencies:
                line.append(f"  <- {', '.join(_edges(nodes[name]))}", style="dim")
            if states:
                state = states.get(name, "waits")
                line.append(f"  {state}", style=_STYLES.get(state, "dim"))
            yield line


def _edges(node: TaskNode) -> list[str]:
    """Return what a node waits for: `each of` a list, `if` there is a condition."""
    named = [f"each of {one}" if one == node.over else one for one in node.dependencies]
    return [*named, "if"] if node.when is not None else named


def _mermaid(graph: TaskGraph, states: Mapping[str, str]) -> Iterator[str]:
    # Names may hold anything, ids in Mermaid may not.
    ids = {name: f"n{index}" for index, name in enumerate(graph.nodes)}
    yield "flowchart TD"
    for name, node in graph.nodes.items():
        state = states.get(name, "waits") if states else ""
        label = f"{name}<br/>{state}" if state else name
        yield f'    {ids[name]}["{_quoted(label)}"]'
        for dependency in node.dependencies:
            arrow = "-. if .->" if node.when is not None else "-- each -->" if dependency == node.over else "-->"
            yield f"    {ids[dependency]} {arrow} {ids[name]}"
    for state, style in _COLOURS.items():
        of = [ids[name] for name in graph.nodes if states.get(name) == state]
        if of:
            yield f"    classDef {state} {style}"
            yield f"    class {','.join(of)} {state}"


def _quoted(label: str) -> str:
    return label.replace('"', "#quot;").replace("\n", " ")
