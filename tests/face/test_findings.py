"""What is found beside the tests: recordings that no test plays, that wait for a review, that are old."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

TWO = """
@pytest.mark.parametrize("id", ["a", "b"])
def test_refund(id):
    lookup(id)

def test_other():
    lookup("c")
"""
ORPHAN = "1 orphan: recordings/test_shop/{} (no test plays it; oao prune)"


@pytest.fixture
def two(shop: Any) -> Any:
    """Three recordings of two tests."""
    shop.write(test=TWO)
    shop.record(passed=3)
    return shop


@pytest.mark.parametrize("mode", ["none", "once"])
def test_a_renamed_test_leaves_an_orphan(two: Any, mode: str) -> None:
    """It is named, with what to do; the session passes."""
    two.write(("def test_other", "def test_another"), test=TWO)
    two.record(passed=3)
    result = two.run(f"--oao-record={mode}")
    assert result.ret == 0
    result.stdout.fnmatch_lines([ORPHAN.format("test_other.oao.json")])


def test_a_removed_parameter_leaves_an_orphan(two: Any) -> None:
    """Of several of the same test."""
    two.write(('["a", "b"]', '["a"]'), test=TWO)
    two.run("--oao-record=none").stdout.fnmatch_lines(
        ["1 orphan: *test_refund*b*.oao.json (no test plays it; oao prune)"]
    )


def test_a_deleted_module_leaves_orphans(two: Any) -> None:
    """Seen from the other modules of its folder; many are abridged."""
    (two.path / "test_shop.py").unlink()
    (two.path / "test_plain.py").write_text("def test_plain(): pass\n")
    result = two.run("--oao-record=none")
    result.stdout.fnmatch_lines(
        ["3 orphans: recordings/test_shop/*, recordings/test_shop/*, * (no test plays it; oao prune)"]
    )


@pytest.mark.parametrize(("action", "code"), [("fail", 1), ("warn", 0), ("ignore", 0)])
def test_an_orphan_fails_the_session_where_that_is_asked_for(two: Any, action: str, code: int) -> None:
    """All tests passed, and the exit code says that something is wrong all the same; also with xdist."""
    two.write(("def test_other", "def dead_other"), test=TWO)
    for options in ((), ("-p", "xdist", "-n", "1")):
        result = two.run("--oao-record=none", f"--oao-orphans={action}", *options)
        result.assert_outcomes(passed=2)
        assert result.ret == code
        if action == "ignore":
            result.stdout.no_fnmatch_line("[123] orphan*")
        else:
            result.stdout.fnmatch_lines(["1 orphan: *"])


@pytest.mark.parametrize(
    "options",
    [
        ("-k", "refund"),
        ("test_shop.py::test_refund",),
        ("--deselect", "test_shop.py::test_another"),
        ("-x", "-m", "not x"),
    ],
    ids=["-k", "node id", "--deselect", "-m"],
)
def test_a_selection_finds_no_orphans(two: Any, options: tuple[str, ...]) -> None:
    """A recording of a test that was not asked for is no orphan."""
    two.write(("def test_other", "@pytest.mark.x\ndef test_another"), test=TWO)
    (two.path / "pytest.ini").write_text("[pytest]\nmarkers = x\n")
    result = two.run("--oao-record=none", "--oao-orphans=fail", *options)
    result.stdout.no_fnmatch_line("[123] orphan*")
    assert result.ret == 0


def test_last_failed_finds_no_orphans(two: Any) -> None:
    """pytest runs a part of the tests only."""
    base = ("-p", "pytest_oao.plugin", "--oao-record=none")
    two.write(('lookup("c")', 'lookup("d")'), test=TWO)
    two.pytester.runpytest_inprocess(*base).assert_outcomes(passed=2, failed=1)
    two.write(('["a", "b"]', '["a"]'), test=TWO)
    result = two.pytester.runpytest_inprocess(*base, "--lf")
    result.assert_outcomes(passed=1)
    result.stdout.no_fnmatch_line("[123] orphan*")


def test_a_test_that_could_not_be_collected_makes_no_orphans(two: Any) -> None:
    """A syntax error is not a deleted test."""
    (two.path / "test_shop.py").write_text("def broken(:\n")
    (two.path / "test_plain.py").write_text("def test_plain(): pass\n")
    result = two.run("--oao-record=none", "--continue-on-collection-errors")
    result.stdout.no_fnmatch_line("[123] orphan*")


def test_a_crashed_worker_makes_no_orphans(two: Any) -> None:
    """It has not seen everything."""
    two.write(("def test_other():", "def test_another():\n    os._exit(3)\n\ndef test_last():"), test=TWO)
    result = two.run_alone("--oao-record=none", "--oao-orphans=fail", "-p", "xdist", "-n", "2")
    result.stdout.fnmatch_lines(["*worker*crashed*"])
    result.stdout.no_fnmatch_line("[123] orphan*")


@pytest.mark.parametrize(
    ("days", "age", "old"), [(100, "90d", True), (100, "90 days", True), (80, "90d", False), (900, "", False)]
)
def test_old_recordings_are_named(two: Any, days: int, age: str, old: bool) -> None:
    """Where the project says what old is; they pass all the same."""
    path = two.path / "recordings" / "test_shop" / "test_other.oao.json"
    document = json.loads(path.read_text())
    document["recorded"]["at"] = (datetime.now(UTC) - timedelta(days=days)).isoformat(timespec="seconds")
    path.write_text(json.dumps(document))

    result = two.run("--oao-record=none", "-o", f"oao_max_age={age}")

    result.assert_outcomes(passed=3)
    if old:
        line = "1 recording older than 90 days: recordings/test_shop/test_other.oao.json (pytest --oao-record=all *)"
        result.stdout.fnmatch_lines([line])
    else:
        result.stdout.no_fnmatch_line("*older than*")


def test_a_recording_with_a_name_of_its_own_is_no_orphan(shop: Any) -> None:
    """The marker `recording=` names it."""
    shop.write(test="\n@pytest.mark.oao(recording='mine')\ndef test_refund():\n    lookup('1')\n")
    shop.record()
    assert shop.files() == ["test_shop/mine.oao.json"]
    shop.run("--oao-record=none", "--oao-orphans=fail").assert_outcomes(passed=1)
