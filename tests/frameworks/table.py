"""The table of docs/reference/frameworks.md, made of what the suites said in each framework's environment.

    python tests/frameworks/table.py results/*.xml            compares, and exits with 1 where the page says otherwise
    python tests/frameworks/table.py --write results/*.xml    writes the table into the page

The files are those of `pytest --junitxml`. Nothing in a cell is written by hand.
"""

from __future__ import annotations

import sys
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
PAGE = ROOT / "docs" / "reference" / "frameworks.md"
BEGIN, END = "<!-- table: begin -->", "<!-- table: end -->"

# The tests of pytest_oao.testing.adapter, as people say it.
COLUMNS: Mapping[str, str] = {
    "governed": "counted once",
    "denied": "denied before the body",
    "batch": "batch judged whole",
    "swallowed": "denial not caught away",
    "replayed": "replayed, server down",
    "approval": "approval",
    "budget": "budget",
    "modified": "arguments changed",
    "undisturbed": "errors as before",
    "traced": "trace",
}
# The extra, and what people call it.
FRAMEWORKS: Mapping[str, str] = {
    "openai-agents": "OpenAI Agents SDK",
    "pydantic-ai": "Pydantic AI",
    "crewai": "CrewAI",
    "llama-index": "LlamaIndex",
    "agent-framework": "Microsoft Agent Framework",
    "autogen": "AutoGen",
    "google-adk": "Google ADK",
    "smolagents": "smolagents",
    "agno": "agno",
    "strands": "Strands",
    "openai": "`openai` client",
    "anthropic": "`anthropic` client",
}


@dataclass
class Cell:
    """What the tests of one column said of one framework."""

    passed: set[str] = field(default_factory=set)
    gaps: dict[str, str] = field(default_factory=dict)
    """By way: why it cannot be."""
    failed: set[str] = field(default_factory=set)


Row = dict[str, Cell]


def read(files: Iterable[Path]) -> dict[str, Row]:
    """Return the rows by extra.

    Raises:
        SystemExit: A test failed, or a file is of no framework that is known.
    """
    rows: dict[str, Row] = {}
    for file in files:
        for case in ElementTree.parse(file).iter("testcase"):
            module = str(case.get("classname")).split(".test_")[-1].partition(".")[0].replace("_", "-")
            extra = module.removesuffix("-more").removesuffix("-client")
            if extra not in FRAMEWORKS:
                raise SystemExit(f"{file}: {case.get('classname')} is of no framework that the table knows")
            name, _, way = str(case.get("name")).removeprefix("test_").rstrip("]").partition("[")
            if name not in COLUMNS:
                continue
            cell = rows.setdefault(extra, {}).setdefault(name, Cell())
            skipped = case.find("skipped")
            if case.find("failure") is not None or case.find("error") is not None:
                cell.failed.add(way)
            elif skipped is None:
                cell.passed.add(way)
            elif skipped.get("type") == "pytest.xfail":
                cell.gaps[way] = str(skipped.get("message"))
    broken = [f"{extra}: {name} [{way}]" for extra, row in rows.items() for name in row for way in row[name].failed]
    if broken:
        raise SystemExit("these fail:\n  " + "\n  ".join(broken))
    return rows


def versions() -> dict[str, str]:
    """Return the lowest version that was tried, by extra."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    return {extra: extras[extra][0].partition(">=")[2].partition(",")[0] for extra in FRAMEWORKS if extra in extras}


def table(rows: Mapping[str, Row]) -> str:
    """Return the table as Markdown, with its notes."""
    notes: list[str] = []
    oldest = versions()
    lines = [
        f"| framework | extra | from | asked | {' | '.join(COLUMNS.values())} |",
        f"|{'---|' * (4 + len(COLUMNS))}",
    ]
    for extra, label in FRAMEWORKS.items():
        row = rows.get(extra, {})
        ways = [way for way in ("sync", "async", "stream") if any(way in (c.passed | {*c.gaps}) for c in row.values())]
        cells = [_cell(row.get(name, Cell()), ways, notes) for name in COLUMNS]
        lines.append(f"| {label} | `{extra}` | {oldest.get(extra, '')} | {', '.join(ways)} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *[f"{number}. {note}" for number, note in enumerate(notes, 1)]]).rstrip() + "\n"


def _cell(cell: Cell, ways: Sequence[str], notes: list[str]) -> str:
    if not cell.passed and not cell.gaps:
        return "?"
    said = ", ".join(way for way in ways if way in cell.passed) if cell.gaps else "✓"
    for why in sorted(set(cell.gaps.values())):
        if why not in notes:
            notes.append(why)
        said += f" [{notes.index(why) + 1}]"
    return said.strip()


def main(args: Sequence[str]) -> int:
    """Compare the table with the page, or write it there."""
    made = table(read(Path(arg) for arg in args if arg != "--write"))
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    shown, _, after = rest.partition(END)
    if "--write" in args:
        PAGE.write_text(f"{before}{BEGIN}\n\n{made}\n{END}{after}", encoding="utf-8")
        return 0
    if shown.strip() == made.strip():
        print(f"{PAGE.relative_to(ROOT)} says what the tests said")
        return 0
    print(f"{PAGE.relative_to(ROOT)} is not what the tests say; write it with --write. They say:\n\n{made}")
    return 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
