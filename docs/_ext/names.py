"""Finds what a signature names: our own objects under their public names. Other libraries' objects have no page."""

from __future__ import annotations

import ast
import builtins
import importlib
import inspect
import re
import sys
import typing
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from sphinx.addnodes import pending_xref
from sphinx.errors import PycodeError
from sphinx.pycode import ModuleAnalyzer

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

OURS = ("oao_hookspecs", "oao_harness", "pytest_oao")
# Their inventories are on the internet, which a build must not need.
SHORT = frozenset({"attribute", "data", "property"})
OTHERS = frozenset({"click", "docket", "hypothesis", "langchain_core", "pluggy", "pydantic", "pytest", "redis", "rich"})

_kept: dict[str, list[str]] = {}


@cache
def imported(module: str) -> dict[str, str]:
    """Return the full name of everything that a module imports, for type checkers too, and of what it defines."""
    try:
        source = inspect.getsource(importlib.import_module(module))
    except (ImportError, OSError, TypeError):
        return {}
    found: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            found |= {one.asname or one.name: f"{node.module}.{one.name}" for one in node.names}
        elif isinstance(node, ast.Import):
            found |= {one.asname or one.name: one.name for one in node.names}
    return found


def full_name(target: str, module: str, owner: str) -> str:
    """Return what a name stands for, as the imports of a module say, or of where its owner is defined."""
    head, dot, rest = target.partition(".")
    home = home_of(f"{module}.{owner.partition('.')[0]}").rpartition(".")[0] if owner else ""
    for one in (home, module):
        if one and head in (names := imported(one)):
            return names[head] + dot + rest
    # The signature of a class does not say whose it is. Nearly all modules that import the name mean the same by it.
    found = {imported(one)[head] for one in tuple(sys.modules) if one.startswith(OURS) and head in imported(one)}
    if len(found) > 1:
        found = {one for one in found if not one.startswith(OURS)}
    return found.pop() + dot + rest if len(found) == 1 else target


def is_foreign(name: str) -> bool:
    """Return True for a name of Python's own, of a library that has no inventory here, or of a type variable."""
    module, _, attribute = name.rpartition(".")
    head = name.partition(".")[0]
    if head in OURS:
        return isinstance(getattr(importlib.import_module(module), attribute, None), typing.TypeVar)
    return head in sys.stdlib_module_names or head in OTHERS or hasattr(builtins, head) or hasattr(typing, name)


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.Element) -> nodes.Element | None:
    """Link our own names, wherever they were imported from; show the others as they are.

    A name of ours that no page documents stays a warning.
    """
    if node.get("refdomain") != "py":
        return None
    domain: Any = env.get_domain("py")
    name = node["reftarget"]
    last = name.rpartition(".")[2]
    if not is_foreign(name):
        tails = (f".{last}", f".{'.'.join(name.split('.')[-2:])}")
        found = sorted(one for one in domain.objects if one.endswith(tails) and one.startswith(OURS))
        exact = [one for one in found if one.endswith(tails[1])]
        top = [one for one in found if one.count(".") == 1]
        testing = [one for one in found if one == f"pytest_oao.testing.{last}"]
        for candidates in (exact if "." in node["reftarget"] else [], top, testing, found):
            if candidates:
                ref = domain.resolve_xref(env, node["refdoc"], app.builder, "obj", candidates[0], node, contnode)
                if ref is not None:
                    return ref
        return None
    return contnode


def name_fully(app: Sphinx, doctree: nodes.document) -> None:
    """Replace the names in signatures by full ones: two modules may mean different things by one."""
    for node in doctree.findall(pending_xref):
        if node.get("refdomain") == "py":
            node["reftarget"] = full_name(node["reftarget"], node.get("py:module") or "", node.get("py:class") or "")


def home_of(obj: str) -> str:
    """Return the name of an object of ours in the module that defines it."""
    module, _, attribute = obj.rpartition(".")
    return imported(module).get(attribute, obj) if module.startswith(OURS) else obj


def prepare(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Give an alias that a package exports the words under its definition; write fenced blocks as Sphinx reads them."""
    module, _, attribute = home_of(name).rpartition(".")
    if what == "data":
        with suppress(PycodeError):
            lines[:] = ModuleAnalyzer.for_module(module).find_attr_docs().get(("", attribute), lines)
    written: list[str] = []
    inside = False
    for line in lines:
        text = line.lstrip()
        margin = line[: len(line) - len(text)]
        if text.startswith("```"):
            inside = not inside
            written += ["", f"{margin}.. code-block:: {text[3:] or 'text'}", ""] if inside else [""]
        elif written and written[-1].strip() == "Returns:":
            # What is returned has its type in the signature: a colon in the sentence stands before no type.
            written.append(f"{margin}: {text}")
        else:
            written.append(f"   {line}" if inside and text else line)
    lines[:] = written
    if what in SHORT:
        _kept[name] = list(lines)


def restore(app: Sphinx, what: str, name: str, obj: object, options: object, lines: list[str]) -> None:
    """Take back what was made of the words on a field: "Who may: a, b" is a sentence, and `Who may` is no type."""
    if what in SHORT:
        lines[:] = _kept.pop(name, lines)


def shorten(app: Sphinx, what: str, name: str, obj: object, options: object, args: str, returned: str) -> object:
    """Leave out the fixtures of a suite's tests, which pytest fills in; write a default that is made as `...`."""
    if "Conformance.test_" in name:
        return "()", None
    return (args.replace("<factory>", "..."), returned) if "<factory>" in (args or "") else None


def leave_out(app: Sphinx, what: str, name: str, obj: object, skip: bool, options: object) -> bool | None:
    """Leave the hooks out where they are implemented: they have a page of their own."""
    return True if what == "class" and name.startswith("oao_") else None


def escape(app: Sphinx, context: object, lines: list[str]) -> None:
    """Leave the signs of a command's help as they are: `acme-*` emphasizes nothing, `send_*` links nowhere."""
    lines[:] = [re.sub(r"(?<=\w)_(?!\w)", r"\_", line).replace("*", r"\*") for line in lines]


def setup(app: Sphinx) -> dict[str, bool]:
    """Register them, around the extension that reads sections of docstrings."""
    # What autodoc imports first, it imports as type checkers see it, which models of pydantic do not survive.
    for module in ("oao_harness.adapters.langchain_memory", "pytest_oao.testing.scripted_langchain"):
        importlib.import_module(module)
    app.connect("doctree-read", name_fully)
    app.connect("missing-reference", resolve)
    app.connect("autodoc-process-signature", shorten)
    app.connect("autodoc-skip-member", leave_out)
    app.connect("autodoc-process-docstring", prepare, priority=400)
    app.connect("autodoc-process-docstring", restore, priority=600)
    for part in ("description", "options", "arguments", "epilog"):
        app.connect(f"sphinx-click-process-{part}", escape)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
