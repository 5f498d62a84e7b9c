"""`oao diff` of stored runs: what is equal, what changed, and what it came to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Journal, Oao

ALLOW = {"verdict": "allow", "rule": "default", "plugin": "oao"}


def call(n: int, name: str, res: object, **req: object) -> list[dict[str, Any]]:
    made = {"type": "call", "n": n, "kind": "tool", "name": name, "req": req, "decision": ALLOW}
    return [made, {"type": "outcome", "n": n, "duration_s": 0.5, "res": res}]


def end(steps: int, status: str = "SUCCESS", output: str = "done") -> dict[str, Any]:
    totals = {"steps": steps, "model_calls": 0, "tool_calls": steps, "tokens": 10 * steps, "cost_usd": 0.01 * steps}
    return {"type": "run.finished", "status": status, "error": None, "output": output, "totals": totals}


@pytest.fixture
def two(journal: Journal) -> None:
    """A run, and a fork of it that paid another sum, and did not tell anybody."""
    first = call(1, "find", ["A-1"], order="A")
    journal("old-1", *first, *call(2, "pay", "ok", amount=5), *call(3, "tell", None, who="bob"), end(3))
    other = [*first, *call(2, "pay", "no", amount=7), end(2, "FAILED", "sorry")]
    journal("new-1", *other, at=2000, forked={"run": "old-1", "at": 2})


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("arguments", [["old-1", "new-1"], ["new-1"], ["old", "last"]])
def test_a_fork_and_its_source_are_compared(oao: Oao, arguments: list[str]) -> None:
    """Totals side by side, where they part, and each step that differs; a fork alone knows what to compare with."""
    result = oao("diff", *arguments)

    assert result.exit_code == 0
    told = [" ".join(line.split()) for line in result.stdout.splitlines()]
    for line in (
        "old-1 new-1",
        "status SUCCESS FAILED",
        "steps 3 2 (-1)",
        "tokens 30 20 (-10)",
        "cost 0.03 USD 0.02 USD",
        "output done sorry",
        "a fork of old-1: 1 call from there, its own from call #2 on",
        "1 step changed, 1 removed; first: step 2 tool pay: amount 5 -> 7; 1 step equal",
        "~ #2 tool pay",
        "- #3 tool tell",
    ):
        assert line in told, line
    assert oao("diff", *arguments, "--check").exit_code == 1


@pytest.mark.usefixtures("two")
def test_json_is_one_document(oao: Oao) -> None:
    """Both sides, what is equal, what is not, and where they part."""
    found = json.loads(oao("diff", "old-1", "new-1", "--json").stdout)
    assert (found["equal"], found["changed"], found["added"], found["removed"], found["parts_at"]) == (1, 1, 0, 1, 2)
    assert (found["old"]["status"], found["new"]["forked_from"], found["new"]["cost_usd"]) == ("SUCCESS", "old-1", 0.02)
    assert [step["kind"] for step in found["steps"]] == ["changed", "removed"]


@pytest.mark.usefixtures("two")
def test_a_run_is_compared_with_a_recording(oao: Oao, folder: Path) -> None:
    """An export of a run holds what the run did."""
    assert oao("export", "old-1", "-o", "old.oao.json").exit_code == 0
    same = oao("diff", "old-1", "old.oao.json", "--check")
    assert (same.exit_code, "nothing changed but" in same.stdout) == (0, True)
    assert "~ #2 tool pay" in oao("diff", "old.oao.json", "new-1").stdout


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["old-1"], "run old-1 is no fork; name what it is compared with: oao diff old-1 ID"),
        (["old-1", "zzz"], "no run has an id that starts with 'zzz'"),
        (["old-1", "gone.oao.json"], "no recording"),
        ([], "nothing is pending; name two runs or recordings"),
    ],
)
def test_a_mistake_is_said(oao: Oao, arguments: list[str], said: str) -> None:
    """Exit code 2, and what to do."""
    result = oao("diff", *arguments)
    assert result.exit_code == 2
    assert said in result.stderr


@pytest.mark.usefixtures("two")
def test_a_fork_whose_source_is_gone_says_so(oao: Oao) -> None:
    """It was deleted."""
    assert oao("runs", "prune", "--run", "old-1", "--yes").exit_code == 0
    result = oao("diff", "new-1")
    assert (result.exit_code, "is not in this store any more" in result.stderr) == (2, True)


@pytest.mark.usefixtures("two")
@pytest.mark.parametrize("width", [60, 80, 120])
def test_every_width_is_kept(oao: Oao, journal: Journal, width: int) -> None:
    """Also with a long answer."""
    journal("long-1", *call(1, "find", ["B"], order="A"), end(1, output="a long answer " * 30), at=3000)
    shown = oao("diff", "old-1", "long-1", width=width).stdout
    assert max(map(len, shown.splitlines())) <= width
