"""Secrets never get into a recording: values of the environment are named, what looks like a credential is refused."""

from __future__ import annotations

from typing import Any

import pytest

KEY = "zq8-plain-words-value-1234567890"
OTHER = "xx9-other-words-value-0987654321"
TEST = """
def test_refund():
    key = os.environ["MY_API_KEY"]
    ask([{"role": "user", "content": f"use {key} please"}])
    assert lookup(key)["paid"]
"""


def test_the_value_of_a_secret_variable_is_recorded_by_its_name(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """In prompts and arguments; and it replays where the variable has another value, but not where it has none."""
    monkeypatch.setenv("MY_API_KEY", KEY)
    shop.write(test=TEST)
    shop.record()

    text = shop.recording.read_text()
    assert KEY not in text
    assert "use <env:MY_API_KEY> please" in text
    shop.run("--oao-policy=strict").assert_outcomes(passed=1)
    monkeypatch.setenv("MY_API_KEY", OTHER)
    result = shop.run("--oao-policy=strict")
    result.assert_outcomes(passed=1)
    assert OTHER not in result.stdout.str()

    shop.write(("use {key}", "take {key}"), test=TEST)
    diverged = shop.run("--oao-policy=strict")
    diverged.assert_outcomes(failed=1)
    assert OTHER not in diverged.stdout.str()


@pytest.mark.parametrize("mode", ["once", "rewrite"])
def test_what_looks_like_a_credential_refuses_to_be_saved(shop: Any, mode: str) -> None:
    """The test fails; place and kind are named, the value is not."""
    token = "ghp_" + "a1B2c3D4e5" * 3 + "f6G7h8"
    shop.write(test=f"\ndef test_refund():\n    lookup('1')\n    refund('1', '{token}')\n")

    result = shop.run(f"--oao-record={mode}", "--tb=short")

    result.assert_outcomes(failed=1)
    assert shop.files() == []
    output = result.stdout.str()
    assert token not in output
    result.stdout.fnmatch_lines(["*amount*"])
    result.stdout.fnmatch_lines(["*GitHub*"])


def test_a_pending_recording_holds_no_secret_either(shop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does the working copy of an attempt that failed."""
    monkeypatch.setenv("MY_API_KEY", KEY)
    shop.write(test=TEST)
    shop.record()
    shop.write(("use {key}", "take {key}"), test=TEST)
    shop.run("--oao-record=new").assert_outcomes(passed=1)
    shop.write(("use {key}", "keep {key}"), ('["paid"]\n', '["paid"] is None\n'), test=TEST)
    shop.run("--oao-record=new").assert_outcomes(failed=1)

    files = [path for path in shop.path.rglob("*") if path.is_file() and path.suffix not in {".py", ".pyc"}]
    assert any(path.name.endswith(".new") for path in files)
    assert [path.name for path in files if KEY in path.read_text(errors="replace")] == []
