"""Large contents stand beside a recording, once each."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from oao_harness import RecordingError
from oao_harness.journal.blobs import references
from oao_harness.journal.recording import RecordedEvent, Recording
from oao_hookspecs import Json

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 40
CODED = base64.b64encode(PICTURE).decode()
LONG = "A line of a long text, \u00e4\n" * 2000


def recording(*values: Json) -> Recording:
    events = tuple(
        RecordedEvent(n=n, kind="tool", name="see", run="", start=n, end=n, request={"n": n}, key="", value=value)
        for n, value in enumerate(values, start=1)
    )
    return Recording(events=events)


@pytest.mark.parametrize(
    ("value", "extension"),
    [
        (CODED, "png"),
        (f"data:image/png;base64,{CODED}", "png"),
        ({"$oao": "bytes", "value": CODED}, "png"),
        ({"deep": [base64.b64encode(b"\0" * 5000).decode()]}, "bin"),
        (LONG, "txt"),
        (LONG + "\ud83d", "txt"),
        ({"$blob": "mine", "text": LONG}, "txt"),
    ],
)
def test_a_large_content_is_a_file_and_comes_back(tmp_path: Path, value: Json, extension: str) -> None:
    """Pictures, data URLs, bytes, long texts; a user's own key `$blob` is no reference."""
    path = tmp_path / "x.oao.json"
    recording(value).save(path)

    [blob] = (tmp_path / "blobs").iterdir()
    assert blob.suffix == f".{extension}"
    assert path.stat().st_size < 1000
    assert Recording.load(path).events[0].value == value
    assert not list(tmp_path.rglob(".*"))


@pytest.mark.parametrize("value", [CODED[:4000], "x" * 30_000, CODED[:-1], "word " * 2000, CODED[:-4] + "-_=="])
def test_what_is_small_or_no_binary_stays_in_the_recording(tmp_path: Path, value: str) -> None:
    """Up to 4 kB binary, up to 32,000 characters of text."""
    recording(value).save(tmp_path / "x.oao.json")

    assert not list((tmp_path / "blobs").glob("*")) or len(value) == 30_000
    assert Recording.load(tmp_path / "x.oao.json").events[0].value == value


def test_the_same_content_is_stored_once(tmp_path: Path) -> None:
    """In one recording and in two, as a data URL or not; what is there is not written again."""
    recording(CODED, f"data:image/png;base64,{CODED}").save(tmp_path / "x.oao.json")
    [blob] = (tmp_path / "blobs").iterdir()
    before = blob.stat().st_mtime_ns
    recording({"picture": CODED}).save(tmp_path / "y.oao.json")

    assert [one.stat().st_mtime_ns for one in (tmp_path / "blobs").iterdir()] == [before]
    assert blob.read_bytes() == PICTURE
    assert set(references(json.loads((tmp_path / "y.oao.json").read_text()))) == {blob.name}


@pytest.mark.parametrize(
    ("harm", "words"), [("missing", "is missing"), ("changed", "was changed"), ("reference", "is no reference")]
)
def test_a_lost_or_changed_blob_is_a_clear_error(tmp_path: Path, harm: str, words: str) -> None:
    """In which event, which file, what is wrong. A reference cannot lead out of the folder."""
    path = tmp_path / "x.oao.json"
    recording("small", CODED).save(path)
    [blob] = (tmp_path / "blobs").iterdir()
    if harm == "missing":
        blob.unlink()
    elif harm == "changed":
        blob.write_bytes(b"other")
    else:
        document: Any = json.loads(path.read_text())
        document["events"][1]["res"]["$blob"] = "../x.oao.json"
        path.write_text(json.dumps(document))

    with pytest.raises(RecordingError, match=f"damaged in event 2: .*{words}"):
        Recording.load(path)
