"""Fingerprints: the same in every process, another for every change, and the change has a name."""

from __future__ import annotations

import gc
import json
import operator
import os
import subprocess
import sys
import types
import weakref
from pathlib import Path
from typing import Any

import pytest

import oao_harness as oao
from oao_harness.errors import UsageError
from oao_harness.runtime.fingerprint import changes, fingerprints, version_of_policies
from oao_harness.runtime.parts import parts_of
from oao_harness.runtime.resuming import require_same_code

SOURCE = '''
import dataclasses
import functools

import oao_harness as oao
import my_helpers

PROMPT = "think"
KINDS = frozenset({"a", "b", "c", "dd", "ee"})


@oao.tool
def pay(to: str) -> str:
    return log(to)


def log(text):
    return my_helpers.shown(text)


def twice(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args)

    return wrapper


@twice
def plan(task):
    """Plan it."""
    # a comment
    return PROMPT + task if task in KINDS else task


def agent(task):
    return pay(plan(task))


class Base:
    retries = 2

    def helped(self, task):
        return agent(task)


@dataclasses.dataclass(slots=True)
class Agent(Base):
    step: object = None
    seen: int = 0

    def invoke(self, task):
        return self.helped(task)


def of_step(text):
    return text


made = Agent(step=of_step)
'''
HELPERS = """
def shown(text):
    return f"<{text}>"


def unused(text):
    return text
"""
GRAPH = '''
from typing import TypedDict

from langchain.agents import create_agent
from langchain_core.tools import tool
from langgraph.graph import END, START, StateGraph

from tests.adapters.scripted import Scripted, says


class State(TypedDict):
    task: str


def checked(text):
    return text


@tool
def look(account: str) -> str:
    """Look at an account."""
    return checked(account)


def research(state):
    return {"task": look.invoke({"account": state["task"]})}


def write(state):
    return state


def route(state):
    return END


def make():
    graph = StateGraph(State)
    graph.add_node("research", research)
    graph.add_node("write", write)
    graph.add_edge(START, "research")
    graph.add_edge("research", "write")
    graph.add_conditional_edges("write", route, [END, "research"])
    return graph.compile()


graph = make()
bound = graph.with_config({"tags": ["x"]})
outer = StateGraph(State).add_node("inner", graph).add_edge(START, "inner").compile()
ready = create_agent(Scripted(script=[says("done")]), [look])
'''


def look_at(folder: Path, what: str, *, seed: str = "0", **sources: str) -> dict[str, Any]:
    """Return the fingerprints of an agent in a process of its own."""
    return look_at_all(folder, what, seed=seed, **sources)[0]


def look_at_all(folder: Path, what: str, *, seed: str = "0", **sources: str) -> list[dict[str, Any]]:
    """Return the fingerprints of agents, in one process of their own."""
    folder.mkdir(exist_ok=True)
    for name, source in sources.items():
        (folder / f"{name}.py").write_text(source)
    code = (
        "import json; from my_agents import *; from oao_harness.runtime.fingerprint import fingerprints; "
        f"found = [fingerprints(one, [], policy='p') for one in ({what},)]; print(json.dumps(found))"
    )
    path = os.pathsep.join([str(folder), os.environ.get("PYTHONPATH", ""), *sys.path[:3], str(Path.cwd())])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def loaded(folder: Path, what: str, monkeypatch: pytest.MonkeyPatch, **sources: str) -> dict[str, Any]:
    """Return the fingerprints of an agent whose modules are loaded anew, in this process."""
    monkeypatch.syspath_prepend(str(folder))
    for name in sources:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    for name, source in reversed(sources.items()):
        file = folder / f"{name}.py"
        vars(sys.modules[name])["__file__"] = str(file)
        exec(compile(source, str(file), "exec"), vars(sys.modules[name]))
    return fingerprints(operator.attrgetter(what)(sys.modules["my_agents"]), [], policy="p")


def test_two_processes_see_the_same_agent(tmp_path: Path) -> None:
    """Nothing of a fingerprint comes from a hash seed, an address, or the folder that the code lies in."""
    sources = {"my_agents": SOURCE, "my_helpers": HELPERS}
    agents = "agent, made, made.invoke"
    first, *others = [look_at_all(tmp_path / seed, agents, seed=seed, **sources) for seed in ("1", "2", "77")]
    assert len(first) == 3
    assert others == [first, first]
    for found in first:
        assert {"tool pay", "my_agents.plan", "my_helpers.shown", "constant my_agents.PROMPT"} <= set(found["parts"])


def test_two_processes_see_the_same_graph(tmp_path: Path) -> None:
    """Edges and branches are kept in sets, whose order is another in every process."""
    graphs = "graph, bound, outer, ready"
    one, other = [look_at_all(tmp_path / seed, graphs, seed=seed, my_agents=GRAPH) for seed in ("1", "77")]
    assert len(one) == 4
    assert one == other
    for found in one:
        assert {"edges of the graph", "tool look", "my_agents.checked"} <= set(found["parts"])


@pytest.mark.parametrize(
    ("what", "old", "new", "named"),
    [
        ("agent", "return pay(plan(task))", "return plan(pay(task))", ["function my_agents.agent"]),
        ("agent", "else task\n", "else task * 2\n", ["function my_agents.plan"]),
        (
            "agent",
            "return function(*args)",
            "return function(*args[:1])",
            ["function my_agents.twice.<locals>.wrapper"],
        ),
        ("agent", "return log(to)", "return log(to + to)", ["tool pay"]),
        ("agent", "def pay(to: str)", "def pay(to: int)", ["tool pay"]),
        ("agent", "my_helpers.shown(text)", "my_helpers.shown(text, 1)", ["function my_agents.log"]),
        ("agent", '"think"', '"think hard"', ["constant my_agents.PROMPT"]),
        ("agent", '"dd"', '"d"', ["constant my_agents.KINDS"]),
        ("agent", '"""Plan it."""', '"""Plan it well."""', ["function my_agents.plan"]),
        ("agent", "@oao.tool\n", '@oao.tool(name="send")\n', ["tool pay", "tool send"]),
        ("made", "return self.helped(task)", "return self.helped(task) + '!'", ["function my_agents.Agent.invoke"]),
        ("made", "return agent(task)", "return agent(task) or task", ["function my_agents.Base.helped"]),
        ("made", "retries = 2", "retries = 3", ["class my_agents.Base"]),
        (
            "made",
            "def of_step(text):\n    return text",
            "def of_step(text):\n    return 1",
            ["function my_agents.of_step"],
        ),
        ("made.invoke", "PROMPT + task", "task + PROMPT", ["function my_agents.plan"]),
    ],
)
def test_a_change_of_an_agent_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, old: str, new: str, named: list[str]
) -> None:
    """Each kind of change is noticed, and nothing else is named."""
    assert SOURCE.count(old) >= 1
    before = loaded(tmp_path, what, monkeypatch, my_agents=SOURCE, my_helpers=HELPERS)
    now = loaded(tmp_path, what, monkeypatch, my_agents=SOURCE.replace(old, new), my_helpers=HELPERS)
    assert changes(before, now) == named


def test_a_change_in_another_module_has_a_name(tmp_path: Path) -> None:
    """What is reached as an attribute of a module counts; what is beside it does not."""
    before = look_at(tmp_path, "agent", my_agents=SOURCE, my_helpers=HELPERS)
    assert changes(before, look_at(tmp_path, "agent", my_helpers=HELPERS.replace("return text", "return 1"))) == []
    changed = look_at(tmp_path, "agent", my_helpers=HELPERS.replace("<{text}>", "[{text}]"))
    assert changes(before, changed) == ["function my_helpers.shown"]


@pytest.mark.parametrize("new", ["# another comment\n\n\n    ", ""])
def test_comments_and_lines_do_not_count(tmp_path: Path, new: str) -> None:
    """What a reader sees and the interpreter does not is no change."""
    before = look_at(tmp_path, "made", my_agents=SOURCE, my_helpers=HELPERS)
    moved = "\n\n\n" + SOURCE.replace("# a comment\n    ", new)
    assert moved != SOURCE
    assert look_at(tmp_path, "made", my_agents=moved) == before


@pytest.mark.parametrize(
    ("what", "old", "new", "named"),
    [
        ("graph", 'return {"task": look', 'return {"task": "" or look', ["node research of the graph"]),
        ("bound", 'return {"task": look', 'return {"task": "" or look', ["node research of the graph"]),
        ("outer", 'return {"task": look', 'return {"task": "" or look', ["node research of the graph in node inner"]),
        ("graph", "return END", "return END or state", ["branch route after write of the graph"]),
        ("graph", 'add_edge("research", "write")', 'add_edge("research", END)', ["edges of the graph"]),
        ("graph", '[END, "research"]', '[END, "write"]', ["edges of the graph"]),
        ("graph", "return checked(account)", "return checked(account + '')", ["tool look"]),
        ("graph", "Look at an account.", "Look at no account.", ["tool look"]),
        (
            "graph",
            "def checked(text):\n    return text",
            "def checked(text):\n    return 1",
            ["function my_agents.checked"],
        ),
        ("ready", "return checked(account)", "return checked(account + '')", ["tool look"]),
        ("ready", "[look]", "[]", None),
    ],
)
def test_a_change_of_a_graph_has_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, old: str, new: str, named: list[str] | None
) -> None:
    """Nodes, edges, branches and tools, also those of a graph that was bound or nested."""
    assert GRAPH.count(old) >= 1
    before = loaded(tmp_path, what, monkeypatch, my_agents=GRAPH)
    now = loaded(tmp_path, what, monkeypatch, my_agents=GRAPH.replace(old, new))
    found = changes(before, now)
    if named is None:
        assert "tool look" in found
        assert "edges of the graph" in found
    else:
        assert found == named


class Trap:
    """An object whose every property and missing attribute is a mistake to ask for."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(name)

    @property
    def risky(self) -> object:
        raise AssertionError("risky")

    @property
    def __class__(self) -> Any:
        raise AssertionError("__class__")

    def invoke(self, task: object) -> object:
        return task


class Strange(dict):  # type: ignore[type-arg]
    def items(self) -> Any:
        raise AssertionError("items")

    def __iter__(self) -> Any:
        raise AssertionError("iter")


def test_looking_runs_nothing() -> None:
    """No property, no `__getattr__`, no method of a container is run."""
    trap = Trap()

    def agent(task: object) -> object:
        return trap.invoke(strange["a"](task))

    def inner(task: object) -> object:
        return task

    strange = Strange(a=inner)
    found = set(parts_of(agent))
    where = f"{__name__}.test_looking_runs_nothing.<locals>"
    assert {f"{where}.agent", f"{where}.inner", f"{__name__}.Trap.invoke"} <= found


def test_a_large_world_is_bounded() -> None:
    """A cycle, a deep chain and thousands of objects end, and cost a journal little."""
    made: dict[str, Any] = {}
    source = "\n".join(f"def f{n}(x): return f{n + 1}(x)" for n in range(600))
    exec(compile(source, str(Path(__file__).parent / "made.py"), "exec"), made)
    chain: list[Any] = []
    chain.append(chain)

    def agent(task: object) -> object:
        return [chain, many]

    many = {name: [one] for name, one in made.items() if callable(one)}
    found = parts_of(agent)
    assert 2 <= len(found) <= 256


def test_what_is_known_of_an_agent_does_not_keep_it() -> None:
    """The cache is weak, and an agent that was changed is looked at again."""

    class Agent:
        def __init__(self) -> None:
            self.step = len

        def invoke(self, task: object) -> object:
            return task

    def other(task: object) -> object:
        return task

    agent = Agent()
    before = fingerprints(agent, [])
    assert fingerprints(agent, []) == before
    agent.step = other  # type: ignore[assignment]
    assert any("other" in name for name in changes(before, fingerprints(agent, [])))
    gone = weakref.ref(agent)
    del agent
    gc.collect()
    assert gone() is None


def test_an_old_journal_is_compared_as_it_was_written() -> None:
    """A journal without parts and policy knows the outermost code, and only that is compared."""

    def agent(task: object) -> object:
        return task

    def other(task: object) -> object:
        return [task]

    old = {key: value for key, value in fingerprints(agent, []).items() if key in {"agent", "tools"}}
    records: list[Any] = [{"type": "plan", "fingerprints": old}]
    require_same_code(records, agent, [], policy="new")
    with pytest.raises(UsageError, match="the code of the agent is not the one"):
        require_same_code(records, other, [], policy="new")


def quiet(task: object) -> object:
    return task


def test_another_policy_is_refused_unless_it_is_compared() -> None:
    """What was allowed under one policy is not gone on with under another."""
    orchestrator = oao.Orchestrator(oao.StrictPolicy(max_steps=7))
    records = list(orchestrator.store.read(orchestrator.run(quiet, "t").execution_id))
    same, other = (version_of_policies([oao.StrictPolicy(max_steps=steps)]) for steps in (7, 8))
    require_same_code(records, quiet, [], policy=same)
    require_same_code(records, quiet, [])
    with pytest.raises(UsageError, match=r"^the policy is not the one"):
        require_same_code(records, quiet, [], policy=other)
    with pytest.raises(UsageError, match=r"the code of .*, and the policy is not the one"):
        require_same_code(records, lambda task: task, [], policy=other)


def test_what_a_resumed_run_was_made_of_counts_from_then_on() -> None:
    """Who said once that a change is meant does not have to say it again."""
    orchestrator = oao.Orchestrator()
    records = list(orchestrator.store.read(orchestrator.run(quiet, "t").execution_id))
    now = fingerprints(test_looking_runs_nothing, [])
    resumed: list[Any] = [*records, {"type": "run.resumed", "fingerprints": now}]
    require_same_code(resumed, test_looking_runs_nothing, [])
    with pytest.raises(UsageError, match=r"is not the one that was interrupted"):
        require_same_code(resumed, quiet, [])


def test_a_policy_whose_repr_holds_an_address_is_the_same_in_the_next_process() -> None:
    """A function in a policy of one's own must not make every resume another policy."""

    class Policy:
        def __init__(self) -> None:
            self.rule = lambda call: None

        def __repr__(self) -> str:
            return f"Policy({self.rule!r})"

    first, second = Policy(), Policy()
    assert repr(first) != repr(second)
    assert version_of_policies([first]) == version_of_policies([second])
