"""`oao run`: what is printed, and what each exit code means."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from oao_harness import ExecutionReport

if TYPE_CHECKING:
    from tests.cli.conftest import Oao, Write


def test_a_successful_run_shows_its_calls_its_totals_and_its_output(oao: Oao, agents: str) -> None:
    """Each call is one line with number, kind, name, decision and tokens; nested calls are indented; exit code 0."""
    result = oao("run", "shop:support", "a lamp")

    assert result.exit_code == 0
    assert result.stderr == ""
    lines = [" ".join(line.split()[:4]) for line in result.stdout.splitlines()]
    assert "1 tool find allow" in lines
    assert "3 tool └ find" in lines
    assert "4 model model-x allow" in lines
    assert "✔ SUCCESS" in result.stdout
    assert "4 steps · 1 model call · 3 tool calls · 1,234 tokens" in result.stdout
    assert result.stdout.endswith("\n about a lamp\n")


def test_a_run_is_journaled_in_the_working_folder(oao: Oao, agents: str, folder: Path) -> None:
    """Without --store the journal is .oao/oao.db, and `oao show last` finds the run there."""
    oao("run", "shop:support", "a lamp")

    assert (folder / ".oao" / "oao.db").exists()
    assert "a lamp" in oao("show", "last").stdout


def test_the_store_may_be_a_path(oao: Oao, agents: str, folder: Path) -> None:
    """--store takes the path of a SQLite file as well as a URL."""
    assert oao("run", "shop:support", "x", "--store", "deep/mine.db").exit_code == 0
    assert (folder / "deep" / "mine.db").exists()
    assert oao("run", "shop:support", "x", "--store", "memory:").exit_code == 0
    assert not (folder / ".oao").exists()


def test_json_prints_the_report_and_nothing_else(oao: Oao, agents: str) -> None:
    """With --json standard output is one JSON document, whatever the agent prints."""
    result = oao("run", "shop:chatty", "x", "--json")

    report = ExecutionReport.model_validate(json.loads(result.stdout))
    assert (report.status, report.tool_calls, report.final_output) == ("SUCCESS", 1, ["x 0", "x 1"])
    assert "noise" in result.stderr


def test_an_agent_that_raises_is_a_failed_run(oao: Oao, agents: str) -> None:
    """Exit code 1 and the agent's error in one line; oao shows no traceback of its own."""
    result = oao("run", "shop:broken", "x")

    assert result.exit_code == 1
    assert "✘ FAILED" in result.stdout
    assert "ValueError: no such order" in result.stdout
    assert "Traceback" not in result.output


def test_a_violation_names_its_rule_and_its_call(oao: Oao, agents: str) -> None:
    """A run stopped by a policy says which rule stopped which call; exit code 1."""
    result = oao("run", "shop:endless", "x", "--policy", "strict")

    assert result.exit_code == 1
    assert "deny max_tool_calls" in result.stdout
    assert "max_tool_calls (budget, call #6): tool find: call 6, the limit is 5" in result.stdout


def test_a_failed_run_with_json_still_exits_with_1(oao: Oao, agents: str) -> None:
    """The exit code does not depend on the format."""
    result = oao("run", "shop:endless", "x", "--policy", "strict", "--json")

    assert result.exit_code == 1
    assert json.loads(result.stdout)["violation"]["rule"] == "max_tool_calls"


def test_a_long_timeline_shows_its_ends(oao: Oao, agents: str) -> None:
    """Of 51 calls the first and last ten are shown, and how many are not."""
    result = oao("run", "shop:endless", "x")

    assert "… 31 calls more" in result.stdout
    assert "deny max_tool_calls" in result.stdout
    assert len(result.stdout.splitlines()) < 40


def test_what_oao_cannot_see_is_said(oao: Oao, agents: str) -> None:
    """An agent whose calls do not pass the gate is reported as ungoverned; strict refuses it."""
    lenient = oao("run", "shop:hidden", "x")
    assert lenient.exit_code == 0
    assert "no call passed the gate" in lenient.stdout
    assert "ungoverned: agent 'hidden'" in lenient.stdout

    strict = oao("run", "shop:hidden", "x", "--policy", "strict")
    assert strict.exit_code == 1
    assert "require_governed" in strict.stdout


def test_several_policies_hold_together(oao: Oao, agents: str, write: Write) -> None:
    """--policy may be given more than once, and may name an object of the user's."""
    write("rules", "from oao_harness import ToolPolicy\nno_find = ToolPolicy(deny=['find'])\n")

    result = oao("run", "shop:support", "x", "--policy", "strict", "--policy", "rules:no_find")

    assert result.exit_code == 1
    assert "deny tools.deny" in result.stdout


def test_the_task_may_be_json(oao: Oao, agents: str) -> None:
    """--input hands the agent the decoded value."""
    result = oao("run", "shop:echo", "--input", '{"order": 7}', "--json")

    assert json.loads(result.stdout)["final_output"] == {"got": {"order": 7}}


def test_an_object_with_invoke_is_an_agent(oao: Oao, agents: str) -> None:
    """MODULE:AGENT may name an instance."""
    assert oao("run", "shop:desk", "x").exit_code == 0
    assert oao("run", "shop:desk.invoke", "x", "--framework", "function").exit_code == 0


def test_output_cannot_act_on_the_terminal(oao: Oao, agents: str) -> None:
    """Escape sequences in an agent's output are shown, not obeyed."""
    result = oao("run", "shop:rude", "x")

    assert "\\x1b[31mred" in result.stdout
    assert "\x1b" not in result.stdout


def test_lines_fit_the_console(oao: Oao, agents: str) -> None:
    """No line of the report is wider than the console, at 80 and at 120 columns."""
    for width in (80, 120):
        result = oao("run", "shop:echo", "a long task " * 30, width=width)
        assert max(map(len, result.stdout.splitlines())) <= width
