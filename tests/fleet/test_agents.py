"""Agents by name: where they are registered, what a name may be, and what is said where one is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from oao_harness import AgentError, ConfigError, UsageError
from oao_harness.cli.finding import find_agent
from oao_harness.fleet.agents import Agents, Registered
from oao_harness.policy.project import find_project_setting
from oao_hookspecs import hookimpl


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A repository that is the working folder, with a module of agents; what is imported is forgotten again."""
    (tmp_path / ".git").mkdir()
    (tmp_path / "named_desk.py").write_text(
        "print('imported')\ndef support(task): return f'support {task}'\ndef refunds(task): return f'refunds {task}'\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    yield tmp_path
    sys.modules.pop("named_desk", None)


def declare(folder: Path, text: str) -> None:
    (folder / "pyproject.toml").write_text(text)


def install(folder: Path, name: str, points: str, group: str = "oao.agents") -> None:
    """Put a distribution with entry points on the import path, as an installer would."""
    info = folder / f"{name}-1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[{group}]\n{points}\n")


def test_agents_of_a_project(project: Path) -> None:
    """A text or a table; nothing is imported until an agent is loaded, and then once."""
    declare(
        project,
        "[tool.oao.agents]\nsupport = 'named_desk:support'\n"
        "[tool.oao.agents.refunds]\nagent = 'named_desk:refunds'\npolicy = ['strict', 'rules/a.toml']\n"
        "max_concurrency = 3\nretries = 2\n",
    )
    agents = Agents.discover()
    assert agents.names() == ["refunds", "support"]
    assert "named_desk" not in sys.modules
    support, refunds = agents.get("support"), agents.get("refunds")
    assert (support.source, support.policy, support.max_concurrency, support.retries) == (
        "pyproject.toml:2",
        (),
        None,
        None,
    )
    assert (refunds.source, refunds.policy, refunds.max_concurrency) == (
        "pyproject.toml:3",
        ("strict", "rules/a.toml"),
        3,
    )
    assert refunds.retries is not None
    assert refunds.retries.times == 2
    loaded = support.load()
    assert callable(loaded)
    assert loaded("x") == "support x"
    assert support.load() is loaded is agents.get("support").load()


def test_the_nearest_project_counts(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first pyproject.toml upwards with the table; policies are paths as seen from here."""
    declare(project, "[tool.oao.agents.support]\nagent = 'named_desk:support'\npolicy = 'p.toml'\n")
    sub = project / "sub"
    sub.mkdir()
    declare(sub, "[tool.oao]\npolicy = 'strict'\n")
    monkeypatch.chdir(sub)
    assert Agents.discover().get("support").policy == (str(project / "p.toml"),)
    assert Agents.discover(project.parent).names() == []


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[tool.oao]\nagents = 3\n", "pyproject.toml:2: [tool.oao.agents] is no table; write for example support ="),
        ("[tool.oao.agents]\nx = 3\n", "pyproject.toml:2: agent 'x': agent is 3; give module:agent"),
        ("[tool.oao.agents]\nx = 'desk.py:a'\ny='desk'\n", "pyproject.toml:3: agent 'y': agent is 'desk'; give"),
        ("[tool.oao.agents]\nx = 'os:system('\n", "pyproject.toml:2: agent 'x': agent is 'os:system('; give"),
        ("[tool.oao.agents.x]\npolicy='strict'\n", "pyproject.toml:1: agent 'x': agent is missing; give module:agent"),
        ("[tool.oao.agents.x]\nagent='a:b'\npolcy='x'\n", "pyproject.toml:3: agent 'x': unknown key 'polcy'; did you"),
        ("[tool.oao.agents.x]\nagent='a:b'\npolicy=3\n", "pyproject.toml:3: agent 'x': policy is 3; give a name"),
        ("[tool.oao.agents.x]\nagent='a:b'\npolicy=['a', '']\n", "pyproject.toml:3: agent 'x': policy is ['a', '']"),
        ("[tool.oao.agents.x]\nagent='a:b'\nmax_concurrency=0\n", "pyproject.toml:3: agent 'x': max_concurrency is 0;"),
        ("[tool.oao.agents.x]\nagent='a:b'\nmax_concurrency=true\n", "pyproject.toml:3: agent 'x': max_concurrency is"),
        ("[tool.oao.agents.x]\nagent='a:b'\nretries=-1\n", "pyproject.toml:3: agent 'x': retries is -1; give a whole"),
        ("[tool.oao.agents]\n'a:b' = 'a:b'\n", "pyproject.toml:2: agent 'a:b': a name has letters"),
        ("[tool.oao]\nagnets = 3\n", "pyproject.toml:2: [tool.oao]: unknown key 'agnets'; did you mean 'agents'?"),
    ],
)
def test_mistakes_in_a_project_have_a_line(project: Path, text: str, said: str) -> None:
    """Each says where it is, and what to write."""
    declare(project, text)
    with pytest.raises(ConfigError) as caught:
        Agents.discover()
    assert str(caught.value).startswith(said)


def test_agents_of_installed_distributions(project: Path) -> None:
    """An entry point is imported when its agent is loaded, not before; an extra behind it is not part of it."""
    install(project, "shop", "support = named_desk:support [desk]\nbroken = no_such_module_here:x")
    agents = Agents.discover()
    assert agents.names() == ["broken", "support"]
    assert "named_desk" not in sys.modules
    assert agents.get("support").source == "entry point of shop 1.2"
    assert agents.get("support").load() is sys.modules["named_desk"].support
    with pytest.raises(UsageError, match="there is no module 'no_such_module_here'"):
        agents.get("broken").load()


@pytest.mark.parametrize("value", ["named_desk", "named_desk:", ":support", "./x:y"])
def test_an_entry_point_that_names_no_agent(project: Path, value: str) -> None:
    """It is refused with the distribution that has it."""
    install(project, "shop", f"support = {value}")
    with pytest.raises(ConfigError, match=r"entry point of shop 1\.2: agent 'support' is .*; give module:agent"):
        Agents.discover()


class Offering:
    """A plugin that offers what it is given."""

    name = "offering"

    def __init__(self, offered: object) -> None:
        self.offered = offered

    @hookimpl
    def oao_agents(self) -> Mapping[str, Callable[[], object]]:
        if isinstance(self.offered, Exception):
            raise self.offered
        return self.offered  # type: ignore[return-value]


def test_agents_of_plugins_are_made_once(project: Path) -> None:
    """What a plugin offers is called when it is loaded, and once; a failure is said in one line and tried again."""
    made: list[object] = []

    def make() -> object:
        made.append(object())
        if len(made) == 1:
            raise ValueError("no licence")
        return made[-1]

    agents = Agents.discover(plugins=[Offering({"support": make})])
    support = agents.get("support")
    assert (support.source, made) == ("plugin 'offering'", [])
    with pytest.raises(AgentError, match=r"^plugin 'offering': agent 'support' cannot be made: ValueError: no licence"):
        support.load()
    assert support.load() is support.load() is made[1]
    assert len(made) == 2


@pytest.mark.parametrize(
    ("offered", "said"),
    [
        (["support"], r"plugin 'offering': oao_agents returned \['support'\]; return names"),
        ({"support": 3}, r"plugin 'offering': oao_agents offers 'support' as 3; give a name, and a function"),
        ({3: print}, r"plugin 'offering': oao_agents offers 3 as"),
        ({"a.b": print}, r"plugin 'offering': agent 'a\.b': a name has letters, digits, _ and -"),
        (RuntimeError("no"), r"plugin 'offering': oao_agents failed: RuntimeError: no"),
    ],
)
def test_a_plugin_that_offers_something_else(project: Path, offered: object, said: str) -> None:
    """It is named."""
    with pytest.raises(ConfigError, match=said):
        Agents.discover(plugins=[Offering(offered)])


def test_two_sources_of_one_name(project: Path) -> None:
    """Neither wins: both are named."""
    declare(project, "[tool.oao.agents]\nsupport = 'named_desk:support'\n")
    with pytest.raises(ConfigError, match=r"two agents are named 'support': pyproject\.toml:2 and plugin 'offering';"):
        Agents.discover(plugins=[Offering({"support": object})])
    install(project, "shop", "support = named_desk:support")
    with pytest.raises(ConfigError, match=r"'support': pyproject\.toml:2 and entry point of shop 1\.2; rename"):
        Agents.discover()
    declare(project, "")
    install(project, "store", "support = named_desk:support")
    with pytest.raises(ConfigError, match=r"'support': entry point of (shop|store) 1\.2 and entry point of"):
        Agents.discover()


def test_an_unknown_name() -> None:
    """A near one is offered, and what there is."""
    agents = Agents.of({"support": object(), "refunds": object()})
    with pytest.raises(AgentError) as caught:
        agents.get("suport")
    assert str(caught.value) == (
        "there is no agent named 'suport'; did you mean 'support'? registered: refunds, support."
    )
    with pytest.raises(AgentError, match=r"none is registered; add it to pyproject\.toml under \[tool\.oao\.agents\]"):
        Agents().get("support")


@pytest.mark.parametrize("name", ["named_desk:support", "named_desk.support", "./support", "support/", "", "os:system"])
def test_code_is_never_named(project: Path, name: str) -> None:
    """What a job names is looked up and nothing else: no import, and the reason is said."""
    agents = Agents.of({"support": object()})
    with pytest.raises(AgentError, match="A job names an agent, never code"):
        agents.get(name)
    assert "named_desk" not in sys.modules
    with pytest.raises(ConfigError, match="a name has letters, digits, _ and - only"):
        Registered(name=name, source="here", load=object)


def test_agents_that_are_objects() -> None:
    """An object is its own agent; settings go beside it in a `Registered`."""
    agent = object()
    agents = Agents.of({"support": agent})
    assert agents.get("support").load() is agent
    assert "support" in agents
    assert "x" not in agents
    assert [one.name for one in agents] == ["support"]
    with pytest.raises(ConfigError, match="max_concurrency=0; give a whole number >= 1"):
        Registered(name="x", source="here", load=object, max_concurrency=0)


def test_the_command_line_takes_a_name(project: Path) -> None:
    """A word without a colon that is registered is that agent; any other one is refused as before."""
    declare(project, "[tool.oao.agents]\nsupport = 'named_desk:support'\n")
    by_name = find_agent("support")
    assert by_name is find_agent("named_desk:support")
    for other in ("named_desk", "named_desk.support", "named_desk.py"):
        with pytest.raises(AgentError, match="is not of the form module:agent; write for example"):
            find_agent(other)


def test_scheduler_and_store_of_a_project(project: Path) -> None:
    """Texts, and where they are written; another value is a mistake with its line."""
    assert find_project_setting("scheduler") is None
    declare(project, "[tool.oao]\nscheduler = 'redis://q:6379/0'\nstore = 3\n")
    found = find_project_setting("scheduler")
    assert found is not None
    assert (found.text, found.source) == ("redis://q:6379/0", "pyproject.toml:2")
    with pytest.raises(ConfigError, match=r"^pyproject\.toml:3: store is 3; give a URL, for example 'sqlite:"):
        find_project_setting("store")
