"""Where the recording of a test lives, and whether that test is still there.

`recordings/<module>/<Class.>test[param].oao.json` beside the test module.
"""

from __future__ import annotations

import ast
import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal

__all__ = ["Standing", "module_of", "recording_place", "root_of", "standing", "test_of"]

_SUFFIX: Final = ".oao.json"
_FOLDER: Final = "recordings"
# Leaves room for the suffix of a temporary file; 255 bytes is the common limit of a file name.
_LONGEST: Final = 150
_UNSAFE: Final = re.compile(r"[^\w\[\].,=+@ -]", re.ASCII)


def recording_place(module: Path, nodeid: str, name: str | None = None, folder: str | Path = _FOLDER) -> Path:
    """Return the path of a test's recording.

    Args:
        module: The file of the test.
        nodeid: Of the test.
        name: A name of the user's choice, instead of the test's.
        folder: Where recordings are, from the folder of the module on.
    """
    below = nodeid.partition("::")[2].replace("::", ".")
    return _recordings_of(module, folder) / (_file_name(name or below or module.stem, nodeid) + _SUFFIX)


@lru_cache(maxsize=64)
def _recordings_of(module: Path, folder: str | Path) -> Path:
    """Return the folder of a module's recordings: made once for all of its tests, because most have no recording."""
    return module.parent / folder / module.stem


def _file_name(name: str, nodeid: str) -> str:
    """Return a name that every file system takes; with a digest of the test where making it safe lost something.

    Parameters that differ in case only would share a file where case is ignored: upper case counts as a loss too.
    """
    safe = _UNSAFE.sub("-", name)[:_LONGEST].strip(". ")
    parameters = name.partition("[")[2]
    if safe == name and parameters == parameters.lower():
        return safe
    return f"{safe}-{hashlib.blake2b(test_of(nodeid).encode('utf-8', 'surrogatepass'), digest_size=4).hexdigest()}"


def test_of(nodeid: str) -> str:
    """Return a node id without the folders before its module: they depend on where pytest was started."""
    module, colons, below = nodeid.partition("::")
    return f"{module.rpartition('/')[2]}{colons}{below}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """Whether the test of a recording is still there."""

    state: Literal["exists", "gone", "unknown"]
    why: str = ""
    """For a person, where it is gone or nobody can tell."""


def module_of(path: Path) -> Path | None:
    """Return the test module that a recording lies beside; None where it lies elsewhere."""
    folder = path.absolute().parent
    return folder.parent.parent / f"{folder.name}.py" if folder.parent.name == _FOLDER else None


def root_of(path: Path, nodeid: str) -> Path | None:
    """Return the folder that a node id counts from; None where the recording does not lie beside that module."""
    module, parts = module_of(path), Path(nodeid.partition("::")[0]).parts
    if module is None or not parts or module.parts[-len(parts) :] != parts:
        return None
    return Path(*module.parts[: -len(parts)])


def standing(path: Path, nodeid: str) -> Standing:
    """Return whether the test of a recording is still there, without running anything.

    Args:
        path: Of the recording.
        nodeid: Of the test, as the recording has it.
    """
    module, names = module_of(path), [name.partition("[")[0] for name in nodeid.partition("::")[2].split("::")]
    if not nodeid or not names[0]:
        return Standing(state="unknown", why="it is of no test")
    if module is None:
        return Standing(state="unknown", why=f"it does not lie in {_FOLDER}/MODULE beside its module")
    if module.name != Path(nodeid.partition("::")[0]).name:
        return Standing(state="unknown", why=f"it lies beside {module.name}, and is of {nodeid}")
    if not module.exists():
        return Standing(state="gone", why=f"there is no {module.name}")
    try:
        tree = ast.parse(module.read_bytes())
    except (SyntaxError, ValueError, OSError) as error:
        return Standing(state="unknown", why=f"{module.name} cannot be read: {error}")
    return _find(tree, tree.body, names, module.name)


def _find(tree: ast.Module, body: Sequence[ast.stmt], names: Sequence[str], module: str) -> Standing:
    found: ast.stmt | None = None
    for statement in _flat(body):
        if names[0] in _defined(statement):
            # A later definition replaces an earlier one.
            found = statement
    if found is None:
        if any(isinstance(one, ast.ImportFrom) and one.names[0].name == "*" for one in _flat(body)):
            return Standing(state="unknown", why=f"{module} imports *, where {names[0]} may come from")
        return Standing(state="gone", why=f"{module} has no {names[0]}")
    if len(names) == 1:
        return Standing(state="exists")
    if not isinstance(found, ast.ClassDef):
        return Standing(state="unknown", why=f"{names[0]} of {module} is defined elsewhere")
    inner = _find(tree, found.body, names[1:], f"{module}::{names[0]}")
    if inner.state == "gone" and (found.bases or found.decorator_list):
        return Standing(state="unknown", why=f"{names[1]} may be of a base class of {names[0]}")
    return inner


def _flat(body: Sequence[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield statements, those inside of `if`, `try` and `with` too."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If | ast.Try | ast.With | ast.For | ast.While):
            for inner in ast.iter_child_nodes(statement):
                if isinstance(inner, ast.stmt):
                    yield from _flat([inner])
                elif isinstance(inner, ast.ExceptHandler):
                    yield from _flat(inner.body)


def _defined(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in statement.names}
    targets = statement.targets if isinstance(statement, ast.Assign) else []
    targets = [statement.target] if isinstance(statement, ast.AnnAssign) else targets
    return {node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)}
