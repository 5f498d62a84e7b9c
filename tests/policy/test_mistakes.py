"""What a user is told about a policy file that is wrong: file, line, where, what to do. All of it at once."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from oao_harness import ConfigError, FilePolicy, Orchestrator, load_policy

GOLDEN = Path(__file__).parent / "mistakes.txt"


def cases() -> list[tuple[str, str, str]]:
    """Title, policy and message of each case of the golden file."""
    found = re.findall(r"^### (.+?)\n(.*?)^---\n(.*?)(?=^### |\Z)", GOLDEN.read_text("utf-8"), re.S | re.M)
    return [(title, text, message.strip("\n")) for title, text, message in found]


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in cases()], ids=[case[0] for case in cases()])
def test_each_mistake_is_told_with_its_line(text: str, message: str) -> None:
    """Word for word what the golden file says; to write it anew, run this file as a script and read the difference."""
    with pytest.raises(ConfigError) as error:
        FilePolicy.from_text(text)

    assert str(error.value) == message


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in cases()], ids=[case[0] for case in cases()])
def test_each_message_points_into_the_file(text: str, message: str) -> None:
    """Every line that is not drawn begins with file and line, and that line exists."""
    for line in message.splitlines():
        if not line.startswith("  "):
            assert 1 <= int(re.match(r"policy\.toml:(\d+): ", line)[1]) <= text.count("\n") + 1  # type: ignore[index]


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda path: None, "there is no policy file"),
        (lambda path: path.mkdir(), "is a folder"),
        (lambda path: path.write_bytes(b"a = 1\nb = '\xff'"), r"p\.toml:2: byte 0xff is not UTF-8"),
        (lambda path: path.write_bytes(b"#" * 1_000_001), "larger than 1,000,000 bytes"),
        (lambda path: path.write_text("a = [" * 5000), r"p\.toml:1: "),
        (lambda path: path.write_bytes("name = 'x'".encode("utf-16")), r"p\.toml:1: "),
    ],
    ids=["missing", "folder", "not UTF-8", "huge", "nested", "UTF-16"],
)
def test_a_file_that_is_no_policy_is_refused(tmp_path: Path, write: object, said: str) -> None:
    """Whatever lies there: a line that says what it is, never a traceback of another kind."""
    path = tmp_path / "p.toml"
    write(path)  # type: ignore[operator]

    with pytest.raises(ConfigError, match=said):
        load_policy(path)


def test_the_file_is_named_as_the_user_named_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the orchestrator too: what ends in .toml is a file."""
    monkeypatch.chdir(tmp_path)
    Path("bank.toml").write_text("[tols]\n", "utf-8")

    with pytest.raises(ConfigError, match=r"^bank\.toml:1: unknown key 'tols'; did you mean 'tools'\?$"):
        Orchestrator(policy="bank.toml")
    with pytest.raises(ConfigError, match=r"there is no policy file 'bnk\.toml'"):
        Orchestrator(policy="bnk.toml")


def test_a_condition_without_its_library_names_what_to_install() -> None:
    """A file without conditions needs no such library; one with conditions says how to get it."""
    code = """
        import sys
        sys.modules["cel"] = None
        import oao_harness
        oao_harness.FilePolicy.from_text('[tools]\\nallow = ["a"]')
        try:
            oao_harness.FilePolicy.from_text('[[rule]]\\nname = "x"\\nwhen = "true"\\nthen = "deny"')
        except oao_harness.ConfigError as error:
            print(error)
    """
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(line[8:] for line in code.splitlines())],
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert done.stdout.startswith("policy.toml:3: [[rule]] 'x': 'when' is a condition")
    assert "pip install 'oao-harness[policy]'" in done.stdout


def write_anew() -> None:
    """Write what is said today into the golden file."""
    parts: list[str] = []
    for title, text, _ in cases():
        try:
            FilePolicy.from_text(text)
            said = "NOTHING WAS WRONG"
        except ConfigError as error:
            said = str(error)
        parts.append(f"### {title}\n{text}---\n{said}\n\n")
    GOLDEN.write_text("".join(parts).rstrip("\n") + "\n", "utf-8")


if __name__ == "__main__":
    write_anew()
