"""`oao policy`, and policies that `oao run` and pytest find by themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Oao

POLICY = """
[limits]
max_tool_calls = 3
[tools]
allow = ["find", "outer", "ask"]
[[rule]]
name = "short"
tools = ["find"]
require = "has(args.query) && size(args.query) < 5"
otherwise = "ask"
[[sequence]]
name = "once"
at_most = 1
of = ["outer"]
"""


@pytest.fixture
def policy(folder: Path) -> str:
    """A policy file in the working folder."""
    (folder / "policy.toml").write_text(POLICY, "utf-8")
    return "policy.toml"


def test_check_shows_limits_rules_and_findings(oao: Oao, policy: str) -> None:
    """Every rule with its line; exit code 0, and 1 for warnings only where asked."""
    shown = oao("policy", "check", policy, width=100)

    assert shown.exit_code == 0
    assert " limits  max_tool_calls 3\n" in shown.stdout
    assert "\n    6  rule      short  find             ask unless require\n" in shown.stdout
    assert "\n   11  sequence  once   outer at most 1  deny\n" in shown.stdout
    assert "warning policy.toml:9: [[rule]] 'short': can fail when 'query' is null" in shown.stdout
    assert oao("policy", "check", policy, "--strict").exit_code == 1


def test_check_knows_tools_by_name_and_of_an_agent(oao: Oao, policy: str, write: object) -> None:
    """A name that is no tool is an error: exit code 1."""
    named = oao("policy", "check", policy, "--tools", "find, outr,ask", "--json")
    assert named.exit_code == 1
    found = json.loads(named.stdout)
    assert {"there is no tool 'outer'; did you mean 'outr'?"} <= {one["message"] for one in found["findings"]}
    assert found["limits"] == {"max_tool_calls": 3}
    assert [rule["line"] for rule in found["rules"]] == ["5", "5", "5", "6", "11"]

    write("bot", "def find(query): ...\nclass Bot:\n    tools = [find]\nbot = Bot()\ndef bare(task): ...\n")  # type: ignore[operator]
    assert "there is no tool 'ask'; known: find" in oao("policy", "check", policy, "--agent", "bot:bot").stdout
    refused = oao("policy", "check", policy, "--agent", "bot:bare")
    assert refused.exit_code == 2
    assert "cannot be listed; name them with --tools" in refused.stderr


def test_a_file_that_cannot_be_loaded_is_exit_code_two(oao: Oao, folder: Path) -> None:
    """All mistakes at once, without a traceback."""
    (folder / "bad.toml").write_text("mod = 1\n[limits]\nmax_step = 3\n", "utf-8")
    result = oao("policy", "check", "bad.toml")

    assert result.exit_code == 2
    assert "bad.toml:1: unknown key 'mod'" in result.stderr
    assert "bad.toml:3: [limits]: unknown key 'max_step'" in result.stderr
    assert oao("policy", "check", "none.toml").exit_code == 2


def test_run_obeys_a_policy_file_and_says_where_it_comes_from(oao: Oao, agents: str, policy: str, folder: Path) -> None:
    """By option, and by what pyproject.toml names; in the head of the run."""
    named = oao("run", f"{agents}:endless", "Hi", "--policy", policy)
    assert named.exit_code == 1
    assert " policy  policy.toml: at most 3 tool calls" in named.stdout
    assert " from " not in named.stdout

    (folder / "pyproject.toml").write_text('[tool.oao]\npolicy = "policy.toml"\n', "utf-8")
    found = oao("run", f"{agents}:endless", "Hi")
    assert found.exit_code == 1
    assert " from    pyproject.toml:2" in found.stdout
    (folder / "pyproject.toml").write_text("[tool.oao.policy.tools]\nallow = []\n", "utf-8")
    denied = " ".join(oao("run", f"{agents}:support", "Hi").stdout.split())
    assert "tools.allow (pyproject, call #1, pyproject.toml:2): tool find is not among the allowed tools" in denied
    assert oao("run", f"{agents}:support", "Hi", "--policy", "off").exit_code == 0


def test_coverage_of_journaled_runs(oao: Oao, agents: str, policy: str) -> None:
    """Per rule what it was asked, and the lines that nothing exercised."""
    oao("run", f"{agents}:chatty", "Hi")
    shown = oao("policy", "coverage", policy, width=100)

    assert shown.exit_code == 0
    assert " 3 of 5 rules matched" not in shown.stdout
    assert " 2 of 5 rules matched: 40 %\n missing lines: 5, 5, 11\n" in shown.stdout
    assert oao("policy", "coverage", policy, "last", "--fail-under", "40").exit_code == 0
    assert oao("policy", "coverage", policy, "last", "--fail-under", "41").exit_code == 1
    found = json.loads(oao("policy", "coverage", policy, "--json").stdout)
    assert (found["runs"], found["calls"], found["percent"], found["unruled"]) == (1, 1, 40.0, {})
    assert oao("policy", "coverage", policy, "nosuchrun").exit_code == 2


def test_coverage_of_files(oao: Oao, agents: str, policy: str, folder: Path) -> None:
    """What `oao show --json` printed, and the recording of a test."""
    from oao_harness.journal.recording import Recording

    oao("run", f"{agents}:chatty", "Hi")
    lines = oao("show", "last", "--json").stdout
    (folder / "run.jsonl").write_text(lines, "utf-8")
    Recording.from_records([json.loads(line) for line in lines.splitlines()]).save(folder / "run.oao.json")

    for file in ("run.jsonl", "run.oao.json"):
        found = json.loads(oao("policy", "coverage", policy, file, "--json").stdout)
        assert (found["runs"], found["calls"], found["percent"]) == (1, 1, 40.0), file
    (folder / "bad.jsonl").write_text("{", "utf-8")
    assert oao("policy", "coverage", policy, "bad.jsonl").exit_code == 2


def test_pytest_obeys_a_policy_file(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """By option, and by what pyproject.toml names, and the header says where that is."""
    monkeypatch.setenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", "1")
    pytester.makepyfile("""
        import oao_harness
        @oao_harness.tool
        def wipe(): return 1
        def test_it():
            wipe()
    """)
    pytester.path.joinpath("p.toml").write_text('[tools]\ndeny = ["wipe"]\n', "utf-8")
    options = ("-p", "pytest_oao.plugin", "--oao-record=once", "-p", "no:cacheprovider")

    named = pytester.runpytest_subprocess(*options, "--oao-policy=p.toml", timeout=120)
    named.stdout.fnmatch_lines(["oao: policy p.toml |*", "*tools.deny: tool wipe is denied*"])
    pytester.makepyprojecttoml('[tool.oao]\npolicy = "p.toml"\n')
    found = pytester.runpytest_subprocess(*options, timeout=120)
    found.stdout.fnmatch_lines(["oao: policy p.toml (from pyproject.toml:2) |*", "*tools.deny: tool wipe is denied*"])
    pytester.path.joinpath("p.toml").write_text("[tols]\n", "utf-8")
    wrong = pytester.runpytest_subprocess(*options, timeout=120)
    wrong.stderr.fnmatch_lines(["*p.toml:1: unknown key 'tols'; did you mean 'tools'?*"])
