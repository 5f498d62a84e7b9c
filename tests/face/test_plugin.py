"""`pytest --oao-...` as a user sees it: recording, replay, verdicts, messages, bad input. Real pytest runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import oao_harness  # noqa: F401 - loaded before pytester takes its picture of sys.modules: patches are process-wide
import pytest_oao.session  # noqa: F401

AGENT = """
import pytest
import oao_harness as oao

RAN = []

@oao.model(name="gpt-x")
def ask(messages):
    RAN.append("model")
    return {"content": "refund it", "usage": {"input_tokens": 30, "output_tokens": 12}}

@oao.tool
def lookup(id):
    RAN.append("lookup")
    return {"paid": 49.99}

@oao.tool
def refund(id, amount):
    RAN.append("refund")
    return f"refunded {amount}"

def agent(task):
    ask([{"role": "system", "content": "You are careful.\\nNever refund twice."}, {"role": "user", "content": task}])
    paid = lookup("123")["paid"]
    return refund("123", paid)
"""
TEST = """
def test_refund(tmp_path):
    answer = agent("order 123")
    assert answer == "refunded 49.99"
    print("RAN", RAN)
"""
RECORDING = "recordings/test_shop/test_refund.oao.json"


def shop(pytester: pytest.Pytester, test: str = TEST, agent: str = AGENT) -> Path:
    """Write a test module with an agent in it."""
    path = pytester.path / "test_shop.py"
    path.write_text(agent + test)
    return path


def run(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run pytest in this process, with no plugin but ours and those that are named."""
    return pytester.runpytest_inprocess("-p", "pytest_oao.plugin", "-p", "no:cacheprovider", "-rfE", *options)


def run_alone(pytester: pytest.Pytester, *options: str) -> pytest.RunResult:
    """Run pytest in a process of its own, for what is process-wide."""
    return pytester.runpytest_subprocess("-p", "pytest_oao.plugin", "-p", "no:cacheprovider", "-rfE", *options)


@pytest.fixture(autouse=True)
def _no_other_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")


@pytest.fixture
def recorded(pytester: pytest.Pytester) -> pytest.Pytester:
    """A shop with a recording."""
    shop(pytester)
    run(pytester, "--oao-record=once").assert_outcomes(passed=1)
    return pytester


def test_a_test_is_recorded_once_and_then_replayed_without_running_anything(pytester: pytest.Pytester) -> None:
    """The first run records, the next ones serve: no model, no tool body, same answer."""
    shop(pytester)

    first = run(pytester, "--oao-record=once", "--oao-policy=strict", "-s")
    again = run(pytester, "--oao-record=once", "--oao-policy=strict", "-s")
    strict = run(pytester, "--oao-policy=strict", "-s")

    first.assert_outcomes(passed=1)
    first.stdout.fnmatch_lines(["*RAN *'model', 'lookup', 'refund'*", "test_shop.py::test_refund*3*2*42*ok*recorded"])
    for result in (again, strict):
        result.assert_outcomes(passed=1)
        result.stdout.fnmatch_lines(
            [
                "*RAN []",
                "test_shop.py::test_refund*3*2*42*ok*ok",
                "1 test, 3 steps, 42 tokens | saved by replay: 42 tokens",
            ]
        )
    document = json.loads((pytester.path / RECORDING).read_text())
    assert document["test"] == "test_shop.py::test_refund"
    assert [event["name"] for event in document["events"]] == ["gpt-x", "lookup", "refund"]


def test_without_options_nothing_happens(pytester: pytest.Pytester) -> None:
    """Plain pytest runs plain tests: no header, no table, no recording, nothing of oao imported."""
    pytester.makepyfile("import sys\ndef test_plain(): assert not [m for m in sys.modules if m.startswith('oao_')]")
    pytester.from_scratch = True  # type: ignore[attr-defined]
    result = run_alone(pytester)

    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("*oao: policy*")


def test_a_plain_test_under_a_policy_is_not_touched(pytester: pytest.Pytester) -> None:
    """No agent ran: no row, no recording wanted."""
    pytester.makepyfile("def test_plain(): pass")

    result = run(pytester, "--oao-policy=strict")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["oao: policy strict | replay | network in replay: loopback only"])
    assert not (pytester.path / "recordings").exists()


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        ("Never refund twice", "Never refund again", "step 1 model gpt-x: system prompt changed (replay diverged)"),
        ("order 123", "order 124", "step 1 model gpt-x: user message changed (replay diverged)"),
        (
            'refund("123", paid)',
            'refund("123", paid * 10)',
            "step 3 tool refund: amount 49.99 -> 499.9* (replay diverged)",
        ),
        ('lookup("123")', '{"paid": 49.99}', "step 3 tool refund came before tool lookup #2 (replay diverged)"),
        ('return refund("123", paid)', 'return f"refunded {paid}"', "1 recorded step not replayed: #3 tool refund"),
        (
            'return refund("123"',
            'refund("123", paid); return refund("123"',
            "step 4 tool refund: 2nd identical call, recorded 1*",
        ),
    ],
    ids=["prompt", "task", "argument", "left out", "unplayed", "repeated"],
)
def test_a_change_fails_with_one_telling_line(recorded: pytest.Pytester, before: str, after: str, line: str) -> None:
    """In the failure and, shortened, in pytest's own summary."""
    source = AGENT + TEST
    assert before in source
    (recorded.path / "test_shop.py").write_text(source.replace(before, after))

    result = run(recorded, "--oao-policy=strict")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([line])
    result.stdout.fnmatch_lines([f"FAILED test_shop.py::test_refund - Failed: {line[:25]}*"])
    result.stdout.fnmatch_lines(["*intended?  pytest --oao-record=new *test_shop.py::test_refund* && oao review"])


def test_a_verdict_that_changed_is_recorded_as_the_advice_says(recorded: pytest.Pytester) -> None:
    """`new` would replay, and judge, what the policy now says otherwise; `all` keeps it for a review."""
    (recorded.path / "policy.toml").write_text('[tools]\nask = ["refund"]\n')
    asked = TEST.replace("def test_refund(tmp_path):", "def test_refund(oao):\n    oao.approve('refund')")
    assert asked != TEST
    (recorded.path / "test_shop.py").write_text(AGENT + asked)

    failed = run(recorded, "--oao-policy=policy.toml")
    failed.assert_outcomes(failed=1)
    failed.stdout.fnmatch_lines(["tool refund: allow default when recorded, ask now (replay diverged)"])
    failed.stdout.fnmatch_lines(["intended?  pytest --oao-record=all *test_shop.py::test_refund* && oao review"])

    run(recorded, "--oao-policy=policy.toml", "--oao-record=all").assert_outcomes(passed=1)
    (pending,) = recorded.path.glob("recordings/*/*.new")
    pending.replace(pending.with_suffix(""))
    run(recorded, "--oao-policy=policy.toml").assert_outcomes(passed=1)


def test_a_divergence_that_the_agent_swallows_still_fails(recorded: pytest.Pytester) -> None:
    """Sticky: whatever the code under test makes of it."""
    swallowing = """
def test_refund():
    try:
        agent("order 999")
    except BaseException:
        pass
"""
    shop(recorded, test=swallowing)

    result = run(recorded, "--oao-policy=strict")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["step 1 model gpt-x: user message changed*", "the code under test caught this error*"])


def test_a_policy_that_denies_a_tool_fails_the_replay(recorded: pytest.Pytester) -> None:
    """Policies are enforced during replay with the same code."""
    (recorded.path / "rules.py").write_text("import oao_harness\nPOLICY = oao_harness.ToolPolicy(deny=['refund'])\n")
    recorded.makeini("[pytest]\npythonpath = .\n")

    result = run(recorded, "--oao-policy=rules:POLICY")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "policy violation: tools.deny: tool refund is denied",
            "* 1 model gpt-x * 30+12 tok  allow default",
            "* 3 tool  refund * DENY tools.deny",
            "test_shop.py::test_refund*tools.deny*",
        ]
    )


def test_a_marker_tightens_the_policy(recorded: pytest.Pytester) -> None:
    """`deny`, `allow` and limits of one test; and a marker alone is enough to be governed."""
    marked = "\n@pytest.mark.oao(max_tool_calls=1)" + TEST
    shop(recorded, test=marked)

    for options in ((), ("--oao-policy=standard",)):
        result = run(recorded, *options)
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["policy violation: max_tool_calls: tool refund: call 2, the limit is 1"])


def test_a_failed_test_saves_nothing(pytester: pytest.Pytester) -> None:
    """A recording is evidence of a test that passed."""
    shop(pytester, test=TEST.replace("refunded 49.99", "something else"))

    run(pytester, "--oao-record=once").assert_outcomes(failed=1)

    assert not (pytester.path / "recordings").exists()


def test_a_test_without_a_recording_fails_and_says_how_to_record_it(pytester: pytest.Pytester) -> None:
    """In the default mode nothing goes live."""
    shop(pytester)

    result = run(pytester, "--oao-policy=strict", "-s")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ['no recording of this test; record it: pytest --oao-record=once "test_shop.py::test_refund"']
    )
    result.stdout.no_fnmatch_line("*RAN*")


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (lambda text: text[:100], "recording *test_refund.oao.json* is truncated or not JSON*"),
        (lambda text: text.replace('"oao": 1', '"oao": 7'), "recording * has format 7, this oao reads 1; upgrade*"),
        (lambda text: text.replace("::test_refund", "::test_other"), "recording * is of test *test_other*"),
    ],
    ids=["truncated", "newer", "other test"],
)
def test_a_wrong_recording_fails_the_test_with_the_reason(recorded: pytest.Pytester, damage: object, line: str) -> None:
    """And is left as it is."""
    path = recorded.path / RECORDING
    path.write_text(damage(path.read_text()))  # type: ignore[operator]
    before = path.read_bytes()

    result = run(recorded, "--oao-policy=strict")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines([line, 'to record again: pytest --oao-record=rewrite "test_shop.py::test_refund"'])
    result.stdout.no_fnmatch_line("intended?*")
    result.stdout.no_fnmatch_line("*Traceback*")
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (
            ("--oao-policy=strickt",),
            "*unknown policy 'strickt' (did you mean 'strict'?); known: observe, off, standard, strict*",
        ),
        (("--oao-record=always",), "*argument --oao-record: invalid choice: 'always'*"),
        (("-o", "oao_record=always"), "*oao_record = 'always' in the ini file; choose one of none, once*"),
    ],
)
def test_a_wrong_option_is_a_usage_error(pytester: pytest.Pytester, options: tuple[str, ...], words: str) -> None:
    """No test runs, no traceback."""
    shop(pytester)

    result = run(pytester, *options)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])
    assert "Traceback" not in result.stderr.str()


@pytest.mark.parametrize(
    ("marker", "words"),
    [
        ("max_stepps=3", "*@pytest.mark.oao(max_stepps=...) is unknown; known: policy, deny*"),
        ("max_steps=-1", "*StrictPolicy(max_steps=-1): give a whole number >= 0*"),
        ("3", "*takes keywords only, got (3,)*"),
        ("deny='refund'", "*give a collection of names*"),
        ("policy='stric'", "*test_refund: @pytest.mark.oao: unknown policy 'stric' (did you mean 'strict'?)*"),
    ],
)
def test_a_wrong_marker_is_a_usage_error(pytester: pytest.Pytester, marker: str, words: str) -> None:
    """A typo in a limit must not be a test without a limit."""
    shop(pytester, test=f"\n@pytest.mark.oao({marker})" + TEST)

    result = run(pytester, "--oao-policy=strict")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([words])
    assert "Traceback" not in result.stdout.str() + result.stderr.str()


def test_the_calls_of_a_failed_test_end_with_what_stopped_it(recorded: pytest.Pytester) -> None:
    """Else a reader sees allowed calls only, or none, and no reason."""
    path = recorded.path / "test_shop.py"
    source = path.read_text()

    path.write_text(source.replace("Never refund twice", "Never refund again"))
    at_once = run(recorded, "--oao-policy=strict")
    path.write_text(source.replace('refund("123", paid)', 'refund("123", 1)'))
    later = run(recorded, "--oao-policy=strict")

    at_once.stdout.fnmatch_lines(["*- oao run -*", "stopped at the first call: replay"])
    later.stdout.fnmatch_lines(["*- oao run -*", "  2 tool *lookup*allow default", "stopped here: replay"])


def test_a_sum_that_holds_an_estimate_is_marked_as_one(pytester: pytest.Pytester) -> None:
    """A number that no provider reported must not become exact by adding; and one step is no steps."""
    shop(
        pytester,
        agent="import oao_harness as oao\n@oao.model(name='m')\ndef ask(prompt): return {'content': 'a long answer'}\n",
        test="def test_ask(): ask('what is there to say?')\n",
    )

    run(pytester, "--oao-record=once").stdout.re_match_lines([r"1 test, 1 step, ~\d+ tokens \| recorded: 1$"])
    run(pytester, "--oao-policy=strict").stdout.re_match_lines(
        [r"1 test, 1 step, ~\d+ tokens \| saved by replay: ~\d+ tokens$"]
    )


def test_a_framework_that_takes_the_halt_for_an_answer_adds_no_noise(recorded: pytest.Pytester) -> None:
    """As langchain-core's `agenerate` does: the AttributeError about the halt is no failure of the test's own."""
    shop(
        recorded,
        test="""
def test_refund():
    try:
        agent("order 124")
    except BaseException as halt:
        halt.generations
""",
    )

    result = run(recorded, "--oao-policy=strict")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["step 1 model gpt-x: user message changed (replay diverged)"])
    result.stdout.no_fnmatch_line("*generations*")


def test_the_ini_file_is_enough(recorded: pytest.Pytester) -> None:
    """A project that says `oao_policy = strict` needs no option."""
    recorded.makeini("[pytest]\noao_policy = strict\n")

    run(recorded).stdout.fnmatch_lines(["oao: policy strict*", "test_shop.py::test_refund*ok*ok"])


def test_runs_of_an_orchestrator_are_recorded_and_governed_too(pytester: pytest.Pytester) -> None:
    """A test may use the public API; the session's policy holds beside the orchestrator's own."""
    test = """
def test_refund():
    report = oao.Orchestrator().run(agent, "order 123")
    assert report.status == "SUCCESS", report.error
    print("RAN", RAN)
"""
    shop(pytester, test=test)
    run(pytester, "--oao-record=once", "--oao-policy=strict").assert_outcomes(passed=1)

    replayed = run(pytester, "--oao-policy=strict", "-s")
    replayed.assert_outcomes(passed=1)
    replayed.stdout.fnmatch_lines(["*RAN []"])

    shop(pytester, test="\n@pytest.mark.oao(deny=['refund'])" + test)
    denied = run(pytester, "--oao-policy=strict")
    denied.assert_outcomes(failed=1)
    denied.stdout.fnmatch_lines(["policy violation: tools.deny: tool refund is denied"])


def test_async_tests_are_recorded_and_replayed(pytester: pytest.Pytester) -> None:
    """Under pytest-asyncio, with parallel tools that finish in another order."""
    agent = """
import asyncio
import oao_harness as oao
RAN = []

@oao.tool
async def slow(n):
    RAN.append(n)
    await asyncio.sleep(0.01 * (3 - n))
    return n

async def agent():
    return await asyncio.gather(*(slow(n) for n in range(3)))
"""
    test = """
async def test_refund():
    assert await agent() == [0, 1, 2]
    print("RAN", RAN)
"""
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    shop(pytester, test=test, agent=agent)

    options = ("-p", "pytest_asyncio.plugin")
    run(pytester, "--oao-record=once", *options).assert_outcomes(passed=1)
    result = run(pytester, "--oao-policy=strict", "-s", *options)

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*RAN []"])


@pytest.mark.parametrize(
    "call",
    [
        "socket.create_connection(('192.0.2.1', 80), timeout=1)",
        "urllib.request.urlopen('http://example.invalid/')",
        "httpx.get('http://192.0.2.1/')",
    ],
)
def test_the_network_is_closed_in_replay(pytester: pytest.Pytester, call: str) -> None:
    """A connection that the recording does not know is a divergence, also where it is swallowed."""
    agent = (
        AGENT
        + f"""
import socket, urllib.request, httpx
LIVE = False
def agent_online(task):
    if LIVE:
        try:
            {call}
        except Exception:
            pass
    return lookup("123")
"""
    )
    test = "\ndef test_refund():\n    agent_online('x')\n"
    shop(pytester, test=test, agent=agent)
    run(pytester, "--oao-record=once").assert_outcomes(passed=1)
    # The first call opens the run; from then on the network is closed.
    online = agent.replace("LIVE = False", "LIVE = True").replace("    if LIVE:", "    lookup('123')\n    if LIVE:")
    shop(pytester, test=test, agent=online.replace('return lookup("123")', "return None"))

    result = run(pytester, "--oao-policy=strict")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["network: connect to * during replay (loopback)"])


def test_a_local_server_may_be_used_in_replay_unless_it_is_closed(pytester: pytest.Pytester) -> None:
    """`loopback` is the default; `--oao-network=closed` closes that too."""
    agent = (
        AGENT
        + """
import socket, threading
def agent_local(task):
    found = lookup("123")
    with socket.create_server(("127.0.0.1", 0)) as server:
        with socket.create_connection(server.getsockname(), timeout=5):
            return found
"""
    )
    shop(pytester, test="\ndef test_refund():\n    agent_local('x')\n", agent=agent)
    run(pytester, "--oao-record=once").assert_outcomes(passed=1)

    run(pytester, "--oao-policy=strict").assert_outcomes(passed=1)
    closed = run(pytester, "--oao-policy=strict", "--oao-network=closed")
    closed.assert_outcomes(failed=1)
    closed.stdout.fnmatch_lines(["network: connect to 127.0.0.1:* during replay (closed)"])


def test_rows_come_back_from_xdist_workers(recorded: pytest.Pytester) -> None:
    """The table is the same where workers ran the tests."""
    result = run(recorded, "--oao-policy=strict", "-p", "xdist", "-n", "1")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["test_shop.py::test_refund*3*2*42*ok*ok"])


def test_parametrised_tests_have_recordings_of_their_own(pytester: pytest.Pytester) -> None:
    """Any id, any length, any script; no two tests share a file."""
    test = """
@pytest.mark.parametrize("city", ["rome", "Rome", "a/b", "a:b", "東京", "x" * 300])
class TestTravel:
    def test_refund(self, city):
        agent(city)
        print("RAN", RAN)
"""
    shop(pytester, test=test)
    run(pytester, "--oao-record=once").assert_outcomes(passed=6)

    files = sorted(path.name for path in (pytester.path / "recordings" / "test_shop").iterdir())
    assert len({name.lower() for name in files}) == 6
    assert "TestTravel.test_refund[rome].oao.json" in files
    run(pytester, "--oao-policy=standard").assert_outcomes(passed=6)


def test_a_recording_does_not_depend_on_where_pytest_starts(recorded: pytest.Pytester) -> None:
    """The same file from the folder above."""
    (recorded.path / "tests").mkdir()
    for name in ("test_shop.py", "recordings"):
        (recorded.path / name).rename(recorded.path / "tests" / name)

    run(recorded, "--oao-policy=strict", "tests").assert_outcomes(passed=1)


def test_an_ungoverned_agent_is_named_in_the_summary(pytester: pytest.Pytester) -> None:
    """Under strict it is refused."""
    test = """
class Opaque:
    def invoke(self, task):
        return "?"
def test_refund():
    report = oao.Orchestrator().run(Opaque(), "x")
    assert report.status == "FAILED"
"""
    shop(pytester, test=test)

    result = run(pytester, "--oao-policy=strict", "--oao-record=once")

    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            "policy violation: require_governed: agent 'Opaque' is ungoverned*",
            "ungoverned in test_shop.py::test_refund: agent 'Opaque' (invoke): oao cannot see*",
        ]
    )
