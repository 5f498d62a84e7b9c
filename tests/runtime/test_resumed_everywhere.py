"""A run cut off after each of its records, those of its nested run too: it goes on, and reports what it would have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from oao_harness import ExecutionReport, MemoryStore, Orchestrator, model, tool
from oao_hookspecs import Approve, Ask, Json, Limits, ModelCall, Price, Principal, Record, ToolCall, hookimpl

ANN = Principal(id="ann")
RAN: list[str] = []


@tool(effect="once")
def pay(to: str) -> str:
    RAN.append(f"pay {to}")
    return to


@tool(effect="once")
def send(to: str) -> str:
    RAN.append(f"send {to}")
    return to


@tool(effect="once")
def breaks(to: str) -> str:
    RAN.append(f"breaks {to}")
    raise ValueError(to)


@tool(effect="idempotent")
def book(what: str) -> str:
    RAN.append(f"book {what}")
    return what


@tool(effect="idempotent")
def trip(what: str) -> str:
    pay(what)
    return book(what)


@model(name="small")
def ask(prompt: str) -> dict[str, Json]:
    return {"content": prompt, "usage": {"input_tokens": 10, "output_tokens": 5}}


@model(name="small")
def tell(prompt: str) -> Iterator[dict[str, Json]]:
    for letter in "abc":
        yield {"content": letter}


def inner(task: str) -> str:
    ask(task)
    return send(book(task))


@tool(effect="idempotent")
def delegate(task: str) -> object:
    return Orchestrator().run(inner, task).final_output


def agent(task: str) -> str:
    ask("what")
    trip("Oslo")
    delegate("Rome")
    send("bob")
    try:
        breaks("it")
    except ValueError:
        pass
    list(tell("more"))
    send("bob")
    return "done"


class Holds:
    name = "holds"

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall) -> Ask | None:
        return Ask(rule="held", reason="look first") if call.name == "send" else None

    @hookimpl
    def oao_limits(self) -> Limits:
        return Limits(max_tokens=100_000, max_cost_usd=1.0)

    @hookimpl
    def oao_price(self, call: ModelCall) -> Price:
        return Price(input_per_million=1.0, output_per_million=2.0)


def journals(store: MemoryStore, execution_id: str) -> list[tuple[str, Record]]:
    """Return all records of a run and of those nested in it, in the order they were written."""
    found: list[tuple[str, Record]] = []
    for record in store.read(execution_id):
        found.append((execution_id, {key: value for key, value in record.items() if key != "hash"}))
        if record["type"] == "child":
            found += journals(store, str(record["execution_id"]))
    return sorted(found, key=lambda item: float(str(item[1]["at"])))


def cut(tape: Sequence[tuple[str, Record]]) -> MemoryStore:
    store = MemoryStore()
    for execution_id in dict(tape):
        kept = [record for run, record in tape if run == execution_id]
        store.append(execution_id, store.claim(execution_id), *kept)
    return store


def until_over(store: MemoryStore) -> ExecutionReport:
    """Resume the run as often as it waits for a person; what is in doubt had happened where it is in the list."""
    orchestrator = Orchestrator(Holds(), store)
    for _ in range(20):
        report = orchestrator.resume("r", agent)
        if report.status != "SUSPENDED":
            return report
        answers = 0
        for question in orchestrator.approvals():
            orchestrator.approve(question.id, by=ANN)
            answers += 1
        for doubt in orchestrator.in_doubt():
            landed = doubt.tool != "breaks"
            result = doubt.arguments["to"] if landed else None
            orchestrator.resolve(doubt.id, landed=landed, result=result, by=ANN)
            answers += 1
        assert answers, "it waits for something that nobody is told of"
    raise AssertionError("it never ends")


def facts(report: ExecutionReport) -> Sequence[object]:
    counts = (report.total_steps, report.model_calls, report.tool_calls, report.total_tokens, report.input_tokens)
    return (report.status, report.error, report.final_output, *counts, report.cost_usd, report.tool_usage)


def test_wherever_a_run_is_cut_off_it_goes_on_and_nothing_is_lost_or_done_twice() -> None:
    """Also between two records of one step: a question that was asked of nobody yet, a nested run nobody knows of."""
    store = MemoryStore()
    whole = Orchestrator(Holds(), store, approver=lambda question: Approve(by=ANN)).run(agent, "t", execution_id="r")
    assert whole.status == "SUCCESS", whole.error
    tape = journals(store, "r")
    end = next(index for index, (run, one) in enumerate(tape) if (run, one["type"]) == ("r", "run.finished"))
    cuts = range(1, end + 1)
    assert len(cuts) > 40
    for size in cuts:
        began = sum(one["type"] == "call" and one["name"] in {"pay", "send"} for _, one in tape[:size])
        RAN.clear()

        report = until_over(cut(tape[:size]))

        last = tape[size - 1][1]
        assert facts(report) == facts(whole), f"cut after record {last['seq']}, {last['type']}"
        once = sum(line.startswith(("pay", "send")) for line in RAN)
        assert began + once == 4, f"cut after record {last['seq']}, {last['type']}: {RAN}"
