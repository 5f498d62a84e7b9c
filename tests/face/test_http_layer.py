"""HTTP of agents and tools, recorded from a real server that is gone when it is replayed. Real pytest sessions."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.face.http_server import serving

AGENTS = Path(__file__).parent / "http_agents.py"
SMALL = """
import os, httpx, pytest
import oao_harness as oao

BASE, CITY = os.environ["OAO_SERVER"], os.environ.get("OAO_CITY")

@oao.model(name="gpt-x")
def ask(messages):
    return {"content": "ok", "usage": {"input_tokens": 3, "output_tokens": 1}}

@oao.tool
def weather(city):
    return httpx.get(BASE + "/weather", params={"city": CITY or city, "api_key": "top-private-1"}).json()

@oao.tool
def watch():
    with httpx.stream("GET", BASE + "/stream") as got:
        return next(got.iter_lines())
"""


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def hits() -> list[str]:
    """What came to the server."""
    return []


@pytest.fixture
def live(hits: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that runs for the whole test."""
    with serving(hits) as url:
        monkeypatch.setenv("OAO_SERVER", url)
        yield url


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run pytest in a process of its own: the patches are process-wide."""
    pytester.frameworks = True  # type: ignore[attr-defined]
    return pytester.runpytest_subprocess(
        "-p", "pytest_oao.plugin", "-p", "no:cacheprovider", "-rfE", "-s", *options, timeout=120
    )


def got(result: pytest.RunResult) -> list[str]:
    """What the agents printed."""
    return sorted(line[line.index("GOT ") :] for line in result.outlines if "GOT " in line)


def events(pytester: pytest.Pytester, name: str, module: str = "test_small") -> list[dict[str, object]]:
    """The events of a recording."""
    path = pytester.path / "recordings" / module / f"{name}.oao.json"
    return list(json.loads(path.read_text(encoding="utf-8"))["events"])


def test_every_client_is_recorded_and_replayed_without_a_server(
    pytester: pytest.Pytester, hits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What tools and agent code fetch with each client comes from the recording, errors and threads too."""
    shutil.copy(AGENTS, pytester.path / "test_agents.py")
    with serving(hits) as url:
        monkeypatch.setenv("OAO_SERVER", url)
        first = run(pytester, "--oao-record=once")
    recorded = len(hits)

    again = run(pytester, "--oao-record=none")
    tools = run(pytester, "--oao-record=none", "--oao-live=tool")

    outcomes = first.parseoutcomes()
    assert set(outcomes) == {"passed"}
    for result in (again, tools):
        result.assert_outcomes(passed=outcomes["passed"])
        assert got(result) == got(first)
    assert len(hits) == recorded
    assert len(got(first)) == outcomes["passed"] > 30
    files = [path.read_text(encoding="utf-8") for path in (pytester.path / "recordings").rglob("*.oao.json")]
    assert not any(secret in text for text in files for secret in ("not-for-anybody", "very-private", "/asked"))
    names = {event["name"] for event in events(pytester, "test_in_a_tool[requests]", "test_agents")}
    assert names == {"gpt-x", "fetch", "GET 127.0.0.1"}


def test_a_changed_request_of_a_live_tool_diverges(
    pytester: pytest.Pytester, live: str, hits: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first line says where, and what changed; the server is not asked, though it is there."""
    pytester.makepyfile(test_small=SMALL + "\ndef test_it():\n    ask([])\n    weather('Oslo')\n")
    run(pytester, "--oao-record=once").assert_outcomes(passed=1)
    before = len(hits)
    monkeypatch.setenv("OAO_CITY", "Bergen")

    served = run(pytester, "--oao-record=none")
    changed = run(pytester, "--oao-record=none", "--oao-live=weather")

    served.assert_outcomes(passed=1)
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines([f"step 3 http GET {live}/weather: *Oslo*Bergen* (replay diverged)"])
    assert len(hits) == before
    run(pytester, "--oao-record=none", "--oao-live=tool,http").assert_outcomes(passed=1)
    assert len(hits) == before + 1


def test_requests_count_as_no_steps_and_stand_under_their_call(pytester: pytest.Pytester, live: str) -> None:
    """Totals name them apart; the parent is the tool's event; a secret of the query is not kept."""
    pytester.makepyfile(
        test_small=SMALL
        + "\ndef test_it(oao):\n    ask([])\n    weather('Oslo')\n    assert oao.run.tools == ['weather']\n"
    )

    result = run(pytester, "--oao-record=once")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["test_small.py::test_it*2*1*4*ok*recorded"])
    http = events(pytester, "test_it")[2]
    assert (http["kind"], http["name"], http["parent"]) == ("http", "GET 127.0.0.1", 2)
    assert http["req"] == {
        "method": "GET",
        "url": f"{live}/weather",
        "query": {"city": "Oslo", "api_key": "<redacted>"},
    }


def test_http_that_is_no_longer_sent_is_unplayed(
    pytester: pytest.Pytester, live: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A request outside of any call is part of what must be replayed."""
    test = "\ndef test_it():\n    ask([])\n    os.environ.get('OAO_CITY') or httpx.get(BASE + '/weather')\n"
    pytester.makepyfile(test_small=SMALL + test)
    run(pytester, "--oao-record=once").assert_outcomes(passed=1)
    monkeypatch.setenv("OAO_CITY", "none")

    result = run(pytester, "--oao-record=none")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["1 recorded step not replayed: #2 http GET 127.0.0.1"])


def test_a_stream_without_end_passes_and_is_named(pytester: pytest.Pytester, live: str) -> None:
    """Recording never waits for the end of an event stream: it is not recorded, and the report says so."""
    pytester.makepyfile(test_small=SMALL + "\ndef test_it():\n    ask([])\n    assert watch() == 'data: tick'\n")

    first = run(pytester, "--oao-record=once")
    again = run(pytester, "--oao-record=none")

    first.assert_outcomes(passed=1)
    first.stdout.fnmatch_lines(["ungoverned in *: http: GET http://127.0.0.1:*/stream: a stream (text/event-stream)*"])
    again.assert_outcomes(passed=1)


def test_plain_tests_with_http_get_no_recording(pytester: pytest.Pytester, live: str) -> None:
    """Where no agent runs, nothing is recorded, and nothing is in the table."""
    pytester.makepyfile(test_small=SMALL + "\ndef test_it():\n    assert httpx.get(BASE + '/weather').json()\n")

    for mode in ("once", "none"):
        result = run(pytester, f"--oao-record={mode}")
        result.assert_outcomes(passed=1)
        result.stdout.no_fnmatch_line("test_small.py::test_it*")
    assert not (pytester.path / "recordings").exists()


def test_one_broken_library_leaves_the_others_covered(pytester: pytest.Pytester, live: str) -> None:
    """A library that breaks `import vcr` is named; the HTTP of httpx is recorded all the same."""
    (pytester.path / "httplib2.py").write_text("__version__ = '99'\n")
    pytester.makepyfile(test_small="import httplib2\n" + SMALL + "\ndef test_it():\n    ask([])\n    weather('Oslo')\n")
    pytester.makeini("[pytest]\npythonpath = .\n")

    result = run(pytester, "--oao-record=once")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["HTTP is not recorded nor played: httplib2: *"])
    assert [event["kind"] for event in events(pytester, "test_it")] == ["model", "tool", "http"]


def test_it_can_be_turned_off(pytester: pytest.Pytester, live: str) -> None:
    """`oao_http = off` records calls only; the marker does the same for one test."""
    body = "\ndef test_it():\n    ask([])\n    weather('Oslo')\n"
    body += "\n@pytest.mark.oao(http='auto')\ndef test_on():\n    weather('Oslo')\n"
    pytester.makepyfile(test_small=SMALL + body)
    pytester.makeini("[pytest]\noao_http = off\n")

    run(pytester, "--oao-record=once").assert_outcomes(passed=2)

    assert [event["kind"] for event in events(pytester, "test_it")] == ["model", "tool"]
    assert [event["kind"] for event in events(pytester, "test_on")] == ["tool", "http"]
