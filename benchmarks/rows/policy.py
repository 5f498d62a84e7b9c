"""One decision of a policy file of 1, 10 and 100 rules, beside Cedar, CEL and Microsoft's AGT (its Python SDK)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.contending import CPU_US, WALL_US, Contender, Goal, Row
from benchmarks.timing import Measure, timed, timed_async

HERE = "benchmarks.rows.policy"
GOAL_US = 15.0
COUNTS = (1, 10, 100)
RULE = '[[rule]]\nname = "{tool}{i}"\ntools = ["{tool}"]\nwhen = "args.amount > {i}000000"\nthen = "deny"\n'
OTHER = '[[rule]]\nname = "other{i}"\ntools = ["other{i}"]\nwhen = "args.amount > {i}000000"\nthen = "deny"\n'
ARGUMENTS = {"amount": 5, "to": "GB29"}
KINDS: Mapping[str, str] = {
    "allow list": '[tools]\nallow = ["pay", "get_*"]\n',
    "one sequence rule": '[[sequence]]\nname = "s"\nafter = ["read"]\nnever = ["pay"]\n',
    "one source of values": '[[rule]]\nname = "v"\ntools = ["pay"]\nvalues_from = { to = ["task"] }\n',
}


def rules(count: int) -> str:
    """Return a policy file whose rules all look at the call, and none denies it."""
    return "".join(RULE.format(tool="pay", i=i) for i in range(1, count + 1))


def others(count: int) -> str:
    return "".join(OTHER.format(i=i) for i in range(1, count + 1))


def words(count: int) -> str:
    return f"{count} rule{'s' if count > 1 else ''}"


def ours(count: int) -> str:
    return f"oao, {words(count)}"


def row() -> Row:
    def file(name: str, text: str) -> Contender:
        return Contender(name=name, make=f"{HERE}:decision", options={"text": text})

    def cedar(count: int) -> Contender:
        return Contender(
            name=f"cedarpy, {words(count)}", make=f"{HERE}:cedar", options={"count": count}, packages=("cedarpy",)
        )

    return Row(
        id="policy",
        title="one policy decision",
        how="A call of a tool is judged by rules that each compare an argument with a number; none denies it, so all "
        "are looked at. Policies are parsed before. Processor time.",
        figures=(CPU_US, WALL_US),
        contenders=(
            *(file(ours(count), rules(count)) for count in COUNTS),
            file("oao, 1 rule beside 100 of other tools", rules(1) + others(100)),
            *(file(f"oao, {name}", text) for name, text in KINDS.items()),
            *(cedar(count) for count in COUNTS),
            *(
                Contender(
                    name=f"bare CEL, {words(count)}",
                    make=f"{HERE}:bare_cel",
                    options={"count": count},
                    packages=("common-expression-language",),
                )
                for count in COUNTS
            ),
            Contender(
                name="AGT (agent-control-specification), policy that allows at once",
                make=f"{HERE}:control_specification",
                process="agent-control-specification",
                packages=("agent-control-specification",),
            ),
        ),
        goals=(Goal(says="under 15 us at 100 rules", contender=ours(100), at_most=GOAL_US),),
        note="Cedar is asked with its policies parsed before, the request is not. Bare CEL is one compiled program for "
        "each rule, executed one after the other on values that are there already. AGT's SDK evaluates Rego by a "
        "process for each decision; the line here has a policy in Python that says yes and looks at nothing, so "
        "it is the SDK alone: its call into a thread, and the values that go into Rust and back.",
    )


def decision(*, text: str) -> Measure:
    from oao_harness import FilePolicy, MemoryStore
    from oao_harness.runtime.clock import SystemClock
    from oao_harness.runtime.dispatch import Hooks
    from oao_harness.runtime.run import Run
    from oao_hookspecs import Principal, ToolCall

    policy = FilePolicy.from_text(text)
    call = ToolCall(name="pay", arguments=ARGUMENTS, id="1")
    run = Run(
        execution_id="r",
        agent_name="bank",
        task="pay GB29",
        hooks=Hooks({}, 5.0),
        clock=SystemClock(),
        store=MemoryStore(),
        principal=Principal(id="ann", roles=("teller",)),
    )
    return timed(lambda: policy.oao_decide_tool_call(call, run))


def cedar(*, count: int) -> Measure:
    import cedarpy

    forbids = "".join(
        f'forbid(principal, action, resource == Tool::"pay") when {{ context.amount > {i}000000 }};'
        for i in range(1, count + 1)
    )
    policies: Any = cedarpy.PolicySet.from_str(f"permit(principal, action, resource);{forbids}")
    entities: Any = cedarpy.Entities.from_json_str("[]")
    request = {
        "principal": {"type": "User", "id": "ann"},
        "action": {"type": "Action", "id": "call_tool"},
        "resource": {"type": "Tool", "id": "pay"},
        "context": ARGUMENTS,
    }
    assert cedarpy.is_authorized(request, policies, entities).allowed
    return timed(lambda: cedarpy.is_authorized(request, policies, entities))


def bare_cel(*, count: int) -> Measure:
    import cel

    programs = [cel.compile(f"args.amount > {i}000000") for i in range(1, count + 1)]
    values = {"args": ARGUMENTS}
    return timed(lambda: [program.execute(values) for program in programs])


def control_specification() -> Measure:
    import agent_control_specification as acs

    class Allow:
        def evaluate(self, invocation: object) -> dict[str, str]:
            return {"decision": "allow"}

    manifest = {
        "agent_control_specification_version": "0.3.1-beta",
        "policies": {"allow": {"type": "custom", "adapter": "python"}},
        "tools": {"pay": {}},
        "intervention_points": {
            "pre_tool_call": {
                "policy": {"id": "allow"},
                "policy_target": "$.tool_call.args",
                "policy_target_kind": "tool_args",
                "tool_name_from": "$.tool_call.name",
            }
        },
    }
    client = acs.NativeRuntimeClient(manifest, None, Allow())
    snapshot = {"tool_call": {"name": "pay", "args": ARGUMENTS, "id": "1"}}
    request = acs.InterventionPointRequest("pre_tool_call", snapshot)
    return timed_async(lambda: client.evaluate_intervention_point(request))
