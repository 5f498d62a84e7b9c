"""`oao hooks`: the contract for plugin authors, read from the hookspecs themselves."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import typing
from collections.abc import Callable, Mapping
from types import FunctionType, ModuleType
from typing import Any, Final

import click
from rich.console import Console
from rich.text import Text

import oao_hookspecs
from oao_harness.cli.console import console, print_paragraph
from oao_harness.errors import UsageError
from oao_hookspecs import decide, observe, provide

__all__ = ["command"]

_MODES: Final[Mapping[str, ModuleType]] = {"decide": decide, "observe": observe, "provide": provide}


@click.command("hooks", short_help="Print every hook that a plugin can implement.")
@click.argument("name", required=False)
def command(name: str | None) -> None:
    """Print every hook that a plugin can implement, or one of them.

    The mode says when a hook is called, and what an error in it means. With a name: also how it is written, and the
    fields of what it is given and answers with.

    \b
    Examples:
      oao hooks
      oao hooks oao_decide_tool_call
    """  # noqa: D301 - click reads the control character as "do not wrap"
    on = console()
    if name is not None:
        mode, hook = _find(name)
        _print_hook(on, hook, mode)
        _print_use(on, hook)
        return
    for number, (mode, module) in enumerate(_MODES.items()):
        if number:
            on.print()
        on.rule(Text(mode, style="bold"), style="dim", align="left")
        print_paragraph(on, Text(_unwrapped(inspect.getdoc(module) or ""), style="dim"), indent=0)
        for hook in _hooks(module).values():
            on.print()
            _print_hook(on, hook, mode)


def _hooks(module: ModuleType) -> dict[str, FunctionType]:
    """Return the hookspecs of a module, in the order of its file."""
    return {
        name: found
        for name, found in vars(module).items()
        if name.startswith("oao_") and isinstance(found, FunctionType)
    }


def _find(name: str) -> tuple[str, FunctionType]:
    known = {hook: (mode, found) for mode, module in _MODES.items() for hook, found in _hooks(module).items()}
    for candidate in (name, f"oao_{name}"):
        if candidate in known:
            return known[candidate]
    # All hooks share a prefix, and so are alike to any word: compare what is after it.
    words = {hook.removeprefix("oao_"): hook for hook in known}
    close = [words[word] for word in difflib.get_close_matches(name.removeprefix("oao_"), words, n=3)]
    hint = f"did you mean {', '.join(close)}?" if close else "`oao hooks` lists them"
    raise UsageError(f"there is no hook {name!r}; {hint}")


def _print_hook(on: Console, hook: FunctionType, mode: str) -> None:
    head, returns = _signature(hook)
    apart = Text("\n    ") if head.cell_len + returns.cell_len >= on.width else Text(" ")
    on.print(head + apart + returns, soft_wrap=True)
    first = ", the first answer wins" if getattr(hook, "oao_spec", {}).get("firstresult") else ""
    doc = _unwrapped(inspect.getdoc(hook) or "").replace(f"Mode: {mode}.", f"Mode: {mode}{first}.")
    print_paragraph(on, doc, indent=4)


def _print_use(on: Console, hook: FunctionType) -> None:
    """Print how a hook is written, and what it is given and answers with, as far as the contract has a class for it."""
    signature = inspect.signature(hook)
    answers = _classes(str(signature.return_annotation))
    arguments = ", ".join(("self", *signature.parameters))
    imports = ", ".join((*(one.__name__ for one in answers), "hookimpl"))
    lines = [
        f"from oao_hookspecs import {imports}",
        "",
        "class Mine:",
        "    @hookimpl",
        f"    def {hook.__name__}({arguments}): ...",
    ]
    on.print()
    print_paragraph(on, Text("\n".join(lines), style="cyan"), indent=4)
    given = [one for name in signature.parameters.values() for one in _classes(str(name.annotation))]
    for one in dict.fromkeys((*answers, *given)):
        on.print()
        print_paragraph(on, Text.assemble((one.__name__, "bold"), f": {_first_line(one)}"), indent=4)
        fields = [
            f"{field.name}: {field.type}" + ("" if _is_needed(field) else " (may be left out)")
            for field in dataclasses.fields(one)
            if field.name != "verdict"
        ]
        print_paragraph(on, Text("\n".join(f"  {field}" for field in fields), style="dim"), indent=4)


def _classes(annotation: str) -> list[type[Any]]:
    """Return the classes of values of the contract that an annotation names, aliases taken apart."""
    found: list[type[Any]] = []
    for word in re.findall(r"\w+", annotation):
        named = getattr(oao_hookspecs, word, None)
        for one in typing.get_args(named) or (named,):
            if isinstance(one, type) and dataclasses.is_dataclass(one) and one not in found:
                found.append(one)
    return found


def _first_line(of: type[Any]) -> str:
    return (inspect.getdoc(of) or "").partition("\n")[0]


def _is_needed(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


def _signature(hook: Callable[..., object]) -> tuple[Text, Text]:
    """Return what a hook takes and what it returns."""
    signature = inspect.signature(hook)
    line = Text.assemble((hook.__name__, "bold cyan"), "(")
    for number, parameter in enumerate(signature.parameters.values()):
        line.append(", " if number else "")
        line.append_text(Text.assemble(parameter.name, (f": {parameter.annotation}", "dim")))
    return line.append(")"), Text(f"-> {signature.return_annotation}", style="dim")


def _unwrapped(doc: str) -> str:
    """Join the lines of each paragraph, so that they can be wrapped to the console; indented lines stay apart."""
    lines: list[str] = []
    for line in doc.split("\n"):
        joins = bool(lines) and bool(lines[-1]) and bool(line) and not line.startswith(" ") and lines[-1][-1] != ":"
        if joins and not lines[-1].startswith(" "):
            lines[-1] = f"{lines[-1]} {line}"
        else:
            lines.append(line)
    return "\n".join(lines)
