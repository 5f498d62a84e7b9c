"""Pending recordings: found, accepted, rejected."""

from __future__ import annotations

from pathlib import Path

import pytest

from oao_harness import RecordingError
from oao_harness.journal.pending import find_pending, find_recordings, pending_path
from oao_harness.journal.recording import RecordedEvent, Recording


def recording(value: str) -> Recording:
    event = RecordedEvent(n=1, kind="tool", name="a", run="", start=1, end=2, request={}, key="", value=value)
    return Recording(events=(event,))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two recordings and two pending ones, one of them for a test that has no recording yet."""
    folder = tmp_path / "tests" / "recordings" / "test_x"
    recording("old").save(folder / "test_a.oao.json")
    recording("new").save(pending_path(folder / "test_a.oao.json"))
    recording("same").save(folder / "test_b.oao.json")
    recording("first").save(pending_path(folder / "test_c.oao.json"))
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "z.oao.json.new").write_text("not looked at")
    return tmp_path


def test_pending_files_are_found_by_folder_recording_or_their_own_name(tree: Path) -> None:
    """Each once; hidden folders are not searched."""
    folder = tree / "tests" / "recordings" / "test_x"
    names = [pending.path.name for pending in find_pending([tree, folder / "test_a.oao.json.new"])]

    assert names == ["test_a.oao.json", "test_c.oao.json"]
    assert [one.is_new for one in find_pending([tree])] == [False, True]
    assert [one.name for one in find_recordings([tree])] == ["test_a.oao.json", "test_b.oao.json"]
    assert [one.path for one in find_pending([folder / "test_a.oao.json"])] == [folder / "test_a.oao.json"]


def test_accepting_replaces_and_rejecting_deletes(tree: Path) -> None:
    """Nothing is left pending; the recording is what the person said."""
    first, second = find_pending([tree])

    assert first.changes().headline == '1 step changed; first: step 1 tool a: result "old" -> "new"'
    first.accept()
    second.reject()

    assert Recording.load(first.path).events[0].value == "new"
    assert not second.path.exists()
    assert find_pending([tree]) == []


def test_a_damaged_pending_file_is_not_accepted(tree: Path) -> None:
    """The recording stays as it was."""
    [first, _] = find_pending([tree])
    first.file.write_text("{")
    before = first.path.read_bytes()

    with pytest.raises(RecordingError, match="not JSON"):
        first.accept()
    assert first.path.read_bytes() == before


def test_a_path_that_names_nothing_is_a_mistake(tree: Path) -> None:
    """What is wrong is said."""
    with pytest.raises(RecordingError, match=r"nothing is pending for .*test_b"):
        find_pending([tree / "tests" / "recordings" / "test_x" / "test_b.oao.json"])
    with pytest.raises(RecordingError, match="there is no recording"):
        find_pending([tree / "nothing"])
