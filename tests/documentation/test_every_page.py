"""What holds for every page: its blocks are played by a test, its links lead somewhere."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.console_pages import ROOT, executed, play

PAGES = sorted((ROOT / "docs").rglob("*.md"))
LINKED = [ROOT / "README.md", *PAGES, *sorted((ROOT / ".github").glob("*.md"))]
# Languages of blocks that nothing can be done with: the output of something, or a drawing.
SHOWN = {"text", "mermaid"}
_BLOCK = re.compile(r"^(`{3,})(\S*)([^\n]*)\n.*?^\1$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"!?\[(?:[^\[\]]|\[[^\[\]]*\])*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
_DEFINED = re.compile(r"^\[[^\]]+\]:\s+(\S+)$", re.MULTILINE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def languages(text: str) -> set[str]:
    """Return the languages of the blocks that a program runs or reads; not of files, which other blocks use."""
    found = {block[2] for block in _BLOCK.finditer(text) if "=" not in block[3]}
    return {one for one in found if one and not one.startswith("{")} - SHOWN


def players() -> Mapping[str, set[tuple[Path, str]]]:
    """Return for each page the modules of tests that read its blocks, and by which function: `play` or `executed`."""
    found: dict[str, set[tuple[Path, str]]] = {}
    for path in sorted((ROOT / "tests").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        if "console_pages" not in text:
            continue
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name) or not node.args:
                continue
            if node.func.id in {play.__name__, executed.__name__}:
                for page in _pages_named(node.args[0], text):
                    found.setdefault(page, set()).add((path, node.func.id))
    return found


def _pages_named(said: ast.expr, module: str) -> Iterator[str]:
    """Yield what an argument names: a text, or an f-string of which the module has the other part as a text."""
    if isinstance(said, ast.Constant):
        yield str(said.value)
    elif isinstance(said, ast.JoinedStr):
        parts = [re.escape(str(one.value)) if isinstance(one, ast.Constant) else "(.+)" for one in said.values]
        for path in PAGES:
            page = path.relative_to(ROOT / "docs").as_posix()
            named = re.fullmatch("".join(parts), page)
            if named and all(re.search(rf"[\"']{re.escape(one)}[\"']", module) for one in named.groups()):
                yield page


PLAYERS = players()


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_blocks_of_a_page_are_played(path: Path) -> None:
    """By `play`, which refuses what it cannot run; or by a module that names each language of the page."""
    page = path.relative_to(ROOT / "docs").as_posix()
    needed = languages(path.read_text(encoding="utf-8"))
    if not needed:
        return
    modules = PLAYERS.get(page, set())
    assert modules, f"{page} has blocks of {sorted(needed)}: play them, see tests/console_pages.py"
    sources = "\n".join(one.read_text(encoding="utf-8") for one, _ in modules)
    if play.__name__ in {how for _, how in modules}:
        needed -= {"python", "toml", "console", "shell"}
    assert {one for one in needed if not re.search(rf"[\"'`]{one}\b", sources)} == set()


def test_no_test_plays_a_page_that_is_not_there() -> None:
    """Pages are renamed with their tests."""
    assert {page for page in PLAYERS if not (ROOT / "docs" / page).is_file()} == set()
    assert len(PLAYERS) > 10


def without_code(text: str) -> str:
    """Return a page without its blocks and its inline code, in which nothing is a link."""
    return re.sub(r"`+[^`\n]*`+", "", _BLOCK.sub("", text))


def links(path: Path) -> list[str]:
    """Return where the links and pictures of a page lead."""
    text = without_code(path.read_text(encoding="utf-8"))
    return [*_LINK.findall(text), *_DEFINED.findall(text)]


def anchors(path: Path) -> Iterator[str]:
    """Yield the anchors of a page, as the code host and MyST make them of its headings."""
    text = _BLOCK.sub("", path.read_text(encoding="utf-8"))
    seen: dict[str, int] = {}
    for title in re.findall(r"^#{1,6} +(.+?) *#*$", text, re.MULTILINE):
        words = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title)
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        count = seen.get(slug, 0)
        seen[slug] = count + 1
        yield f"{slug}-{count}" if count else slug
    yield from re.findall(r"<a (?:id|name)=\"([^\"]+)\"", text)


@pytest.mark.parametrize("path", LINKED, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    """Files and #anchors in the repository are there; links to the outside are well-formed https."""
    wrong = []
    for link in links(path):
        parts = urlsplit(link)
        if parts.scheme or parts.netloc:
            # A page on this machine is not looked up, only shown: http://127.0.0.1:8000.
            is_local = parts.hostname in {"127.0.0.1", "localhost"}
            if not is_local and (parts.scheme != "https" or "." not in (parts.hostname or "")):
                wrong.append(link)
            continue
        target = (path.parent / parts.path).resolve() if parts.path else path
        if (
            not target.exists()
            or not target.is_relative_to(ROOT)
            or (parts.fragment and parts.fragment not in set(anchors(target)))
        ):
            wrong.append(link)
    assert wrong == []


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("## What it is", "what-it-is"),
        ("## `oao run`: how it ends", "oao-run-how-it-ends"),
        ("## Who may do what?", "who-may-do-what"),
    ],
)
def test_anchors_are_those_of_the_code_host(tmp_path: Path, text: str, slug: str) -> None:
    """Lower case, no punctuation, blanks as hyphens; of two equal ones the second has a number."""
    page = tmp_path / "page.md"
    page.write_text(f"{text}\n\n{text}\n", encoding="utf-8")
    assert list(anchors(page)) == [slug, f"{slug}-1"]


def test_a_link_in_code_is_none(tmp_path: Path) -> None:
    """And pictures and definitions are links."""
    page = tmp_path / "page.md"
    page.write_text("[a](b.md) `[c](d.md)` ![e](f.png)\n\n```text\n[g](h.md)\n```\n\n[i]: j.md\n", encoding="utf-8")
    assert links(page) == ["b.md", "f.png", "j.md"]


def test_every_page_is_in_a_table_of_contents() -> None:
    """A page that nobody can find is not there."""
    listed: set[Path] = {ROOT / "docs" / "index.md"}
    for path in PAGES:
        for block in re.findall(r"^`{3,}\{toctree\}\n(.*?)^`{3,}$", path.read_text(encoding="utf-8"), re.S | re.M):
            entries = [line.strip() for line in block.splitlines() if line.strip() and not line.startswith(":")]
            names = [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]
            listed |= {(path.parent / f"{name}.md").resolve() for name in names}
    assert [name_of(path) for path in PAGES if path not in listed and "changes" not in path.parts] == []
