"""`oao resume` and `oao fork` for a newcomer: which run is meant, why it is refused, and what to type instead."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Journal, Oao

TOTALS = {"steps": 1, "model_calls": 0, "tool_calls": 1, "tokens": 0}
PROMPT = """
    from pathlib import Path

    import oao_harness

    @oao_harness.model(name="small")
    def ask(prompt):
        return {"content": prompt.upper(), "usage": {"input_tokens": 3, "output_tokens": 2}}

    @oao_harness.tool
    def send(text):
        if Path("down").exists():
            raise RuntimeError("the server is down")
        return f"sent {text}"

    def agent(task):
        prompt = Path("prompt").read_text() if Path("prompt").exists() else "be kind"
        return send(ask(f"{prompt}: {task}")["content"])
"""
HELD = """
    import oao_harness

    @oao_harness.tool
    def send(text):
        return f"sent {text}"

    def agent(task):
        return send(task)
"""


def over(status: str) -> dict[str, object]:
    """Return the last record of a run."""
    return {"type": "run.finished", "status": status, "error": None, "output": None, "totals": TOTALS}


def test_the_last_run_is_the_outer_one(oao: Oao, journal: Journal) -> None:
    """A run nested in another cannot be resumed, so `last` never means one."""
    journal("outer-1", origin={"agent": "nowhere:agent"})
    journal("inner-1", at=2000.0, parent="outer-1", origin={"agent": "elsewhere:agent"})

    assert "there is no module 'nowhere'" in oao("resume", "last").stderr
    nested = oao("resume", "inner")
    assert nested.exit_code == 2
    assert nested.stderr == (
        "error: run 'inner-1' is nested in run 'outer-1'; go on with that one: oao resume outer-1\n"
    )


@pytest.mark.parametrize(
    ("status", "said"),
    [
        ("SUCCESS", "error: run late-1 is over (SUCCESS); for another end of it: oao fork late-1 --at N"),
        ("FAILED", "error: run late-1 is over (FAILED); to try again from where it ended: oao fork late-1"),
    ],
)
def test_a_run_that_is_over_names_the_one_that_is_not(oao: Oao, journal: Journal, status: str, said: str) -> None:
    """Somebody comes back in the morning: what died is not the newest run any more."""
    journal("died-1")
    journal("late-1", over(status), at=3000.0)

    done = oao("resume")

    assert done.exit_code == 2
    assert done.stderr == f"{said}; the newest that is not over: oao resume died-1\n"


def test_two_runs_that_begin_alike_are_not_guessed(oao: Oao, journal: Journal) -> None:
    """Both are listed; nothing is resumed or forked."""
    journal("night-1")
    journal("night-2", at=2000.0)

    for command in ("resume", "fork"):
        done = oao(command, "night")
        assert done.exit_code == 2
        assert "error: 'night' is the start of 2 ids; type more of it\n  night-2" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("fork", "--at", "0"), "error: invalid value for '--at': 0 is not in the range x>=1 (see oao fork --help)"),
        (("show", "a", "b"), "error: got unexpected extra argument (b) (see oao show --help)"),
        (("redact",), "error: missing argument 'ID' (see oao redact --help)"),
        (("show", "--stor"), "error: no such option '--stor'"),
        (("--nope",), "error: no such option '--nope' (see oao --help)"),
    ],
)
def test_a_mistake_in_the_command_is_one_line_too(oao: Oao, arguments: Any, said: str) -> None:
    """What the parser finds looks like what a command finds, and names the help."""
    done = oao(*arguments)

    assert (done.exit_code, done.stdout) == (2, "")
    # How an option is quoted, and what is guessed, is click's own.
    assert done.stderr.replace('"', "'").startswith(said)
    assert done.stderr.endswith(" --help)\n")
    assert done.stderr.count("\n") == 1


def test_a_fork_of_a_success_asks_where(oao: Oao, write: Any) -> None:
    """Without a number it would serve every call and change nothing; no run is made."""
    write("desk", PROMPT)
    assert oao("run", "desk:agent", "hello").exit_code == 0

    done = oao("fork", "last")

    assert done.exit_code == 2
    assert "succeeded, so nothing says where the fork begins: --at N, 1 to 2; oao show" in done.stderr
    assert len(json.loads(oao("runs", "--json").stdout)) == 1
    assert oao("fork", "last", "--at", "3").exit_code == 0


def test_a_changed_prompt_before_the_fork_says_where_to_begin(oao: Oao, folder: Path, write: Any) -> None:
    """What is served is what was asked for; the line that is printed is the command that works."""
    write("desk", PROMPT)
    (folder / "down").touch()
    assert oao("run", "desk:agent", "hello").exit_code == 1
    (source,) = json.loads(oao("runs", "--json").stdout)
    id_ = source["execution_id"][:8]
    (folder / "down").unlink()
    (folder / "prompt").write_text("be rude", encoding="utf-8")

    done = oao("fork", id_)

    assert done.exit_code == 1
    told = f"it asks for something else before call #2; to make that anew too: oao fork {id_} --at 1"
    assert told in " ".join(done.stdout.split())
    assert "sent BE RUDE: HELLO" in oao("fork", id_, "--at", "1").stdout
    (folder / "prompt").unlink()
    assert "asks for something else" not in oao("fork", id_).stdout


def test_a_task_that_was_redacted_is_not_resumed(oao: Oao, folder: Path, write: Any) -> None:
    """The agent would be asked something that nobody asked; the run stays as it is."""
    write("desk", HELD)
    (folder / "policy.toml").write_text('[tools]\nask = ["send"]\n', encoding="utf-8")
    assert oao("run", "desk:agent", "mail ann@example.com", "--policy", "policy.toml").exit_code == 3
    assert oao("redact", "last", "--task", "--yes").exit_code == 0
    assert oao("approve", "last").exit_code == 0
    before = oao("show", "last", "--json").stdout

    done = oao("resume", "last")

    assert done.exit_code == 2
    assert "was redacted: its agent would be asked something else now; give the task anew" in done.stderr
    assert oao("show", "last", "--json").stdout == before


def test_what_a_suspended_run_did_is_listed(oao: Oao, folder: Path, write: Any) -> None:
    """Steps and tokens of a run that waits stand in its row."""
    write("desk", PROMPT)
    (folder / "policy.toml").write_text('[tools]\nask = ["send"]\n', encoding="utf-8")
    assert oao("run", "desk:agent", "hello", "--policy", "policy.toml").exit_code == 3

    (row,) = json.loads(oao("runs", "--json").stdout)

    assert row["status"] == "SUSPENDED"
    assert (row["totals"]["steps"], row["totals"]["tokens"]) == (1, 5)
