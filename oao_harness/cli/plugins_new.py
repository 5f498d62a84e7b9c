"""`oao plugins new`: writes a package with a plugin that works, and its tests. Overwrites nothing."""

from __future__ import annotations

import keyword
import re
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

import click

from oao_harness.cli.console import console
from oao_harness.errors import UsageError

__all__ = ["command"]

# Source: https://packaging.python.org/en/latest/specifications/name-normalization/, ASCII and a letter first.
_NAME: Final = re.compile(r"[A-Za-z](?:[A-Za-z0-9._-]*[A-Za-z0-9])?")
_KINDS: Final = {
    "policy": 'It decides only where it is named: `oao run my_agents:agent "task" --policy ${name}`.',
    "listener": "It listens where the environment names a file: `${variable}=events.jsonl oao run my_agents:agent`.",
    "store": 'Its URL opens it: `oao run my_agents:agent "task" --store ${package}:`.',
    "scheduler": "Its URL opens it: `oao worker --scheduler ${package}:`.",
    "adapter": "It is asked for every agent, before the built-in ones.",
}
_RESERVED: Final = frozenset({"oao", "oao_harness", "oao_hookspecs", "pytest_oao", "test", "tests"})


@click.command("new", short_help="Write a package with a plugin that works, and its tests.")
@click.argument("name", metavar="NAME")
@click.option(
    "--kind", type=click.Choice(list(_KINDS)), default="policy", show_default=True, help="What the plugin is."
)
@click.option(
    "--into",
    metavar="FOLDER",
    type=click.Path(path_type=Path),
    default=Path(),
    help="Where the package's folder is made.",
)
def command(name: str, kind: str, into: Path) -> None:
    """Write a package named NAME into a new folder: a plugin that works, its entry point, and tests that pass.

    Nothing is overwritten and nothing installed. The tests are the conformance suite of its kind.

    \b
    Examples:
      oao plugins new quiet-hours
      oao plugins new audit-log --kind listener
    """  # noqa: D301 - click reads the control character as "do not wrap"
    package = _package_of(name)
    folder = into / name
    if folder.exists() or folder.is_symlink():
        raise UsageError(f"{str(folder)!r} exists, and nothing is overwritten; give another name, or --into a folder")
    class_name = "".join(word.capitalize() for word in package.split("_"))
    words = {
        "name": name,
        "package": package,
        "kind": kind,
        "a_kind": f"{'an' if kind[0] in 'aeiou' else 'a'} {kind}",
        "class_name": class_name,
        "variable": f"{package.upper()}_FILE",
        "case": f"test_{package}:Case" if kind == "adapter" else f"{package}:{class_name}",
    }
    words["a_kind_title"] = words["a_kind"].capitalize()
    words["use"] = Template(_KINDS[kind]).substitute(words)
    for path, text in _files(kind, package, words).items():
        target = folder / path
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("x", encoding="utf-8") as file:
                file.write(text)
        except OSError as error:
            raise UsageError(f"{str(target)!r} cannot be written: {error.strerror or error}") from error
    out = console()
    out.print(f"{folder}: {words['a_kind']} that works, with tests", markup=False, highlight=False, soft_wrap=True)
    out.print(f"next: cd {folder} && pip install -e '.[test]' && pytest", markup=False, highlight=False, soft_wrap=True)


def _package_of(name: str) -> str:
    """Return the import name of a distribution.

    Raises:
        UsageError: It cannot be the name of a package.
    """
    package = re.sub(r"[-._]+", "_", name).lower()
    if not _NAME.fullmatch(name):
        close = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-0123456789") or "my-plugin"
        raise UsageError(
            f"{name!r} cannot be the name of a package: letters, digits, and -, . or _ between them, a letter first; "
            f"for example {close!r}"
        )
    if keyword.iskeyword(package) or package in _RESERVED:
        raise UsageError(f"{name!r} cannot be the name of a package: {package!r} is taken; for example 'my-{name}'")
    return package


def _files(kind: str, package: str, words: dict[str, str]) -> dict[str, str]:
    """Return the files of a package by their paths in it."""
    source = f"src/{package}"
    templates = {
        "pyproject.toml": "pyproject.toml",
        "README.md": "README.md",
        f"{source}/__init__.py": "init.py",
        f"{source}/{kind}.py": f"{kind}.py",
        f"{source}/plugin.py": f"{kind}_plugin.py",
        f"tests/test_{package}.py": f"{kind}_tests.py",
    }
    folder = files("oao_harness.plugins") / "skeleton"
    made = {
        path: Template((folder / f"{template}.txt").read_text(encoding="utf-8")).substitute(words)
        for path, template in templates.items()
    }
    return {**made, f"{source}/py.typed": ""}
