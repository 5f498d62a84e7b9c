"""The commands about recording files: pending, accept, reject, diff, prune, show, export, replay."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness.journal.pending import pending_path
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_harness.journal.records import key_of
from tests import forked

if TYPE_CHECKING:
    from oao_hookspecs import Json
    from tests.cli.conftest import Oao, Write

PLACE = Path("tests/recordings/test_shop")
PICTURE = base64.b64encode(bytes(range(256)) * 40).decode()


def recording(amount: float, name: str = "test_refund", *more: str, value: Json = "done") -> Recording:
    events = [
        RecordedEvent(
            n=n,
            kind="tool",
            name=tool,
            run="main",
            start=2 * n - 1,
            end=2 * n,
            request={"amount": amount},
            key=key_of("tool", tool, {"amount": amount}),
            value=value,
            at=float(n),
        )
        for n, tool in enumerate(("refund", *more), start=1)
    ]
    return Recording(test=f"tests/test_shop.py::{name}", events=tuple(events), header={"at": "monday", "clock": 5.0})


@pytest.fixture
def refund(folder: Path) -> Path:
    """A recording with a pending one beside it, and a pending one alone; the tests of both."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_shop.py").write_text("def test_refund():\n    pass\n\ndef test_new():\n    pass\n")
    path = PLACE / "test_refund.oao.json"
    recording(49.99).save(path)
    recording(52, "test_refund", "note").save(pending_path(path))
    recording(1, "test_new").save(pending_path(PLACE / "test_new.oao.json"))
    return path


def test_pending_recordings_are_listed_with_what_they_change(oao: Oao, refund: Path) -> None:
    """For people and for programs; the exit code says something only when asked."""
    shown = oao("pending")

    assert shown.exit_code == 0
    assert "1 step changed, 1 added; first: step 1 tool refund: amount 49.99 -> 52" in " ".join(shown.stdout.split())
    assert "new: 1 step added" in shown.stdout
    assert "2 recordings pending" in shown.stdout
    assert oao("pending", "--check").exit_code == 1
    [first, second] = sorted(json.loads(oao("pending", "tests", "--json").stdout), key=lambda one: one["new"])
    assert (first["path"], first["changed"], first["added"], first["removed"]) == (str(refund), 1, 1, 0)
    assert first["steps"][0]["lines"] == ["~ amount: 49.99 -> 52"]
    assert (second["new"], second["orphaned"], second["test"]) == (True, False, "tests/test_shop.py::test_new")


def test_a_damaged_or_orphaned_pending_recording_is_said(oao: Oao, refund: Path) -> None:
    """The list goes on."""
    pending_path(refund).write_text("{")
    Path("tests/test_shop.py").write_text("def test_refund():\n    pass\n")

    shown = oao("pending", width=200).stdout

    assert "is truncated or not JSON" in shown
    assert "orphaned: test_shop.py has no test_new" in shown


def test_accept_takes_a_recording_a_pending_file_or_all(oao: Oao, refund: Path) -> None:
    """The pending file becomes the recording."""
    assert oao("accept", str(refund)).stdout == f"accepted {refund}\n"
    assert Recording.load(refund).events[0].request == {"amount": 52}
    assert oao("accept", "--all").stdout == f"accepted {PLACE / 'test_new.oao.json'} (new)\n"
    assert oao("accept", "tests").stdout == "Nothing is pending.\n"
    assert oao("pending").stdout == "Nothing is pending.\n"


def test_reject_deletes_the_pending_file_and_nothing_else(oao: Oao, refund: Path) -> None:
    """The same command refuses held calls: a path is never taken for an id."""
    before = refund.read_bytes()

    assert oao("reject", f"{refund}.new").stdout == f"rejected {refund}\n"
    assert refund.read_bytes() == before
    assert oao("reject", "--all").exit_code == 0
    assert not list(PLACE.glob("*.new"))
    missing = oao("reject", str(refund))
    assert (missing.exit_code, "nothing is pending for" in missing.stderr) == (2, True)


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (("accept",), "say --all"),
        (("reject",), "say --all"),
        (("reject", "3f2a", "4b1c"), "name one held call"),
        (("accept", "nothing/here"), "there is no file or folder 'nothing/here'"),
        (("pending", "nothing"), "there is no file or folder 'nothing'"),
        (("diff", "tests"), "is a folder"),
        (("review",), "needs a terminal"),
        (("show", "missing.oao.json"), "no recording 'missing.oao.json'"),
        (("replay", "missing.oao.json"), "no recording 'missing.oao.json'"),
        (("export", "last", "--test", "x.py"), "is no node id"),
        (("export", "last"), "no run is journaled here yet"),
    ],
)
def test_mistakes_are_one_line_and_code_2(oao: Oao, refund: Path, args: tuple[str, ...], words: str) -> None:
    """What is wrong, and what to do; no traceback."""
    result = oao(*args)

    assert result.exit_code == 2
    assert words in " ".join(result.stderr.split())
    assert "Traceback" not in result.stderr


def test_diff_tells_step_by_step_what_is_different(oao: Oao, refund: Path) -> None:
    """Pending against recording, or two files; the exit code says something only when asked."""
    shown = oao("diff", str(refund)).stdout

    assert "~ #1 tool refund" in shown
    assert "~ amount: 49.99 -> 52" in shown
    assert "+ #2 tool note" in shown
    assert oao("diff", str(refund), "--check").exit_code == 1
    same = oao("diff", str(refund), str(refund), "--check")
    assert (same.exit_code, "nothing changed" in same.stdout) == (0, True)
    assert json.loads(oao("diff", str(refund), f"{refund}.new", "--json").stdout)["added"] == 1


def test_diff_without_a_path_shows_the_only_one_that_is_pending(oao: Oao, refund: Path) -> None:
    """Which of two is meant nobody can know, and where nothing is pending there is nothing to show."""
    assert "2 recordings are pending; name one, for example oao diff tests/" in " ".join(oao("diff").stderr.split())

    pending_path(PLACE / "test_new.oao.json").unlink()
    assert oao("diff").stdout == oao("diff", str(refund)).stdout != ""

    pending_path(refund).unlink()
    nothing = oao("diff")
    assert (nothing.exit_code, "nothing is pending" in nothing.stderr) == (2, True)


TESTS = """
import pytest
from elsewhere import test_imported

def test_stays(): ...

if True:
    async def test_conditional(): ...

class TestShop:
    def test_method(self): ...

class TestBased(Base):
    def test_own(self): ...

test_made = make()
"""


@pytest.mark.parametrize(
    ("name", "fate"),
    [
        ("test_stays", "kept"),
        ("test_stays[one-2]", "kept"),
        ("test_conditional", "kept"),
        ("test_imported", "kept"),
        ("test_made", "kept"),
        ("TestShop::test_method", "kept"),
        ("TestBased::test_own", "kept"),
        ("TestBased::test_inherited", "unknown"),
        ("test_gone", "gone"),
        ("TestShop::test_gone[1]", "gone"),
        ("TestGone::test_method", "gone"),
    ],
)
def test_prune_deletes_what_has_no_test_and_nothing_else(oao: Oao, folder: Path, name: str, fate: str) -> None:
    """By the test's own file, without running it; what cannot be decided is said and stays."""
    (folder / "tests").mkdir()
    (folder / "tests" / "test_shop.py").write_text(TESTS)
    path = PLACE / "x.oao.json"
    recording(1, name).save(path)

    dry = oao("prune", "--dry-run", width=200)
    assert path.exists()
    done = oao("prune", "--yes", width=200)

    assert path.exists() == (fate != "gone")
    assert ("cannot decide" in done.stdout) == (fate == "unknown")
    assert ("would delete 1 file" in dry.stdout) == (fate == "gone")


def test_prune_collects_blobs_that_nobody_refers_to(oao: Oao, folder: Path) -> None:
    """Those of a recording that goes, not those of one that stays, pending ones included; folders that are empty go."""
    (folder / "tests").mkdir()
    module = folder / "tests" / "test_shop.py"
    module.write_text("def test_a(): ...\ndef test_b(): ...\n")
    recording(1, "test_a", value=PICTURE).save(PLACE / "test_a.oao.json")
    recording(1, "test_b", value="A" * 8000).save(pending_path(PLACE / "test_b.oao.json"))
    recording(1, "test_c", value="B" * 8000).save(PLACE / "test_c.oao.json")

    done = oao("prune", "--yes", width=200)

    assert done.stdout.count("gone ") == 2
    assert len(list((PLACE / "blobs").iterdir())) == 2
    assert Recording.load(PLACE / "test_a.oao.json").events[0].value == PICTURE
    refused = subprocess.run(
        [sys.executable, "-m", "oao_harness", "prune"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.stdout.strip() == "Nothing to delete."
    module.unlink()
    refused = subprocess.run(
        [sys.executable, "-m", "oao_harness", "prune"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (refused.returncode, "say --yes" in refused.stderr) == (2, True)
    oao("prune", "--yes")
    assert not PLACE.exists()


def test_blobs_stay_where_a_recording_cannot_be_read(oao: Oao, folder: Path) -> None:
    """Nobody knows what it refers to."""
    recording(1, "test_a", value=PICTURE).save(folder / "x.oao.json")
    (folder / "x.oao.json").write_text("{")

    done = oao("prune", "--yes", width=200)

    assert done.stdout.count("cannot decide") == 2
    assert len(list((folder / "blobs").iterdir())) == 1


def test_a_recording_is_shown_as_a_run_is(oao: Oao, refund: Path) -> None:
    """The same timeline; as records for programs."""
    shown = oao("show", str(refund)).stdout
    told = [" ".join(line.split()) for line in shown.splitlines()]

    assert told[0] == "tests/test_shop.py::test_refund"
    assert "1.000 1 tool refund allow" in " ".join(told)
    assert "→ refund(amount=49.99)" in told
    assert "1 step, 0 model calls, 1 tool call, 0 tokens" in told
    records = [json.loads(line) for line in oao("show", str(refund), "--json").stdout.splitlines()]
    assert [record["type"] for record in records] == ["run.started", "call", "outcome"]
    assert records[2]["res"] == "done"


AGENTS = """
import oao_harness

@oao_harness.tool
def find(query):
    return f"found {query}"

@oao_harness.tool
def nest(query):
    return oao_harness.Orchestrator().run(inner, query).result

def inner(task):
    return find(task)

WORD = "first"

def agent(task):
    return find(WORD) + nest(task)
"""


def test_a_stored_run_is_exported_and_replayed(oao: Oao, write: Write) -> None:
    """With the runs nested in it; the replay says where it diverges, and ends with 1."""
    write("desk", AGENTS)
    assert oao("run", "desk:agent", "this").exit_code == 0

    exported = oao("export", "last", "-o", "x.oao.json")
    assert exported.stdout.startswith("exported x.oao.json: 3 steps")
    events = Recording.load("x.oao.json").events
    assert [(event.name, event.run, event.parent) for event in events] == [
        ("find", "main", None),
        ("nest", "main", None),
        ("find", "inner", 2),
    ]
    assert "exists" in oao("export", "last", "-o", "x.oao.json").stderr
    played = oao("replay", "x.oao.json", "--agent", "desk:agent", "--task", "this")
    assert (played.exit_code, "found firstfound this" in played.stdout) == (0, True)
    again = oao("replay", "last", "--json")
    assert (again.exit_code, json.loads(again.stdout)["status"]) == (0, "SUCCESS")
    assert len(oao("runs", "--all", "--json").stdout.split('"execution_id"')) == 3
    sys.modules["desk"].WORD = "second"  # type: ignore[attr-defined]
    for diverged in (oao("replay", "last"), oao("replay", "x.oao.json", "--agent", "desk:agent", "--task", "this")):
        assert diverged.exit_code == 1
        assert "step 1 tool find: query" in " ".join(diverged.stdout.split())


def test_an_export_is_scrubbed_and_goes_where_its_test_keeps_it(
    oao: Oao, write: Write, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What pyproject.toml declares is redacted; a key of the environment is replaced."""
    monkeypatch.setenv("SHOP_API_KEY", "a-long-and-secret-value")
    write("desk", AGENTS)
    (folder / "pyproject.toml").write_text('[tool.oao.redact]\npatterns = ["th(i)s"]\n')
    oao("run", "desk:agent", "this a-long-and-secret-value")

    done = oao("export", "last", "--test", "tests/test_desk.py::test_it")

    path = Path("tests/recordings/test_desk/test_it.oao.json")
    assert "pytest tests/test_desk.py::test_it" in done.stdout
    loaded = Recording.load(path, test="tests/test_desk.py::test_it")
    assert loaded.events[2].value == "found th<redacted>s <env:SHOP_API_KEY>"


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("[tool.oao]\nredact = 1", "pyproject.toml:2: [tool.oao.redact] is no table"),
        ("[tool.oao.redact]\npattern = []", "pyproject.toml:2: [tool.oao.redact]: unknown key 'pattern'"),
        ("[tool.oao.redact]\n\npatterns = ['a', '(']", "pyproject.toml:3: '(' is no regular expression"),
        ("[tool.oao.redact]\npatterns = ['a*']", "pyproject.toml:2: 'a*' matches the empty text"),
        ("[tool.oao.redact]\npaths = 'x'", "pyproject.toml:2: paths is 'x'; give a list of texts"),
        ("[tool.oao.redact]\npaths = ['tol.x.req']", "pyproject.toml:2: 'tol.x.req' begins with 'tol'"),
        ("[tool.oao.redact]\npaths = ['tool.x.password']", "pyproject.toml:2: 'tool.x.password' names no req, res"),
        ("[tool.oao.redact]\npaths = ['tool..req']", "pyproject.toml:2: 'tool..req' has an empty part"),
    ],
)
def test_what_is_wrong_in_the_declared_redaction_is_said_with_its_line(
    oao: Oao, write: Write, folder: Path, table: str, words: str
) -> None:
    """File, line, what is wrong; nothing is written."""
    write("desk", AGENTS)
    oao("run", "desk:agent", "this", "--policy", "off")
    (folder / "pyproject.toml").write_text(table)

    done = oao("export", "last", "-o", "x.oao.json")

    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())
    assert not (folder / "x.oao.json").exists()


def test_the_recording_of_a_test_is_replayed_by_pytest(folder: Path) -> None:
    """From any folder, in the project's own; a divergence ends with 1, an agent must be named for other files."""
    (folder / "pyproject.toml").write_text("[tool.pytest.ini_options]\n")
    (folder / "tests").mkdir()
    module = folder / "tests" / "test_it.py"
    source = "from oao_harness import tool\n\n@tool\ndef find(q):\n    return 1\n\ndef test_one():\n    find('WORD')\n"
    module.write_text(source)

    def run(*args: str) -> subprocess.CompletedProcess[str]:
        return forked.run(args, cwd=folder / "tests")

    assert run("pytest", "--rootdir", "..", "--oao-record=once", "-p", "no:cacheprovider", "test_it.py").returncode == 0
    path = "recordings/test_it/test_one.oao.json"
    played = run("oao_harness", "replay", path)
    assert (played.returncode, "1 passed" in played.stdout) == (0, True), played.stdout + played.stderr
    module.write_text(source.replace("WORD", "other"))
    diverged = run("oao_harness", "replay", path)
    assert (diverged.returncode, "replay diverged" in diverged.stdout) == (1, True)
    (folder / "tests" / "moved.oao.json").write_bytes((folder / "tests" / path).read_bytes())
    moved = run("oao_harness", "replay", "moved.oao.json")
    assert (moved.returncode, "--agent" in moved.stderr) == (2, True)
