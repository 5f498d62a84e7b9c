"""Three reviewers side by side: one budget over all, one of them fails, one is tied by a policy of its own.

    python examples/multi_agent_review.py

Plain functions stand for agents; any agent that `Orchestrator` runs takes their place.
"""

from __future__ import annotations

from oao_harness import MultiAgentOrchestrator, StrictPolicy, ToolPolicy, tool

SENT: list[str] = []


@tool
def search(text: str) -> str:
    """Find what was said before."""
    return f"3 earlier reviews of {text}"


@tool
def send_mail(to: str) -> str:
    """Send the review."""
    SENT.append(to)
    return "sent"


def facts(task: str) -> str:
    """Checks what is claimed."""
    return f"facts checked against {search(task)}"


def style(task: str) -> str:
    """Fails: an error of one agent stops none of the others."""
    raise ValueError(f"cannot read {task}")


def eager(task: str) -> str:
    """Wants to mail its review, which its own policy forbids."""
    return send_mail(search(task))


def main() -> None:
    """Run them on one text, then under a budget that is too small for all."""
    agents = {"facts": facts, "style": style, "eager": eager}
    multi = MultiAgentOrchestrator(max_concurrency=2, policies={"eager": ToolPolicy(deny=["send_mail"])})
    results = multi.run_multi(agents, "the draft")
    for name, report in results.items():
        print(f"{name:6} {report.status:8} {report.final_output or report.error}")
    print(f"together: {results.workflow.tool_calls} tool calls; mails that were sent: {len(SENT)}")

    team = MultiAgentOrchestrator(max_concurrency=1, policy=StrictPolicy(max_tool_calls=2))
    results = team.run_multi({f"facts {number}": facts for number in (1, 2, 3)}, "the draft")
    print("one budget over all:", ", ".join(report.status for report in results.values()))


if __name__ == "__main__":
    main()
