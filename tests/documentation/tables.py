"""What the pages of docs/reference/ say of the source in tables and trees, made of the source.

    python -m tests.documentation.tables            compares, and exits with 1 where a page says otherwise
    python -m tests.documentation.tables --write    writes the tables into the pages

In a page, `<!-- NAME: begin -->` and `<!-- NAME: end -->` stand around what the function NAME below returns.
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import click
from pydantic import BaseModel

import pytest_oao.plugin
from oao_harness import errors
from oao_harness.cli import main
from oao_harness.cli.outcome import EXIT_CODES
from oao_harness.journal import questions, recording_file, records
from oao_harness.plugins.manifest import Manifest
from oao_harness.plugins.trust import TrustedKey
from oao_harness.policy import schema
from oao_harness.runtime.report import ExecutionReport
from oao_harness.server.keys import ApiKey
from oao_harness.server.settings import Settings
from oao_harness.server.tokens import TokenSettings
from oao_hookspecs import decide, observe, provide
from pytest_oao import report as pytest_report

ROOT = Path(__file__).parent.parent.parent
PAGES = ROOT / "docs" / "reference"
_MARKED = re.compile(r"(?P<begin><!-- (?P<name>\w+): begin -->\n).*?(?P<end><!-- (?P=name): end -->)", re.DOTALL)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", r"\|").replace("\n", " ") for cell in row) + " |" for row in lines
    )


def _code(text: object) -> str:
    return f"`{text}`"


def _first_sentence(doc: str | None) -> str:
    """Return the first paragraph of a docstring, on one line."""
    return " ".join(inspect.cleandoc(doc or "").partition("\n\n")[0].split())


def _module_text(module: ModuleType) -> str:
    """Return a module's docstring without its title: it describes a format."""
    return inspect.cleandoc(module.__doc__ or "").partition("\n\n")[2]


def _field_texts(cls: type) -> dict[str, str]:
    """Return the words under each field of a class, its bases first."""
    found: dict[str, str] = {}
    for one in reversed(cls.__mro__):
        if one.__module__.partition(".")[0] not in {"oao_harness", "oao_hookspecs", "pytest_oao"}:
            continue
        body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(one))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, after in zip(body.body, [*body.body[1:], None], strict=True):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
                is_text = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
                found[field.target.id] = _first_sentence(str(after.value.value)) if is_text else ""  # type: ignore[union-attr]
    return found


def _type_texts(cls: type) -> dict[str, str]:
    """Return how the type of each field is written in the source."""
    body = ast.parse(inspect.cleandoc("\n" + inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    return {
        field.target.id: ast.unparse(field.annotation)
        for field in body.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
    }


def _default(value: object) -> str:
    if isinstance(value, BaseModel) or value in (None, "", (), [], {}):
        return "-"
    return _code(str(value).lower() if isinstance(value, bool) else value)


# Each function below is named by a page.


def hooks() -> str:
    """Every hook, with its mode."""
    rows = [
        (_code(name), mode, _first_sentence(hook.__doc__))
        for mode, module in (("decide", decide), ("observe", observe), ("provide", provide))
        for name, hook in vars(module).items()
        if name.startswith("oao_")
    ]
    return _table(("hook", "mode", "what it is for"), rows)


def tree_of_errors() -> str:
    """The drawing at the head of the module."""
    found = re.search(r"```text\n.*?```", errors.__doc__ or "", re.DOTALL)
    assert found is not None
    return found[0]


def commands_of(command: click.Command, name: str = "oao") -> Iterator[tuple[str, click.Command]]:
    """Yield every command below one, by its whole name."""
    if isinstance(command, click.Group):
        context = click.Context(command)
        for one in command.list_commands(context):
            found = command.get_command(context, one)
            assert found is not None
            yield f"{name} {one}", found
            yield from commands_of(found, f"{name} {one}")


def commands() -> str:
    """Every command with its short help."""
    return _table(
        ("command", "what it does"),
        [(_code(name), one.get_short_help_str(limit=200)) for name, one in commands_of(main)],
    )


class _Parser:
    """Takes what a plugin of pytest registers."""

    def __init__(self) -> None:
        self.options: list[tuple[str, dict[str, Any]]] = []
        self.keys: list[tuple[str, str, dict[str, Any]]] = []

    def getgroup(self, *_: str) -> _Parser:
        return self

    def addoption(self, name: str, **said: Any) -> None:
        self.options.append((name, said))

    def addini(self, name: str, text: str, **said: Any) -> None:
        self.keys.append((name, text, said))


def registered() -> _Parser:
    """Return the options and ini keys of the pytest plugin."""
    parser = _Parser()
    pytest_oao.plugin.pytest_addoption(parser)  # type: ignore[arg-type]
    return parser


def pytest_options() -> str:
    """Every option of the command line of pytest."""
    rows = []
    for name, said in registered().options:
        value = said.get("metavar", "")
        shown = f"{name} [{value}]" if said.get("nargs") == "?" else f"{name}={value}" if value else name
        choices = ", ".join(said.get("choices") or ())
        rows.append((_code(shown), choices or "-", said["help"]))
    return _table(("option", "one of", "meaning"), rows)


def pytest_keys() -> str:
    """Every ini key."""
    rows = [(_code(name), said.get("type", "string"), text) for name, text, said in registered().keys]
    return _table(("key", "type", "meaning"), rows)


def fixtures() -> Iterator[tuple[str, str, str]]:
    """Yield name, scope and words of every fixture."""
    for node in ast.parse(inspect.getsource(pytest_oao.plugin)).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for mark in node.decorator_list:
            if ast.unparse(mark).startswith("pytest.fixture"):
                said = mark.keywords if isinstance(mark, ast.Call) else []
                scope = next((ast.literal_eval(one.value) for one in said if one.arg == "scope"), "function")
                yield node.name, scope, _first_sentence(ast.get_docstring(node))


def pytest_fixtures() -> str:
    """Every fixture."""
    return _table(("fixture", "scope", "what it is"), [(_code(name), *rest) for name, *rest in fixtures()])


def server_settings() -> str:
    """Every setting of the server."""
    texts, types = _field_texts(Settings), _type_texts(Settings)
    rows = [
        (
            _code(name),
            _code(types[name]),
            _default(field.get_default(call_default_factory=True)),
            _code(f"OAO_SERVER_{name.upper()}"),
            texts[name],
        )
        for name, field in Settings.model_fields.items()
    ]
    return _table(("key", "type", "default", "variable", "meaning"), rows)


def _dataclass_rows(cls: type) -> list[tuple[str, ...]]:
    texts, types = _field_texts(cls), _type_texts(cls)
    rows = []
    for one in dataclasses.fields(cls):
        default = "required" if one.default is dataclasses.MISSING else _default(one.default)
        rows.append((_code(one.name), _code(types[one.name]), default, texts[one.name]))
    return rows


def token_settings() -> str:
    """Every key of the server's settings for tokens."""
    return _table(("key", "type", "default", "meaning"), _dataclass_rows(TokenSettings))


def policy_keys() -> str:
    """Every table of a policy file with its keys."""
    tables: dict[str, type[BaseModel]] = {name: getattr(schema, name) for name in schema.__all__}
    order = ["PolicyDocument"]
    parts = []
    for name in order:
        table = tables[name]
        texts, types = _field_texts(table), _type_texts(table)
        rows = []
        for key, field in table.model_fields.items():
            default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
            inner = next((one for one in tables if re.search(rf"\b{one}\b", types[key])), "")
            if inner:
                order.append(inner)
                kind = "list of tables" if types[key].startswith("list") else "table"
                rows.append((_code(field.alias or key), kind, "-", texts[key] or f"See {_title(tables[inner])} below."))
            else:
                rows.append((_code(field.alias or key), _plain(types[key]), default, texts[key]))
        about = _first_sentence(table.__doc__).partition(": ")[2]
        about = about[:1].upper() + about[1:]
        head = "### The file\n" if name == "PolicyDocument" else f"### {_title(table)}\n\n{about}\n"
        parts.append(f"{head}\n{_table(('key', 'type', 'default', 'meaning'), rows)}")
    assert sorted(order) == sorted(tables)
    return "\n\n".join(parts)


def _title(table: type[BaseModel]) -> str:
    return _first_sentence(table.__doc__).partition(":")[0]


def _plain(annotation: str) -> str:
    """Return a type as a reader of TOML calls it."""
    text = annotation.removesuffix(" | None").replace("Stop", "Literal['deny', 'ask']")
    for name, plain in (
        ("Name", "text"),
        ("Count", "whole number"),
        ("Money|Seconds|float", "number"),
        ("str", "text"),
    ):
        text = re.sub(rf"\b({name})\b", plain, text)
    text = re.sub(r"Annotated\[(.+), Field\(.*\)\]", r"\1", text).replace("int", "whole number")
    if said := re.fullmatch(r"Literal\[(.*)\]", text):
        return " or ".join(f'`"{one.strip(chr(39))}"`' for one in said[1].split(", "))
    text = text.replace("bool", "true or false").replace("list[", "list of ").replace("dict[text, ", "table of ")
    return re.sub(r"Annotated\[|, Field\([^)]*\)", "", text).replace("]", "")


def exit_codes() -> str:
    """How a command that ran an agent ends."""
    return _table(("status of the run", "exit code"), [(status, str(code)) for status, code in EXIT_CODES.items()])


def recordings() -> str:
    """The format of a recording."""
    return _module_text(recording_file)


def journal() -> str:
    """The records of a journal."""
    return _module_text(records)


def approvals() -> str:
    """The records of questions."""
    return _module_text(questions)


def session_report() -> str:
    """The report of a session of pytest."""
    return _module_text(pytest_report)


def manifest() -> str:
    """The fields of a plugin's manifest."""
    texts = _field_texts(Manifest)
    rows = [
        ("`format`", "`oao-plugin/1`"),
        *((_code(one.name), texts[one.name]) for one in dataclasses.fields(Manifest)),
    ]
    return _table(("field", "meaning"), rows)


def trust() -> str:
    """The fields of a key in a trust file."""
    texts = _field_texts(TrustedKey)
    rows = [*((_code(one.name), texts[one.name]) for one in dataclasses.fields(TrustedKey))]
    return _table(("field", "meaning"), [*rows, ("`fingerprint`", "Of the key, for people; not read.")])


def keys() -> str:
    """The fields of a key in a server's file of keys."""
    texts, types = _field_texts(ApiKey), _type_texts(ApiKey)
    return _table(("field", "type", "meaning"), [(_code(name), _code(types[name]), texts[name]) for name in texts])


def run_report() -> str:
    """The fields of the report of a run."""
    texts, types = _field_texts(ExecutionReport), _type_texts(ExecutionReport)
    rows = [(_code(name), _code(types[name]), texts[name]) for name in ExecutionReport.model_fields]
    return _table(("field", "type", "meaning"), rows)


def generated(page: str) -> str:
    """Return a page with its generated parts as the source says them."""

    def fresh(found: re.Match[str]) -> str:
        make: Callable[[], str] = getattr(importlib.import_module(__name__), found["name"])
        return f"{found['begin']}\n{make()}\n\n{found['end']}"

    return _MARKED.sub(fresh, page)


def outdated(*, write: bool = False) -> list[str]:
    """Return the pages that say something else than the source.

    Args:
        write: True writes what the source says into them.
    """
    found = []
    for path in sorted(PAGES.glob("*.md")):
        if path.name == "frameworks.md":
            continue  # written by tests/frameworks/table.py
        text = path.read_text(encoding="utf-8")
        if (fresh := generated(text)) != text:
            found.append(path.name)
            if write:
                path.write_text(fresh, encoding="utf-8")
    return found


if __name__ == "__main__":
    pages = outdated(write="--write" in sys.argv[1:])
    print("\n".join(pages))
    sys.exit(1 if pages and "--write" not in sys.argv[1:] else 0)
