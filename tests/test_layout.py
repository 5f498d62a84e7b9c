"""The house of the architecture, as a test: who may import whom, how large a file may be, what an import costs."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "oao_hookspecs": ROOT / "hookspecs" / "oao_hookspecs",
    "oao_harness": ROOT / "oao_harness",
    "pytest_oao": ROOT / "pytest_oao",
}
FILES = sorted(path for folder in PACKAGES.values() for path in folder.rglob("*.py"))

# A room, and what it may import of ours. A room that is not listed may not exist.
ROOMS = {
    "oao_hookspecs": {"oao_hookspecs"},
    "oao_harness.errors": set(),
    "oao_harness.loading": {"oao_harness.errors"},
    "oao_harness.journal": {"oao_hookspecs", "oao_harness.errors", "oao_harness.journal"},
    "oao_harness.runtime": {
        "oao_hookspecs",
        "oao_harness.errors",
        "oao_harness.journal",
        "oao_harness.plugins",
        "oao_harness.runtime",
    },
    # Which plugins are used is asked where managers are made, so that nobody can forget it: the project is read there.
    "oao_harness.plugins": {
        "oao_hookspecs",
        "oao_harness.errors",
        "oao_harness.plugins",
        "oao_harness.policy.project",
        "oao_harness.policy.reading",
        "oao_harness.policy.registry",
    },
    "oao_harness.policy": {"oao_hookspecs", "oao_harness.errors", "oao_harness.policy"},
    "oao_harness.stores": {"oao_hookspecs", "oao_harness.errors", "oao_harness.stores"},
    "oao_harness.schedulers": {"oao_hookspecs", "oao_harness.errors", "oao_harness.schedulers"},
    "oao_harness.listeners": {
        "oao_hookspecs",
        "oao_harness.config",
        "oao_harness.errors",
        "oao_harness.journal.questions",
        "oao_harness.journal.secrets",
        "oao_harness.runtime.context",
        "oao_harness.stores.observed",
        "oao_harness.listeners",
    },
    "oao_harness.adapters": {
        "oao_hookspecs",
        "oao_harness.errors",
        "oao_harness.journal.codec",
        "oao_harness.journal.exchanges",
        "oao_harness.journal.replay",
        "oao_harness.journal.wire_replay",
        "oao_harness.runtime",
        "oao_harness.adapters",
    },
    "oao_harness.importing": {
        "oao_hookspecs",
        "oao_harness.errors",
        "oao_harness.journal",
        "oao_harness.adapters.wire",
        "oao_harness.adapters.wire_answers",
        "oao_harness.importing",
    },
    "oao_harness.fleet": {
        "oao_hookspecs",
        "oao_harness.errors",
        "oao_harness.journal",
        "oao_harness.plugins",
        "oao_harness.policy.project",
        "oao_harness.policy.reading",
        "oao_harness.policy.lines",
        "oao_harness.runtime",
        "oao_harness.loading",
        "oao_harness.config",
        "oao_harness.schedulers.cancelling",
        "oao_harness.listeners.metrics_processes",
        "oao_harness.stores.observed",
        "oao_harness.fleet",
    },
    # A face over the public machine, as the server is; it knows no framework and no SDK.
    "oao_harness.mcp": {
        "oao_hookspecs",
        "oao_harness.errors",
        "oao_harness.journal",
        "oao_harness.runtime",
        "oao_harness.adapters.governed",
        "oao_harness.mcp",
    },
    "oao_harness.wording": {
        "oao_hookspecs",
        "oao_harness.journal.timeline",
        "oao_harness.adapters.wire_answers",
        "oao_harness.wording",
    },
    "oao_harness.server": {
        "oao_hookspecs",
        "oao_harness.errors",
        "oao_harness.journal",
        "oao_harness.runtime",
        "oao_harness.fleet",
        "oao_harness.plugins",
        "oao_harness.policy",
        "oao_harness.listeners",
        "oao_harness.stores.observed",
        "oao_harness.loading",
        "oao_harness.config",
        "oao_harness.wording",
        "oao_harness.server",
    },
    "oao_harness.cli": {"oao_hookspecs", "oao_harness"},
    # Upwards, and only when the command is used: programs are a test tool, and Hypothesis is a library for tests.
    "oao_harness.cli.fuzz": {"oao_hookspecs", "oao_harness", "pytest_oao.testing.fuzz"},
    "pytest_oao.testing.fuzz": {"oao_hookspecs", "oao_harness", "pytest_oao.testing"},
    "oao_harness.__main__": {"oao_harness.cli"},
    "oao_harness": {"oao_harness"},
    "pytest_oao.plugin": {"pytest_oao"},
    "pytest_oao.testing": {"oao_hookspecs", "oao_harness", "pytest_oao.testing"},
    "pytest_oao": {"oao_hookspecs", "oao_harness", "pytest_oao"},
}


def module_of(path: Path) -> str:
    for name, folder in PACKAGES.items():
        if path.is_relative_to(folder):
            parts = [name, *path.relative_to(folder).with_suffix("").parts]
            return ".".join(part for part in parts if part != "__init__")
    raise AssertionError(path)


def room_of(module: str) -> str:
    """Return the most particular room that a module is in."""
    rooms = [room for room in ROOMS if module == room or module.startswith(room + ".")]
    return max(rooms, key=len)


def imports_of(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            assert node.module is not None
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_imports_point_downwards(path: Path) -> None:
    """A module imports only what its room may: three packages downwards, and the core no bundled plugin."""
    module = module_of(path)
    allowed = ROOMS[room_of(module)]
    # The package's face may name what is inside of it, not the other way round.
    for imported in imports_of(path):
        if imported.partition(".")[0] not in PACKAGES:
            continue
        assert any(imported == name or imported.startswith(name + ".") for name in allowed), f"{module} -> {imported}"


def test_every_folder_is_a_room() -> None:
    """No folder of the machine is outside of the table."""
    for name, folder in PACKAGES.items():
        for init in folder.rglob("__init__.py"):
            module = module_of(init)
            assert module == name or module in ROOMS or room_of(module) != name, f"{module} is no room"


def test_the_contract_needs_only_the_standard_library_and_pluggy() -> None:
    """A plugin author installs pluggy and nothing else."""
    for path in PACKAGES["oao_hookspecs"].rglob("*.py"):
        for imported in imports_of(path):
            top = imported.partition(".")[0]
            assert top in {"oao_hookspecs", "pluggy"} or top in sys.stdlib_module_names, f"{path.name} -> {imported}"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_no_file_is_longer_than_500_lines(path: Path) -> None:
    """One file, one reason to change."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 500


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_every_module_says_what_it_owns(path: Path) -> None:
    """A module begins with its docstring."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


def loaded_by(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_the_pytest_plugin_costs_nothing_until_it_is_used() -> None:
    """`import pytest_oao.plugin` loads no other module of ours."""
    loaded = loaded_by("sys.path[:0] = ['.', 'hookspecs']; import pytest_oao.plugin")
    ours = {name for name in loaded if name.partition(".")[0] in PACKAGES}
    assert ours == {"pytest_oao", "pytest_oao.plugin"}


def test_the_machine_imports_no_framework() -> None:
    """`import oao_harness` loads no agent framework, no client, no terminal library."""
    loaded = loaded_by(
        "sys.path[:0] = ['.', 'hookspecs']; import oao_harness; oao_harness.Orchestrator(policy='strict')"
    )
    tops = {name.partition(".")[0] for name in loaded}
    assert not tops & {"langchain_core", "langchain", "langgraph", "openai", "httpx", "rich", "click", "pytest"}
