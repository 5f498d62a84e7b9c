"""How far the nodes of a graph have come: as the journal of its run says, and as they end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, cast

from oao_harness.runtime.report import ExecutionReport
from oao_harness.runtime.stored_reports import bare_report, stored_report
from oao_hookspecs import Json, Record, Store

__all__ = ["Ended", "Past", "Status", "ended_by", "outputs_of"]

Status: TypeAlias = Literal["SUCCESS", "FAILED", "SKIPPED"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of a node."""

    status: Status
    output: Json = None
    reason: str = ""
    """Why it failed or was skipped."""
    execution_id: str = ""
    """Of its run; empty where it had none."""
    because: str = ""
    """The failed node for which it was skipped; its own name where it failed itself."""
    report: ExecutionReport | None = None
    given: bool = False
    """True where somebody put the output there."""

    def fields(self, node: str) -> dict[str, Json]:
        """Return the fields of the record `node`."""
        found: dict[str, Json] = {"node": node, "status": self.status}
        if self.execution_id:
            found["execution_id"] = self.execution_id
        if self.reason:
            found["reason"] = self.reason
        if self.because not in {"", node}:
            found["because"] = self.because
        if self.given:
            found["result"] = self.output
        return found

    def as_report(self, agent_name: str, now: float) -> ExecutionReport:
        """Return the report of its run, or one that says why there is none."""
        if self.report is not None:
            return self.report
        return bare_report(
            agent_name,
            self.status,
            self.reason or None,
            now=now,
            output=self.output,
            execution_id=self.execution_id,
        )


@dataclass(slots=True)
class Past:
    """What the journal of a graph's run says of its nodes."""

    ended: dict[str, Ended] = field(default_factory=dict[str, Ended])
    unsaid: list[str] = field(default_factory=list[str])
    """Nodes that have ended without a record that says so: the process died in between."""
    begun: dict[str, str] = field(default_factory=dict[str, str])
    """Ids of the runs of the others that have begun."""

    @classmethod
    def of(cls, records: Sequence[Record], store: Store) -> Past:
        """Read it.

        Args:
            records: The journal of the graph's run.
            store: Where its nodes' journals are.
        """
        past = cls()
        runs: dict[str, str] = {}
        for record in records:
            if record["type"] == "child" and record.get("node"):
                runs[str(record["node"])] = str(record["execution_id"])
            elif record["type"] == "node":
                past.ended[str(record["node"])] = _told(record, store)
        for name, execution_id in runs.items():
            if name in past.ended:
                continue
            ended = _of_run(name, execution_id, store)
            if ended is None:
                past.begun[name] = execution_id
            else:
                past.ended[name] = ended
                past.unsaid.append(name)
        return past

    def runs(self) -> Iterator[str]:
        """Yield the ids of the runs of the nodes that have ended."""
        yield from (ended.execution_id for ended in self.ended.values() if ended.execution_id)


def _told(record: Record, store: Store) -> Ended:
    name, status = str(record["node"]), cast("Status", record["status"])
    execution_id, reason = str(record.get("execution_id") or ""), str(record.get("reason") or "")
    found = _of_run(name, execution_id, store) if execution_id else None
    if found is not None:
        return found
    if execution_id and status == "SUCCESS":
        # Its output is gone with its journal: what depends on it cannot be asked.
        reason = f"it succeeded, but its run {execution_id} is not in this store any more, and so not its result"
        return Ended(status="FAILED", reason=reason, because=name)
    because = str(record.get("because") or (name if status == "FAILED" else ""))
    return Ended(
        status=status,
        reason=reason,
        because=because,
        execution_id=execution_id,
        output=record.get("result"),
        given="result" in record,
    )


def _of_run(name: str, execution_id: str, store: Store) -> Ended | None:
    """Return how the run of a node ended; None where it has not."""
    report = stored_report(list(store.read(execution_id)))
    if report is None:
        return None
    return ended_by(name, report)


def ended_by(name: str, report: ExecutionReport) -> Ended:
    """Return what became of a node whose run has ended.

    Args:
        name: The node.
        report: Of its run; SUCCESS or FAILED.
    """
    failed = report.status != "SUCCESS"
    return Ended(
        status="FAILED" if failed else "SUCCESS",
        output=cast("Json", report.final_output),
        reason=(report.error or "it failed") if failed else "",
        because=name if failed else "",
        execution_id=report.execution_id,
        report=report,
    )


def outputs_of(ended: Mapping[str, Ended], names: Sequence[str]) -> dict[str, Json]:
    """Return what some nodes returned, without those that were skipped."""
    return {name: ended[name].output for name in names if ended[name].status == "SUCCESS"}
