"""Agent tests under the runners and plugins that people use: recorded with one, replayed with another."""

from __future__ import annotations

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path

import pytest

AGENT = '''
import asyncio, datetime, os, random, threading, uuid
import pytest
import oao_harness as oao

LIVE = []

@oao.model(name="gpt-x")
def ask(prompt):
    LIVE.append("model")
    return {"content": prompt, "usage": {"input_tokens": 3, "output_tokens": 2}}

@oao.model(name="gpt-x")
async def aask(prompt):
    LIVE.append("model")
    return {"content": prompt, "usage": {"input_tokens": 3, "output_tokens": 2}}

@oao.tool
def roll(sides):
    LIVE.append("roll")
    uuid.uuid4(), os.urandom(4)
    return random.random()

@oao.tool
async def aroll(k):
    LIVE.append("roll")
    return k

def agent():
    """What it asks depends on time and chance."""
    ask(f"{datetime.datetime.now(datetime.UTC).isoformat()} {random.random()} {uuid.uuid4()}")
    found = roll(6)
    ask(f"{found} at {datetime.datetime.now(datetime.UTC).isoformat()} {random.random()} {uuid.uuid4()}")
    return found

async def aagent():
    await aask(f"{datetime.datetime.now(datetime.UTC).isoformat()} {random.random()} {uuid.uuid4()}")
    found = await aroll("x")
    await aask(f"{found} at {datetime.datetime.now(datetime.UTC).isoformat()}")
    return found
'''


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    monkeypatch.delenv("PYTHONHASHSEED", raising=False)


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-p", "pytest_oao.plugin", "-rfE", *options, timeout=120)


def write(pytester: pytest.Pytester, tests: str) -> None:
    pytester.makepyfile(test_it=AGENT + tests)


def files(pytester: pytest.Pytester) -> dict[str, bytes]:
    folder = pytester.path / "recordings"
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def summary(result: pytest.RunResult) -> list[str]:
    """The rows of oao's table."""
    return sorted(line for line in result.outlines if re.match(r"\s*\S*test_it\.py::", line) and "[" not in line[:1])


def record_then_replay(
    pytester: pytest.Pytester, tests: str, *plugins: str, replay: tuple[str, ...] | None = None, **outcomes: int
) -> pytest.RunResult:
    """Record, replay with `assert not LIVE` at work, and return the replay."""
    write(pytester, tests)
    run(pytester, "--oao-record=once", *plugins).assert_outcomes(**outcomes)
    before = files(pytester)
    assert before
    os.environ["REPLAYING"] = "1"
    try:
        result = run(pytester, *(plugins if replay is None else replay), "--oao-policy=off")
    finally:
        del os.environ["REPLAYING"]
    result.assert_outcomes(**outcomes)
    assert files(pytester) == before
    return result


OFFLINE = """
import os

@pytest.fixture(autouse=True)
def offline():
    del LIVE[:]
    yield
    assert not LIVE or "REPLAYING" not in os.environ
"""
SIX = (
    OFFLINE
    + """
@pytest.mark.parametrize("i", range(6))
def test_it(i):
    ask(str(i))
    agent()
"""
)


def test_time_and_chance_are_replayed(pytester: pytest.Pytester) -> None:
    """A prompt with the time, a random number and a uuid4 is the recorded one; pytest's own clock is real."""
    tests = OFFLINE + "\ndef test_it():\n    agent()\n"
    record_then_replay(pytester, tests, "--junitxml=junit.xml", passed=1)
    started = re.search(r'timestamp="(\d+)', (pytester.path / "junit.xml").read_text())
    assert started is not None
    assert int(started[1]) == datetime.now(UTC).year


def test_xdist(pytester: pytest.Pytester) -> None:
    """Recorded by two workers, replayed by one process and by two, with the same table."""
    alone = record_then_replay(pytester, SIX, "-p", "xdist", "-n", "2", replay=(), passed=6)
    os.environ["REPLAYING"] = "1"
    try:
        both = run(pytester, "-p", "xdist", "-n", "2", "--oao-policy=off")
    finally:
        del os.environ["REPLAYING"]
    both.assert_outcomes(passed=6)
    assert summary(alone) == summary(both) != []


ASYNCIO = (
    OFFLINE
    + """
import pytest_asyncio

@pytest_asyncio.fixture
async def prepared():
    return await aagent()

@pytest.mark.asyncio
async def test_body():
    assert await aagent() == "x"

@pytest.mark.asyncio
async def test_fixture(prepared):
    assert prepared == "x"

@pytest.mark.asyncio
async def test_together():
    found = [await one for one in asyncio.as_completed([aroll(k) for k in "abc"])]
    await aask("".join(found))

@pytest.mark.asyncio
async def test_in_threads():
    await asyncio.gather(*(asyncio.to_thread(agent) for _ in range(1)))
    await asyncio.get_running_loop().run_in_executor(None, ask, "more")
"""
)


@pytest.mark.parametrize("scope", ["function", "session"])
def test_pytest_asyncio(pytester: pytest.Pytester, scope: str) -> None:
    """With a loop for each test and with one for all."""
    options = (
        "-p",
        "pytest_asyncio.plugin",
        "-o",
        f"asyncio_default_test_loop_scope={scope}",
        "-o",
        f"asyncio_default_fixture_loop_scope={scope}",
    )
    record_then_replay(pytester, ASYNCIO, *options, passed=4)


def test_anyio(pytester: pytest.Pytester) -> None:
    """Both backends, with async fixtures of the module and of the test, and in nurseries."""
    tests = (
        OFFLINE
        + """
import anyio

@pytest.fixture(scope="module", params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param

@pytest.fixture(scope="module")
async def opened(anyio_backend):
    await anyio.sleep(0)
    yield "opened"
    await anyio.sleep(0)

@pytest.fixture
async def prepared(anyio_backend):
    return await aagent()

@pytest.mark.anyio
async def test_body(opened):
    assert await aagent() == "x"

@pytest.mark.anyio
async def test_fixture(prepared, opened):
    assert prepared == "x"

@pytest.mark.anyio
async def test_group(opened):
    async with anyio.create_task_group() as group:
        for k in "abc":
            group.start_soon(aroll, k)
    await aask("end")
"""
    )
    record_then_replay(pytester, tests, "-p", "anyio", passed=6)


def test_reruns(pytester: pytest.Pytester) -> None:
    """Each attempt begins anew: the flaky first one is not in the recording, and not in the way of the second."""
    tests = """
from pathlib import Path

def test_it():
    agent()
    first = not Path("tried").exists()
    Path("tried").touch()
    assert not first
"""
    write(pytester, tests)
    options = ("-p", "pytest_rerunfailures", "--reruns=1")
    recording = run(pytester, "--oao-record=once", *options)
    assert "1 rerun" in recording.stdout.str()
    assert "1 passed" in recording.stdout.str()
    found = files(pytester)
    assert list(found) == ["test_it/test_it.oao.json"]
    assert json.loads(found["test_it/test_it.oao.json"])["totals"]["steps"] == 3
    (pytester.path / "tried").unlink()
    replayed = run(pytester, *options, "--oao-policy=off")
    assert "1 rerun" in replayed.stdout.str()
    assert "1 passed" in replayed.stdout.str()


def test_randomly(pytester: pytest.Pytester) -> None:
    """Whatever order and seed it chooses, before the body of the test ours is the last word."""
    result = record_then_replay(
        pytester,
        SIX + "\ndef test_other():\n    agent()\n",
        "-p",
        "randomly",
        "-p",
        "no:cacheprovider",
        replay=("-p", "randomly", "-p", "no:cacheprovider"),
        passed=7,
    )
    assert "random seed" in result.stdout.str() or "randomly" in result.stdout.str()


def test_hypothesis(pytester: pytest.Pytester) -> None:
    """Governed runs of their own inside of @given: each example counts for itself."""
    tests = """
from hypothesis import given, settings, strategies as st

@settings(max_examples=5, deadline=None, database=None)
@given(st.integers(0, 3))
def test_it(n):
    strict = oao.Orchestrator(oao.StrictPolicy(max_tool_calls=3, max_steps=None))
    report = strict.run(lambda task: [roll(6) for _ in range(n)])
    assert report.status == "SUCCESS", report.error
    assert report.tool_calls == n
"""
    write(pytester, tests)
    run(pytester, "-p", "_hypothesis_pytestplugin").assert_outcomes(passed=1)


def test_subtests(pytester: pytest.Pytester) -> None:
    """What happens in subtests belongs to their test."""
    if not hasattr(pytest, "Subtests"):
        pytest.skip("pytest 9 has subtests")
    tests = (
        OFFLINE
        + """
def test_it(subtests):
    for i in range(3):
        with subtests.test(i=i):
            agent()
"""
    )
    write(pytester, tests)
    for options in (("--oao-record=once",), ("--oao-policy=off",)):
        result = run(pytester, *options)
        assert result.ret == 0, result.stdout.str()
    recording = json.loads(next(iter(files(pytester).values())))
    assert recording["totals"]["steps"] == 9


def test_unittest(pytester: pytest.Pytester) -> None:
    """Methods of a TestCase, with setUp and asynchronous ones."""
    tests = (
        OFFLINE
        + """
import unittest

class TestThings(unittest.TestCase):
    def setUp(self):
        ask("set up")
    def test_one(self):
        agent()
    def test_two(self):
        roll(3)

class TestLater(unittest.IsolatedAsyncioTestCase):
    async def test_three(self):
        await aagent()
"""
    )
    record_then_replay(pytester, tests, passed=3)
    assert len(files(pytester)) == 3


def test_without_the_plugin(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """`-p no:oao` leaves the tests as they were, also where plugins load by themselves."""
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD")
    write(pytester, "\ndef test_it():\n    agent()\n    assert LIVE\n")
    result = pytester.runpytest_subprocess("-p", "no:oao", "-p", "no:randomly", timeout=120)
    result.assert_outcomes(passed=1)
    assert "oao" not in result.stdout.str().replace(str(pytester.path), "").lower()


def test_ids_of_any_length_and_script(pytester: pytest.Pytester) -> None:
    """Each parameter has a recording of its own, that any file system takes."""
    tests = (
        OFFLINE
        + r"""
IDS = ["", " ", ".", "..", "a/b", "a\\b", "a:b", "con", "Ab", "aB", "AB", "ab", "x" * 300, "x" * 299 + "y",
       "\U0001f600", "\u65e5\u672c\u8a9e", "e\u0301", "\u00e9", "a\nb", "a\tb", "a[b]", "a::b",
       "\u0000", "%41", "-", "--x", "a b"]

@pytest.mark.parametrize("text", IDS)
def test_it(text):
    ask(text)

@pytest.mark.parametrize("text", IDS, ids=IDS)
def test_named(text):
    ask(text)

class TestIn:
    class TestDeep:
        @pytest.mark.parametrize("text", IDS[:5])
        def test_it(self, text):
            ask(text)
"""
    )
    record_then_replay(pytester, tests, passed=27 * 2 + 5)
    names = [*files(pytester)]
    assert len(names) == len({name.lower() for name in names}) == 27 * 2 + 5
    assert all(Path(name).name.isascii() and len(Path(name).name) < 200 for name in names)


def test_fixtures_of_the_module_and_selections(pytester: pytest.Pytester) -> None:
    """An agent of the module is called by every test; `-k`, `-x` and `--lf` play a part of the recordings."""
    tests = (
        OFFLINE
        + """
class Agent:
    def __init__(self):
        self.id = random.random()
    def __call__(self, what):
        return ask(what)

@pytest.fixture(scope="module")
def shared():
    return Agent()

def test_one(shared):
    shared("one")

def test_two(shared):
    shared("two")
    assert not os.environ.get("BROKEN")

def test_three(shared):
    shared("three")
"""
    )
    record_then_replay(pytester, tests, passed=3)
    run(pytester, "--oao-policy=off", "-k", "two").assert_outcomes(passed=1, deselected=2)
    os.environ["BROKEN"] = "1"
    try:
        run(pytester, "--oao-policy=off", "-x").assert_outcomes(passed=1, failed=1)
    finally:
        del os.environ["BROKEN"]
    run(pytester, "--oao-policy=off", "--lf").assert_outcomes(passed=1)


def test_another_hash_seed_is_named_where_a_replay_diverges(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of a set is in the prompt: one line says why it differs."""
    write(pytester, "\ndef test_it():\n    ask(' '.join({'a', 'b', 'c', 'd', 'e', 'f', 'g'}))\n")
    monkeypatch.setenv("PYTHONHASHSEED", "0")
    run(pytester, "--oao-record=once").assert_outcomes(passed=1)
    monkeypatch.setenv("PYTHONHASHSEED", "1")
    result = run(pytester, "--oao-policy=off")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*set PYTHONHASHSEED=0*"])
