"""A working folder of its own, the command line in it, and modules of the user's to run."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from oao_harness import SQLiteStore
from oao_harness.cli import main

Oao = Callable[..., Result]
Write = Callable[[str, str], Path]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The working folder; what is imported from it is forgotten again."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "") or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def oao(folder: Path) -> Oao:
    """Runs `oao` in the working folder; an exception that is not a wrong exit code is the test's own."""

    def run(*args: str, width: int = 80) -> Result:
        result = CliRunner(env={"COLUMNS": str(width)}).invoke(main, args, prog_name="oao")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


@pytest.fixture
def write(folder: Path) -> Write:
    """Writes a module into the working folder."""

    def to(name: str, source: str) -> Path:
        path = folder / f"{name}.py"
        path.write_text(textwrap.dedent(source), encoding="utf-8")
        importlib.invalidate_caches()
        return path

    return to


@pytest.fixture
def agents(write: Write) -> str:
    """A module with agents of every sort; its name."""
    write(
        "shop",
        """
        import oao_harness

        @oao_harness.tool
        def find(query, limit=2):
            return [f"{query} {i}" for i in range(limit)]

        @oao_harness.tool
        def outer(query):
            return find(query)

        @oao_harness.model(name="model-x")
        def ask(prompt):
            return {"content": f"about {prompt}", "usage": {"input_tokens": 1200, "output_tokens": 34}}

        def support(task):
            find(task)
            outer(task)
            return ask(task)["content"]

        def echo(task):
            find("x")
            return {"got": task}

        def chatty(task):
            print("noise")
            return find(task)

        def broken(task):
            find(task)
            raise ValueError("no such order")

        def endless(task):
            while True:
                find(task)

        def hidden(task):
            return "nobody saw this"

        def rude(task):
            return "\\x1b[31mred\\x1b[0m"

        def make():
            return support

        class Desk:
            def invoke(self, task):
                return find(task)

        desk = Desk()
        number = 7
        """,
    )
    return "shop"


Journal = Callable[..., str]


@pytest.fixture
def journal(folder: Path) -> Journal:
    """Writes a run into the default store, record by record; returns its id."""

    def keep(
        execution_id: str, *records: dict[str, object], agent: str = "support", at: float = 1000.0, **more: object
    ) -> str:
        store = SQLiteStore(folder / ".oao" / "oao.db")
        epoch = store.claim(execution_id)
        started = {"type": "run.started", "execution_id": execution_id, "agent": agent, "task": "the task", **more}
        for seq, record in enumerate([started, *records], start=1):
            store.append(execution_id, epoch, {"v": 1, "seq": seq, "at": at + seq, **record})  # type: ignore[dict-item]
        store.close()
        return execution_id

    return keep
