"""A new run of a graph that keeps what some nodes of an old one returned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from oao_harness.errors import ConfigError, UsageError
from oao_harness.journal.branching import beginning_of, new_id
from oao_harness.journal.chain import intact
from oao_harness.journal.leases import claim
from oao_harness.runtime.graph import TaskGraph
from oao_harness.runtime.node_states import Ended, Past
from oao_harness.runtime.plain import as_json
from oao_hookspecs import Clock, Json, Record, Store, without_hash

__all__ = ["branch_graph"]


def branch_graph(
    store: Store,
    workflow_id: str,
    graph: TaskGraph,
    clock: Clock,
    *,
    at: Iterable[str] = (),
    results: Mapping[str, object] | None = None,
    new: str = "",
    request: str = "",
) -> str:
    """Write the journal of a new run of a graph, ready to be resumed; return its id.

    Kept is what succeeded. The nodes that `at` names run anew with all that depend on them, and so do those that
    depend on an edited result, those that failed, and those that never ran.

    Args:
        store: Where the run is, and the new one will be.
        workflow_id: The run; it stays as it is.
        graph: Its graph; it may have changed since.
        clock: Stamps the records.
        at: Names of nodes that run anew.
        results: What nodes are to have returned, by name; these do not run.
        new: See `branch`.
        request: See `branch`.

    Raises:
        UsageError: There is no such run or node, or the run is no graph's.
        DamagedError: The journal is not what was written.
    """
    records = intact(list(store.read(workflow_id)), workflow_id)
    if not records:
        raise UsageError(f"there is no run {workflow_id!r} in this store; `oao runs` lists them")
    if all(record.get("adapter") != "graph" for record in records if record["type"] == "plan"):
        raise UsageError(f"run {workflow_id!r} is none of a graph; fork it at a call: oao fork {workflow_id} --at N")
    anew, edits = list(at), dict(results or {})
    for name in (*anew, *edits):
        graph.require(name)
    if both := set(anew) & set(edits):
        raise ConfigError(f"node {sorted(both)[0]!r} cannot both run anew and have a result; leave one of them out")
    past = Past.of(records, store)
    failed = [name for name, ended in past.ended.items() if ended.status != "SUCCESS" and name in graph.nodes]
    again = graph.descendants([*anew, *edits, *failed]) | {*anew, *failed}
    kept = {
        name: ended
        for name, ended in past.ended.items()
        if name in graph.nodes and name not in again and name not in edits
    }
    kept |= {name: Ended(status="SUCCESS", output=as_json(value), given=True) for name, value in edits.items()}
    forked: dict[str, Json] = {"run": workflow_id, "at": ", ".join([*anew, *edits] or failed)}
    forked |= {"request": request} if request else {}
    return _written(store, records, clock, kept, forked=forked, new=new or new_id())


def _written(
    store: Store,
    records: Sequence[Record],
    clock: Clock,
    kept: Mapping[str, Ended],
    *,
    forked: Mapping[str, Json],
    new: str,
) -> str:
    now = clock.time()
    left_out = {"parent", "parent_call"}
    first = {key: value for key, value in beginning_of(records[0]).items() if key not in left_out}
    beginning: list[Record] = [{**first, "execution_id": new, "at": now, "forked": forked}]
    beginning += [
        without_hash(one)
        for one in records
        if one["type"] == "plan" or (one["type"] == "state" and one["state"] in {"PLAN", "EXECUTE"})
    ]
    beginning += [
        {"v": first["v"], "seq": 0, "type": "node", "at": now, **ended.fields(name)} for name, ended in kept.items()
    ]
    numbered: list[Record] = [{**record, "seq": seq} for seq, record in enumerate(beginning, start=1)]
    store.append(new, claim(store, new), *numbered)
    return new
