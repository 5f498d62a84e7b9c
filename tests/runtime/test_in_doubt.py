"""A call that began and has no outcome: made again with the same key where that is safe, else a person decides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import oao_harness as oao
from oao_harness import MemoryStore, Orchestrator, UsageError
from oao_hookspecs import Json, Principal, Record, Store

ALICE = Principal(id="alice")
KEYS: list[str] = []
REPEATED: list[bool] = []


@pytest.fixture(autouse=True)
def _nothing_done() -> None:
    KEYS.clear()
    REPEATED.clear()


def note() -> None:
    call = oao.current_call()
    assert call is not None
    KEYS.append(call.idempotency_key)
    REPEATED.append(call.is_repeated)


@oao.tool
def pay(to: str) -> str:
    note()
    return f"paid {to}"


@oao.tool(effect="idempotent")
def upsert(row: str) -> str:
    note()
    return f"kept {row}"


@oao.tool(effect="pure")
def look(what: str) -> str:
    return f"saw {what}"


def agent(task: str) -> str:
    return f"{look('a')}, {pay('bob')}, {upsert('row')}"


def cut(store: Store, until: Callable[[Record], bool]) -> str:
    """Run the agent, and keep of its journal what was written before a record: as if the process had died there."""
    whole = Orchestrator().store
    report = Orchestrator(store=whole).run(agent, "t")
    assert report.status == "SUCCESS"
    kept: list[Record] = []
    for record in whole.read(report.execution_id):
        if until(record):
            break
        kept.append({key: value for key, value in record.items() if key != "hash"})
    store.append(report.execution_id, store.claim(report.execution_id), *kept)
    KEYS.clear()
    REPEATED.clear()
    return report.execution_id


def outcome_of(n: int) -> Callable[[Record], bool]:
    return lambda record: record["type"] == "outcome" and record["n"] == n


def test_an_idempotent_call_is_made_again_with_the_same_key(store: Store) -> None:
    """And the tool may know that it is the second time."""
    id_ = cut(store, outcome_of(3))

    report = Orchestrator(store=store).resume(id_, agent)

    assert (report.status, report.final_output) == ("SUCCESS", "saw a, paid bob, kept row")
    assert ([f"{id_}#3"], [True]) == (KEYS, REPEATED)


def test_a_call_that_landed_is_not_made_again(store: Store) -> None:
    """The agent is given what the person says that it returned."""
    id_ = cut(store, outcome_of(2))
    orchestrator = Orchestrator(store=store)

    held = orchestrator.resume(id_, agent)
    assert (held.status, [one["id"] for one in held.in_doubt]) == ("SUSPENDED", [f"{id_}#2"])
    assert [(one.tool, one.arguments) for one in orchestrator.in_doubt()] == [("pay", {"to": "bob"})]
    assert KEYS == []

    orchestrator.resolve(f"{id_[:8]}#2", landed=True, result="seen at the bank", by=ALICE, note="looked")
    report = orchestrator.resume(id_, agent)

    assert report.final_output == "saw a, seen at the bank, kept row"
    assert [f"{id_}#3"] == KEYS
    (said,) = [record for record in store.read(id_) if record["type"] == "resolved"]
    assert (said["by"], said["note"]) == ({"id": "alice", "roles": [], "tenant": ""}, "looked")


def test_a_call_that_did_not_happen_is_made_again_with_the_same_key(store: Store) -> None:
    """Should the person have been wrong, the key is there to tell."""
    id_ = cut(store, outcome_of(2))
    orchestrator = Orchestrator(store=store)
    orchestrator.resolve(id_, landed=False, by=ALICE)

    report = orchestrator.resume(id_, agent)

    assert report.final_output == "saw a, paid bob, kept row"
    assert ([f"{id_}#2", f"{id_}#3"], [True, False]) == (KEYS, REPEATED)


def test_in_doubt_again_after_a_second_crash(store: Store) -> None:
    """The answer was about the first time; what happened in the second is another question."""
    id_ = cut(store, outcome_of(2))
    Orchestrator(store=store).resolve(id_, landed=False, by=ALICE)
    records = list(store.read(id_))
    again: Record = {"v": 1, "seq": len(records) + 1, "type": "again", "at": records[-1]["at"], "n": 2}
    store.append(id_, store.claim(id_), again)

    held = Orchestrator(store=store).resume(id_, agent)

    assert (held.status, [one["id"] for one in held.in_doubt], KEYS) == ("SUSPENDED", [f"{id_}#2"], [])


def test_asking_again_does_not_grow_the_journal(store: Store) -> None:
    """Who resumes ten times before the answer writes one suspension."""
    id_ = cut(store, outcome_of(2))
    orchestrator = Orchestrator(store=store)
    orchestrator.resume(id_, agent)
    before = len(list(store.read(id_)))

    for _ in range(3):
        assert orchestrator.resume(id_, agent).status == "SUSPENDED"
    assert len(list(store.read(id_))) == before


@pytest.mark.parametrize(
    ("call", "result", "message"),
    [
        ("nothing#2", None, "there is no run 'nothing'"),
        ("{id}#1", None, "not one call in doubt; there are: {id}#2 \\(pay\\)"),
        ("{id}#x", None, "names no call"),
        ("", None, "there is no run ''"),
        ("{id}#2", "paid", "a call that did not happen has no result"),
    ],
)
def test_what_cannot_be_resolved_is_said(call: str, result: Json, message: str) -> None:
    """And nothing is written."""
    store = MemoryStore()
    id_ = cut(store, outcome_of(2))
    before = list(store.read(id_))

    with pytest.raises(UsageError, match=message.format(id=id_)):
        Orchestrator(store=store).resolve(call.format(id=id_), landed=False, by=ALICE, result=result)
    assert list(store.read(id_)) == before


@pytest.mark.parametrize("result", [{"$oao": "nonsense"}, {"$oao": "set"}, float("nan"), {"x": object()}])
def test_a_result_that_no_run_could_go_on_with_is_refused(result: Any) -> None:
    """Once it is written nobody can take it back."""
    store = MemoryStore()
    id_ = cut(store, outcome_of(2))
    before = list(store.read(id_))

    with pytest.raises(UsageError, match="cannot be handed to the agent"):
        Orchestrator(store=store).resolve(f"{id_}#2", landed=True, by=ALICE, result=result)
    assert list(store.read(id_)) == before


def test_a_second_answer_is_refused(store: Store) -> None:
    """A call is in doubt until somebody says what became of it."""
    id_ = cut(store, outcome_of(2))
    orchestrator = Orchestrator(store=store)
    orchestrator.resolve(id_, landed=True, by=ALICE)

    with pytest.raises(UsageError, match=r"no call of run .* is in doubt"):
        orchestrator.resolve(id_, landed=False, by=ALICE)


def test_inside_of_a_call_that_landed_nothing_is_in_doubt() -> None:
    """What its body did is part of it; where it did not happen, the call inside is still to be asked about."""
    store = MemoryStore()
    base: dict[str, Json] = {"v": 1, "at": 1.0}
    decision: Json = {"verdict": "allow", "rule": "default", "plugin": "oao"}
    call: dict[str, Json] = {"type": "call", "kind": "tool", "req": {}, "decision": decision}
    records: list[Record] = [
        {**base, "seq": 1, "type": "run.started", "execution_id": "r", "agent": "a", "task": "t"},
        {**base, "seq": 2, **call, "n": 1, "name": "outer"},
        {**base, "seq": 3, **call, "n": 2, "name": "inner", "parent": 1},
    ]
    store.append("r", store.claim("r"), *records)
    orchestrator = Orchestrator(store=store)
    with pytest.raises(UsageError, match="'r' is not one call in doubt"):
        orchestrator.resolve("r", landed=True, by=ALICE)

    orchestrator.resolve("r#1", landed=True, by=ALICE)
    with pytest.raises(UsageError, match="no call of run 'r' is in doubt"):
        orchestrator.resolve("r#2", landed=True, by=ALICE)


def test_outside_of_every_tool_there_is_no_call() -> None:
    """Neither in the agent nor beside every run."""
    seen: list[object] = [oao.current_call()]

    def curious(task: str) -> None:
        seen.append(oao.current_call())
        pay("x")

    assert Orchestrator().run(curious, "t").status == "SUCCESS"
    assert seen == [None, None]
    assert len(KEYS) == 1
