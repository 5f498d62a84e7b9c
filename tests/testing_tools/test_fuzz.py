"""`oao fuzz`: holes that it must find, policies that must hold, and what it leaves for pytest."""

from __future__ import annotations

import json
import threading
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import pytest_oao.session  # noqa: F401 - before pytester takes its picture of sys.modules
from oao_harness import ConfigError
from oao_harness.cli import main
from oao_harness.policy.file import FilePolicy
from oao_hookspecs import Deny, RunView, ToolCall, hookimpl
from pytest_oao.testing.fuzz.rules import Kind, parse_rule
from pytest_oao.testing.fuzz.saving import save
from pytest_oao.testing.fuzz.search import Outcome, search, try_once
from pytest_oao.testing.fuzz.strategies import Attempt
from pytest_oao.testing.program_rules import Rules
from pytest_oao.testing.program_trials import Trial
from pytest_oao.testing.programs import CallModel, CallTool, InnerRun, InThread, Program, Together


def fuzz(policy: str | object, kind: Kind, said: str, *tools: str, examples: int = 300) -> Outcome:
    made = FilePolicy.from_text(policy) if isinstance(policy, str) else policy
    return search([made], [parse_rule(kind, said)], tools=tools, examples=examples, seconds=20)


def code(outcome: Outcome) -> list[str]:
    """Return the lines of what was found, which must be no chance."""
    assert outcome.attempt is not None
    assert outcome.again == outcome.tries
    return [line.strip() for line in repr(outcome.attempt.program).splitlines()[1:]]


@pytest.mark.parametrize(
    ("policy", "kind", "said", "found"),
    [
        ('[tools]\ndeny = ["pay"]', "never", "pay", ["Pay()"]),
        ('[tools]\ndeny = ["send_*"]', "never", "send*", ["send()"]),
        ('[tools]\nallow = ["read_*", "Pay"]', "never", "pay", ["Pay()"]),
        (
            '[[rule]]\nname = "small"\ntools = ["refund", "Refund", "REFUND"]\nrequire = "args.amount < 100"',
            "sums_at_most",
            "refund.amount 100",
            ["refund(amount=99)", "refund(amount=99)"],
        ),
        (
            '[[rule]]\nname = "s"\ntools = ["?efund", "REFUND"]\nrequire = "args.amount <= 100"',
            "never",
            "refund where args.amount >= 100",
            ["refund(amount=100)"],
        ),
        ('[[tool]]\nname = "refund"\nmax_calls = 2', "at_most", "refund 1", ["refund()", "refund()"]),
        ('[tools]\nask = ["check"]', "only", "pay after check", ["pay()"]),
    ],
)
def test_a_hole_is_found_and_made_small(policy: str, kind: Kind, said: str, found: list[str]) -> None:
    """Each is found among 300 programs, in the plainest form there is."""
    assert code(fuzz(policy, kind, said)) == found


def test_a_label_that_another_text_evades() -> None:
    """What a tool returned is a word of the program too: without the text that sets the label, mail leaves."""
    policy = """
        [[label]]
        name = "personal"
        tools = ["read_inbox"]
        when = "result_text.contains('@')"

        [[rule]]
        name = "quiet"
        tools = ["send_mail"]
        when = "'personal' in run.labels"
        then = "deny"
    """
    assert code(fuzz(policy, "never", "send_mail after read_inbox", "read_inbox", "send_mail")) == [
        "read_inbox()",
        "send_mail()",
    ]


class ByThread:
    """Remembers what was read where it forgets it: by thread."""

    name = "by-thread"

    def __init__(self) -> None:
        self._read: dict[tuple[str, int], bool] = {}

    @hookimpl
    def oao_decide_tool_call(self, call: ToolCall, run: RunView) -> Deny | None:
        """Refuse mail after reading, in one thread."""
        key = (run.execution_id, threading.get_ident())
        if call.name == "read_inbox":
            self._read[key] = True
        return Deny(rule="quiet", reason="read before") if call.name == "send_mail" and key in self._read else None


def test_a_rule_that_a_thread_evades() -> None:
    """A policy that forgets what another thread did is found out, and the program says so."""
    found = fuzz(ByThread(), "never", "send_mail after read_inbox", "read_inbox", "send_mail", examples=600)

    assert found.attempt is not None
    ops = found.attempt.program.ops
    assert any(isinstance(op, InThread | Together | CallModel) for op in ops), found.attempt.program


@pytest.mark.parametrize(
    ("policy", "kind", "said", "tools"),
    [
        ("[limits]\nmax_tokens = 60", "spends_at_most", "tokens=60", ()),
        ('[[tool]]\nname = "refund"\nmax_calls = 2', "at_most", "refund 2", ("refund",)),
        (
            '[[sequence]]\nname = "quiet"\nafter = ["read_inbox"]\nnever = ["send_mail"]',
            "never",
            "send_mail after read_inbox",
            ("read_inbox", "send_mail"),
        ),
    ],
)
def test_a_policy_that_holds_is_not_accused(policy: str, kind: Kind, said: str, tools: tuple[str, ...]) -> None:
    """Neither parallel calls nor batches, threads and nested runs pass a budget, a count or a sequence of ours."""
    outcome = fuzz(policy, kind, said, *tools, examples=80)

    assert outcome.attempt is None, f"{outcome.attempt}: {outcome.how}"
    assert outcome.programs == 80
    assert outcome.ended["SUCCESS"] > 10
    assert outcome.ended["FAILED"] > 2


def test_equal_seeds_try_equal_programs() -> None:
    """What was found is found again by the seed that is printed."""
    first, second = (fuzz('[tools]\ndeny = ["pay"]', "never", "pay") for _ in range(2))

    assert first.attempt == second.attempt
    assert first.programs == second.programs


def test_a_rule_of_ones_own_is_a_function_that_asserts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given the finished trial; one that fails itself is a mistake of its author."""
    source = """
        def quiet(trial: object) -> None:
            names = [body.name for body in trial.executed]
            assert names.count("ping") < 2, "pinged twice"
        quiet.tools = ("ping",)

        def broken(trial: object) -> None:
            raise KeyError("oops")
    """
    lines = [line[8:] for line in source.splitlines()]
    (tmp_path / "fuzz_own_rules.py").write_text("\n".join(lines), encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))

    found = fuzz("", "rule", "fuzz_own_rules:quiet")
    assert code(found) == ["ping()", "ping()"]
    assert found.how == "pinged twice"
    with pytest.raises(ConfigError, match="it failed itself: KeyError"):
        fuzz("", "rule", "fuzz_own_rules:broken")


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("never", ""),
        ("never", "a after b after c"),
        ("never", "pay where args.amount >"),
        ("never", "pay money"),
        ("only", "pay"),
        ("at_most", "refund"),
        ("sums_at_most", "refund 100"),
        ("spends_at_most", "money=5"),
        ("rule", "nothing"),
    ],
)
def test_a_rule_that_is_none_is_refused(kind: Kind, said: str) -> None:
    """The message shows what one looks like, or what is wrong with the condition."""
    with pytest.raises(ConfigError, match=r"write for example|is no CEL"):
        parse_rule(kind, said)


def oao(*args: str) -> Result:
    done = CliRunner(env={"COLUMNS": "120"}).invoke(main, args, prog_name="oao")
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done


def pytest_in(pytester: pytest.Pytester) -> pytest.RunResult:
    return pytester.runpytest_inprocess("-p", "pytest_oao.plugin", "-p", "no:cacheprovider")


def test_pytest_fails_until_the_policy_is_mended(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """The saved test replays the saved recording: red under the policy as it is, green under the one that refuses."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    tmp_path = pytester.path
    (tmp_path / "tests").mkdir()
    policy = tmp_path / "policy.toml"
    policy.write_text('[tools]\ndeny = ["pay"]\n', encoding="utf-8")

    found = oao("fuzz", "--policy", "policy.toml", "--never", "pay")
    assert found.exit_code == 1
    assert "Pay()" in found.stdout
    assert (tmp_path / "tests" / "recordings" / "test_fuzz_never_pay" / "test_never_pay.oao.json").exists()
    # A program with everything in it is saved as well.
    nested = Program((InnerRun(2), CallTool("pay2", arguments=(("to", 'a"b'),)), CallModel((CallTool("pay2"),))))
    whole = search([FilePolicy.from_text("")], [parse_rule("never", "pay2")], examples=1, seconds=5)
    whole.attempt = Attempt(nested, is_async=True)
    whole.trial, whole.rule = try_once(whole.attempt, ["off"]), parse_rule("never", "pay2")
    save(whole, tmp_path / "tests", ["policy.toml"])

    red = pytest_in(pytester)
    red.assert_outcomes(failed=2)
    assert red.stdout.str().count("no rule was broken") >= 2

    policy.write_text('[tools]\ndeny = ["pay*"]\nask = ["Pay"]\n', encoding="utf-8")
    pytest_in(pytester).assert_outcomes(passed=2)


def test_what_was_searched_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 0 and no word of proof; the numbers of the search, its operations, tools and arguments."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policy.toml").write_text('[tools]\nallow = ["read"]\n', encoding="utf-8")

    done = oao("fuzz", "--policy", "policy.toml", "--never", "pay", "--examples", "20")
    assert done.exit_code == 0
    assert "20 programs in" in done.stdout
    assert "a search, no proof" in done.stdout
    assert "nested runs" in done.stdout
    assert not list(tmp_path.glob("test_*"))

    document = json.loads(oao("fuzz", "--policy", "policy.toml", "--never", "pay", "--examples", "5", "--json").stdout)
    assert (document["format"], document["programs"], document["found"]) == ("oao-fuzz/1", 5, None)


def test_a_wrong_command_is_one_line() -> None:
    """Exit code 2: no rule, no policy of that name, a rule that is none."""
    for args in (["--policy", "off"], ["--policy", "gone.toml", "--never", "x"], ["--policy", "off", "--only", "x"]):
        done = oao("fuzz", *args)
        assert done.exit_code == 2, args
        assert len(done.stderr.splitlines()) == 1


def test_a_trial_is_told_what_the_bodies_saw() -> None:
    """A rule reads the arguments as they ran."""
    trial = Trial(Program((CallTool("pay", arguments=(("amount", 3),)),)), Rules())
    trial.run()

    assert [dict(body.arguments) for body in trial.executed] == [{"amount": 3}]
