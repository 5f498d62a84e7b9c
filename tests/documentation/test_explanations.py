"""The pages that explain: their blocks run, what they name in the code exists, what they say of others has a source."""

from __future__ import annotations

import ast
import functools
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.console_pages import play

ROOT = Path(__file__).parents[2]
EXPLANATION = ROOT / "docs" / "explanation"
COMPARISON = ROOT / "docs" / "comparison.md"
THREATS = EXPLANATION / "threat-model.md"
PAGES = [*sorted(EXPLANATION.glob("*.md")), COMPARISON]

SCRIPTS = {
    "why-governance.md": 3,
    "how-a-call-passes.md": 1,
}
"""How many programs a page shows that run by themselves; `bypasses.md` shows pieces, and has a test of its own."""

SESSIONS = {
    "deterministic-execution.md": 5,
    "replayable-pipelines.md": 6,
}
"""How many commands a page plays in one folder."""

ASI = (
    "Agent Goal Hijack",
    "Tool Misuse & Exploitation",
    "Identity & Privilege Abuse",
    "Agentic Supply Chain Vulnerabilities",
    "Unexpected Code Execution (RCE)",
    "Memory & Context Poisoning",
    "Insecure Inter-Agent Communication",
    "Cascading Failures",
    "Human-Agent Trust Exploitation",
    "Rogue Agents",
)
"""The titles of OWASP's list for agentic applications, 2026, in their order: ASI01 to ASI10."""

_NAMED = re.compile(r"`((?:[\w.-]+/)*[\w.-]+\.py)(?:::([\w.]+))?`")


def blocks(page: Path) -> list[tuple[str, str, str]]:
    """Return language, file name (or nothing) and text of each block of a page."""
    return re.findall(r"^```(\w+)(?: file=(\S+))?\n(.*?)^```$", page.read_text(encoding="utf-8"), re.S | re.M)


@functools.cache
def names_in(file: Path) -> frozenset[str]:
    """Return the functions, classes and methods that a module defines; a method as `Class.method` and as `method`."""
    found: set[str] = set()

    def look(body: list[ast.stmt], outer: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.update({node.name, f"{outer}{node.name}"})
                if isinstance(node, ast.ClassDef):
                    look(node.body, f"{outer}{node.name}.")

    look(ast.parse(file.read_text(encoding="utf-8")).body, "")
    return frozenset(found)


def not_there(page: Path) -> list[str]:
    """Return what a page names of the code, as `path.py` or `path.py::name`, and what does not exist."""
    missing: list[str] = []
    for path, name in _NAMED.findall(page.read_text(encoding="utf-8")):
        if "/" not in path:
            continue
        file = ROOT / path
        if not file.is_file() or (name and name not in names_in(file)):
            missing.append(f"{path}::{name}" if name else path)
    return missing


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_program_of_a_page_runs(name: str, tmp_path: Path) -> None:
    """Each by itself, and a warning is an error: what a page asserts is so."""
    programs = [(language, text) for language, file, text in blocks(EXPLANATION / name) if not file]
    assert [language for language, _ in programs] == ["python"] * SCRIPTS[name]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])}
    for _, program in programs:
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", program],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stdout) == (0, ""), f"{program}\n{done.stderr}"


@pytest.mark.parametrize("name", SESSIONS)
def test_a_session_is_what_the_page_shows(name: str, tmp_path: Path) -> None:
    """Word for word but for ids, hashes and times; the crashes are real, and nothing was paid twice."""
    assert play(f"explanation/{name}", tmp_path) == SESSIONS[name]
    payments = tmp_path / "payments"
    assert payments.exists() == (name == "deterministic-execution.md")
    assert not payments.exists() or payments.read_text(encoding="utf-8") == "OA7\n"


def test_every_page_is_known() -> None:
    """A page whose blocks nobody plays would be a claim that nobody checks."""
    for page in PAGES:
        played = page.name in SCRIPTS or page.name in SESSIONS or page.name == "bypasses.md"
        shown = {language for language, _, _ in blocks(page)} - {"text", "mermaid"}
        assert played or not shown, page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_names_exists(page: Path) -> None:
    """Files, functions, classes and tests stand where the page says."""
    assert not_there(page) == []


def test_what_does_not_exist_is_found(tmp_path: Path) -> None:
    """A renamed function or test makes the test above fail."""
    page = tmp_path / "page.md"
    page.write_text(
        "`oao_harness/runtime/gate.py::call`, `oao_harness/runtime/gate.py::gone`, `tests/gone.py`", encoding="utf-8"
    )
    assert not_there(page) == ["oao_harness/runtime/gate.py::gone", "tests/gone.py"]


def test_the_way_of_a_call_names_each_step() -> None:
    """The page about one call leads through the gate, and names enough of the code to be worth its test."""
    named = _NAMED.findall((EXPLANATION / "how-a-call-passes.md").read_text(encoding="utf-8"))
    assert len({f"{path}::{name}" for path, name in named if name}) > 30


def test_the_threat_model_has_every_item_of_owasps_list() -> None:
    """Ten items with their titles, in their order: what oao does, tests that show it, and what is open."""
    text = THREATS.read_text(encoding="utf-8")
    parts = re.split(r"^### (ASI\d\d: .*)$", text.partition("\n## OWASP MCP")[0], flags=re.M)[1:]
    titles, bodies = parts[::2], parts[1::2]

    assert titles == [f"ASI{number:02}: {title}" for number, title in enumerate(ASI, 1)]
    for title, body in zip(titles, bodies, strict=True):
        assert re.match(r"\s+\*\*(Partly|Mostly not covered|Not covered)\b", body), title
        assert "\n- Open: " in body, title
        shown = [path for path, name in _NAMED.findall(body) if name.startswith("test_")]
        assert shown or "**Not covered" in body, title


def test_every_attacker_is_met_and_something_remains() -> None:
    """Each part about an attacker names tests, and says what oao does not stop."""
    attackers = THREATS.read_text(encoding="utf-8").partition("## Who attacks")[2].partition("\n## ")[0]
    parts = re.split(r"^### (.*)$", attackers, flags=re.M)[1:]

    assert len(parts) == 2 * 7
    for title, body in zip(parts[::2], parts[1::2], strict=True):
        assert [name for _, name in _NAMED.findall(body) if name], title
        assert "*Remains:*" in body, title


def test_every_claim_about_others_has_a_source() -> None:
    """Each line of the comparison links to where it was read: a public page, a package, a file of a repository."""
    text = COMPARISON.read_text(encoding="utf-8").partition("\n## Governance")[2].partition("\n## What was not")[0]
    products = re.split(r"^### (.*)$", text, flags=re.M)[1:]

    assert len(products) // 2 >= 14
    for product, body in zip(products[::2], products[1::2], strict=True):
        assert "\nRead: " in body, product
        claims = re.split(r"^- ", body, flags=re.M)[1:]
        assert len(claims) >= 2, product
        for claim in claims:
            assert re.search(r"\]\(https://[^)\s]+\)", claim), claim
        assert "**Better" in body, product


def test_a_source_in_a_repository_names_a_version() -> None:
    """A file on a branch says something else tomorrow: only a commit or a tag is a source."""
    links = re.findall(r"https://github\.com/[\w.-]+/[\w.-]+/blob/([^/\s)]+)/", COMPARISON.read_text(encoding="utf-8"))

    assert len(links) > 20
    assert [link for link in links if not re.fullmatch(r"[0-9a-f]{40}|v?\d+(\.\d+)+", link)] == []
