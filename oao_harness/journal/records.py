"""Journal records: what each type holds, and how calls and outcomes become JSON. Pure, version 1.

```text
run.started    execution_id, agent, task [, input, principal, tenant, origin, parent, parent_call, node, forked, job]
plan           adapter, policy, limits, fingerprints, oao [, waited_s]
child          execution_id [, n, node]
node           node, status [, execution_id, reason, because, result]
state          state
step           index, name
call           n, kind, name, req, decision
               [, call_id, scope, effect, access, parent, given, given_name, approvals, event]
again          n [, name]
retry          n, attempt, delay_s, error
outcome        n, res | error, duration_s [, usage, batch, attempts, replayed, event, late, abandoned, edited]
approval.*     see `questions`
resolved       n, landed, by [, note, res]
run.suspended  reason, approvals, totals [, inside, in_doubt, dead, again]
run.queued     reason, not_before [, attempt, again, totals, by]
run.resumed    agent, adapter, policy, limits, fingerprints, oao
checkpoint     thread, checkpoint [, n, ns, done]
http           h, name, req [, parent]
http.ended     h, res | error, duration_s
violation      rule, plugin, reason [, source, n]
ungoverned     what
run.finished   status, error, output, totals
redaction      by, note, records
```

`http` is a request that an agent's or a tool's own code sends: number `h`, inside the body of call `parent`; nobody
judges it, and a replay that serves it writes nothing. `input` is the task where `task` does not bring it back. `child`
names a run that was started inside of call `n`. `again` says that a call in doubt is made once more. `abandoned` marks
a call that was allowed and then never made, `edited` one that a fork gave another result. `forked` is the run whose
beginning this one has, and the number of the first call that is its own: `{"run": ..., "at": ...}`. `event` is the
number of the recorded event that a replay served; `at` and `duration_s` are the recorded ones then. `inside` are the
calls whose bodies wait for a person. `given` is the request as the agent made it, present where a policy modified it;
`given_name` is the model that the agent asked for, where a fork asks another; `approvals` are the questions whose
approval let the call pass. `in_doubt` are the calls of which a person must say in a `resolved` whether they landed, and
with what. `batch` holds the ids of the tool calls that one answer of a model asks for together. `fingerprints` are
digests of the agent, of its `parts` by name, of its `tools` and of the `policy`. `checkpoint` says where in a thread of
LangGraph a graph began, inside of call `n`; None: at nothing. `usage` is `{"in": ..., "out": ..., "estimated": ...}` in
tokens. `redaction` says which records somebody replaced, `[{"seq": ..., "digest": ...}]` with the digest of what stands
there now; it may follow the end of a run. Each of these has as `redacted` the digest of what stood there when it was
written. `job` is what a queued run asks of workers, `waited_s` how long it waited for the first one; `run.queued` says
that it waits again, from when on (Unix seconds), and which failed calls are then made again. `dead` says that it waits
no more: it failed too often, or ended too many workers. `node` is the name of a part of a run; a record `node` says
what became of one: its `execution_id` where it ran, its `result` where somebody put one there, `because` the one for
which it did not run. Every record also has `v`, `seq`, `type` and `at` (Unix seconds), and in its store a `hash`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, cast

from oao_harness.journal.shape import default_shaper
from oao_hookspecs import Allow, Call, Decision, ErrorInfo, Json, Outcome, ToolCall, Usage

__all__ = [
    "VERSION",
    "call_fields",
    "decision_text",
    "error_from_json",
    "error_to_json",
    "key_of",
    "outcome_fields",
    "request_of",
    "usage_from_json",
    "usage_to_json",
]

VERSION: Final = 1


def request_of(call: Call) -> dict[str, Json]:
    """Return what the call asks for, as a replay compares it."""
    return dict(call.request)


def key_of(kind: str, name: str, request: Mapping[str, Json]) -> str:
    """Return what a request is found by: 16 hex digits over kind, name and the request without volatile tokens.

    An index, no proof: requests of one key are compared with each other before one answers the other.
    """
    return default_shaper().shape(kind, name, request).key


def decision_text(decision: Decision) -> str:
    """Return a decision as one word and its rule: `allow default`, `deny max_tool_calls`."""
    return f"{decision.verdict} {decision.rule}".rstrip()


def call_fields(call: Call, decision: Decision, *, n: int, parent: int | None, given: Call | None) -> dict[str, Json]:
    """Return the fields of a `call` record."""
    verdict: dict[str, Json] = {"verdict": decision.verdict, "rule": decision.rule, "plugin": decision.plugin}
    if decision.reason:
        verdict["reason"] = decision.reason
    if decision.source:
        verdict["source"] = decision.source
    if isinstance(decision, Allow) and decision.would:
        verdict["would"] = decision.would
    fields: dict[str, Json] = {
        "n": n,
        "kind": call.kind,
        "name": call.name,
        "req": request_of(call),
        "decision": verdict,
    }
    if call.call_id is not None:
        fields["call_id"] = call.call_id
    if call.scope:
        fields["scope"] = call.scope
    if isinstance(call, ToolCall) and call.effect is not None:
        fields["effect"] = call.effect
    if isinstance(call, ToolCall) and call.access is not None:
        fields["access"] = call.access
    if parent is not None:
        fields["parent"] = parent
    if given is not None:
        fields["given"] = request_of(given)
    return fields


def outcome_fields(outcome: Outcome, *, n: int, late: bool, event: int | None = None) -> dict[str, Json]:
    """Return the fields of an `outcome` record."""
    fields: dict[str, Json] = {"n": n, "duration_s": round(outcome.duration_s, 6)}
    if outcome.error is not None:
        fields["error"] = error_to_json(outcome.error)
    else:
        fields["res"] = outcome.value
    if outcome.usage is not None:
        fields["usage"] = usage_to_json(outcome.usage)
    if len(outcome.proposed) > 1:
        fields["batch"] = [proposed.call_id for proposed in outcome.proposed]
    if outcome.attempts > 1:
        fields["attempts"] = outcome.attempts
    if outcome.replayed:
        fields["replayed"] = True
        if event is not None:
            fields["event"] = event
    if late:
        fields["late"] = True
    return fields


def usage_to_json(usage: Usage) -> dict[str, Json]:
    """Return tokens as `{"in": ..., "out": ...}`, with `estimated` where they were."""
    fields: dict[str, Json] = {"in": usage.input_tokens, "out": usage.output_tokens}
    if usage.estimated:
        fields["estimated"] = True
    return fields


def usage_from_json(node: Mapping[str, Json]) -> Usage:
    """Read what `usage_to_json` wrote."""
    return Usage(
        input_tokens=int(cast("int", node.get("in", 0))),
        output_tokens=int(cast("int", node.get("out", 0))),
        estimated=bool(node.get("estimated", False)),
    )


def error_to_json(error: ErrorInfo) -> dict[str, Json]:
    """Return an error as `{"type": ..., "message": ..., "data": ...}`."""
    return {"type": error.type, "message": error.message, "data": dict(error.data)}


def error_from_json(node: Mapping[str, Json]) -> ErrorInfo:
    """Read what `error_to_json` wrote."""
    data = cast("Mapping[str, Json]", node.get("data") or {})
    return ErrorInfo(type=str(node.get("type", "")), message=str(node.get("message", "")), data=data)
