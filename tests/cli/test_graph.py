"""`oao graph show`, and the other commands on a run of a graph."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oao_harness.cli.app import main

FLOW = """
from pathlib import Path
from oao_harness import TaskGraph, TaskNode

def plan(task): return ["a", "b"]
def dig(task): return f"{task}!"
def write(task):
    if not Path("ink").exists():
        raise ValueError("no ink")
    return "written"
agent = plan
loop = TaskGraph([TaskNode("a", plan, {"b"}), TaskNode("b", plan, {"a"})])
graph = TaskGraph([
    TaskNode("plan", plan),
    TaskNode("dig", dig, over="plan"),
    TaskNode('say "hi"', write, "Write", {"dig"}, when=lambda outputs: True),
    TaskNode("print", dig, {'say "hi"'}),
])
"""


@pytest.fixture
def flow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    name = f"flow_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(FLOW, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return f"{name}:graph"


def oao(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def test_a_graph_is_drawn(flow: str) -> None:
    """As text, each node below what it waits for, and as Mermaid with names that break nothing."""
    shown = oao("graph", "show", flow)
    mermaid = oao("graph", "show", flow, "--mermaid")

    assert shown.exit_code == 0
    assert shown.stdout.splitlines()[:2] == [" plan  plan", "   dig  dig  <- each of plan"]
    assert mermaid.stdout.splitlines() == [
        "flowchart TD",
        '    n0["plan"]',
        '    n1["dig"]',
        "    n0 -- each --> n1",
        '    n2["say #quot;hi#quot;"]',
        "    n1 -. if .-> n2",
        '    n3["print"]',
        "    n2 --> n3",
    ]


def test_a_run_of_a_graph_is_drawn_with_its_states_and_forked_at_a_node(flow: str) -> None:
    """`oao run` walks it; the drawing says how far it came; a fork runs what failed anew, or a node."""
    failed = oao("run", flow, "x")
    assert failed.exit_code == 1
    assert "GraphError: node 'say \"hi\"' failed: ValueError: no ink; not run: print" in " ".join(failed.stdout.split())
    shown = oao("graph", "show", "last")
    assert [line.split()[-1] for line in shown.stdout.splitlines()] == ["SUCCESS", "SUCCESS", "FAILED", "SKIPPED"]
    assert "class n2 FAILED" in oao("graph", "show", "last", "--mermaid").stdout

    Path("ink").touch()
    assert oao("fork", "last").exit_code == 0
    assert [line.split()[-1] for line in oao("graph", "show", "last").stdout.splitlines()] == ["SUCCESS"] * 4
    forked = oao("fork", "last", "--at", "plan", "--set-result", '["c"]')
    assert forked.exit_code == 0
    assert "at node plan" in " ".join(oao("show", "last").stdout.split())
    assert oao("verify", "last").exit_code == 0


def test_mistakes_are_one_line(flow: str) -> None:
    """What is no graph, has a cycle, is unknown or is no run of one: exit code 2, no traceback."""
    module = flow.partition(":")[0]
    assert oao("run", f"{module}:agent", "x").exit_code == 0
    for arguments, said in (
        ((f"{module}:agent",), "is a function and no TaskGraph"),
        ((f"{module}:loop",), "cycle: a -> b -> a"),
        (("last",), "is none of a graph"),
        (("nothing",), "no run has an id that starts with 'nothing'"),
        ((f"{module}:grph",), "did you mean 'graph'"),
    ):
        done = oao("graph", "show", *arguments)
        assert done.exit_code == 2, done.output
        assert said in " ".join(done.stderr.split())
    assert oao("run", flow, "x").exit_code == 1
    unknown = oao("fork", "last", "--at", "dug")
    assert (unknown.exit_code, "did you mean 'dig'" in unknown.stderr) == (2, True)
