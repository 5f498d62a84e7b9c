"""What an agent is made of, part by part: functions, classes, constants, tools, nodes and edges, each as a short hash.

A walk over what the agent reaches, without running any of it. Of the user's own code only: what is installed as a
package is followed for what it holds, and the standard library is not looked at. It is bounded and never raises.
Imports inside of a function's body are not followed, and the values of attributes are state, no code.
"""

from __future__ import annotations

import functools
import sys
import sysconfig
import types
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from pathlib import PurePath
from typing import Any, Final, NamedTuple, cast

from oao_harness.runtime.hashing import digest, stable, text_of_annotation, texts_of_code
from oao_harness.runtime.reach import TOOL_MARK, attributes_of, function_of, items_of, names_of, references_of

__all__ = ["parts_of"]

_MOST_OBJECTS: Final = 4000
_MOST_DEPTH: Final = 24
# Through so many objects of installed packages in a row; deeper inside are their clients, locks and caches.
_MOST_FOREIGN: Final = 6
_MOST_PARTS: Final = 256
_MOST_LABELS: Final = 100
_OURS: Final = frozenset({"oao_harness", "oao_hookspecs", "pytest_oao"})
# What moves bytes: large, and holds nothing of the user's.
_TRANSPORT: Final = frozenset(
    {"aiohttp", "anthropic", "certifi", "grpc", "httpcore", "httpx", "httpx2", "openai", "requests", "urllib3"}
)
_PLAIN: Final = (str, bytes, bool, int, float, complex, type(None), tuple, frozenset)
_FIELDS: Final = ("__pydantic_fields__", "__dataclass_fields__")
# Where a foreign object keeps the function that it stands for: that function bears the name of what it stands for.
_INNER: Final = frozenset({"afunc", "bound", "coroutine", "first", "func", "last", "middle", "steps"})
_CONTAINERS: Final[tuple[type, ...]] = (dict, list, tuple, set, frozenset, types.MappingProxyType)
_FUNCTIONS: Final = (types.FunctionType, types.MethodType, staticmethod, classmethod)


def parts_of(root: object) -> dict[str, str]:
    """Return the parts that an object reaches, by name, each with 16 hex digits; equal in every process.

    A name without a blank is a function's; the others say what they name: `class m.Agent`, `constant m.PROMPT`,
    `tool pay`, `node research of the graph`, `edges of the graph`. A docstring is part of a function, because a
    tool's is what the model is told; comments, line numbers and formatting are not.

    Args:
        root: An agent or a tool.
    """
    walk = _Walk()
    walk.push(root, "", "the graph", 0, 0)
    walk.run()
    return _folded({name: _one(digests) for name, digests in sorted(walk.found.items())})


def _one(digests: set[str]) -> str:
    return next(iter(digests)) if len(digests) == 1 else digest(sorted(digests))


def _folded(parts: dict[str, str]) -> dict[str, str]:
    """Return parts few enough for a journal: where there are too many, one for each module."""
    if len(parts) <= _MOST_PARTS:
        return parts
    modules: dict[str, list[str]] = {}
    for name, found in parts.items():
        kind, _, rest = name.rpartition(" ")
        key = name if kind not in {"", "class", "constant"} else f"module {rest.partition('.')[0]}"
        modules.setdefault(key, []).append(f"{name}={found}")
    return {key: digest(texts) for key, texts in modules.items()}


class _Item(NamedTuple):
    """Something that was reached."""

    value: object
    label: str
    """What it stands for, such as a node; empty where it stands for itself."""
    name: str
    """By which it was reached."""
    depth: int
    foreign: int
    """How many objects of installed packages lie between it and the user's own."""


class _Walk:
    """Goes from object to object, the nearest first."""

    def __init__(self) -> None:
        self.found: dict[str, set[str]] = {}
        self._named: dict[str, set[str]] = {}
        """Digests of functions that are parts under another name, such as a node's."""
        self._queue: deque[_Item] = deque()
        # Kept alive, so that no id is used twice.
        self._seen: dict[tuple[int, str], object] = {}

    def push(self, value: object, label: str, name: str, depth: int, foreign: int) -> None:
        """Note an object to look at, once."""
        key = (id(value), label)
        if type(value) in _PLAIN[:7] or key in self._seen or depth > _MOST_DEPTH or foreign > _MOST_FOREIGN:
            return
        if len(self._seen) < _MOST_OBJECTS:
            self._seen[key] = value
            self._queue.append(_Item(value, label, name, depth, foreign))

    def run(self) -> None:
        """Look at everything that is reached."""
        while self._queue:
            item = self._queue.popleft()
            try:
                self._look(item)
            except Exception:  # noqa: BLE001, S112 - a user's object of any kind; it must not cost the run
                continue
        for name, digests in self._named.items():
            rest = self.found.pop(name, set()) - digests
            if rest:
                self.found[name] = rest

    def _add(self, name: str, texts: Iterable[str]) -> None:
        self.found.setdefault(name, set()).add(digest(texts))

    def _push_all(self, item: _Item, children: Iterable[tuple[str, object]], *, foreign: bool) -> None:
        for name, child in children:
            self.push(child, "", name or item.name, item.depth + 1, item.foreign + 1 if foreign else 0)

    def _look(self, item: _Item) -> None:
        value = item.value
        kind: type = type(value)
        if issubclass(kind, _FUNCTIONS):
            self._look_at_routine(item)
        elif issubclass(kind, type):
            self._look_at_class(item, cast("type", value))
        elif issubclass(kind, property):
            one = cast("property", value)
            self._push_all(item, (("", part) for part in (one.fget, one.fset, one.fdel)), foreign=False)
        elif issubclass(kind, functools.partial):
            made = cast("functools.partial[Any]", value)
            for child in (made.func, *made.args, *made.keywords.values()):
                self.push(child, item.label if child is made.func else "", item.name, item.depth + 1, item.foreign)
        elif issubclass(kind, functools.cached_property):
            self._push_all(item, [("", cast("functools.cached_property[Any]", value).func)], foreign=False)
        elif issubclass(kind, _CONTAINERS):
            for name, child in items_of(value):
                self.push(child, item.label, name or item.name, item.depth + 1, item.foreign)
            if not _is_builtin(type(value)):
                self._look_at_object(item, type(value))
        elif not issubclass(kind, types.ModuleType):
            self._look_at_object(item, type(value))

    # Functions

    def _look_at_routine(self, item: _Item) -> None:
        value = item.value
        if type(value) is types.MethodType:
            bound_to = value.__self__
            self.push(bound_to, "", item.name, item.depth + 1, item.foreign)
        layer: object = value if type(value) is types.FunctionType else cast("Any", value).__func__
        if type(layer) is not types.FunctionType:
            self.push(layer, item.label, item.name, item.depth + 1, item.foreign)
            return
        tool = vars(layer).get(TOOL_MARK)
        label = f"tool {tool}" if type(tool) is str else item.label
        wrapped = vars(layer).get("__wrapped__")
        if wrapped is not None:
            self.push(wrapped, label, item.name, item.depth + 1, item.foreign)
        is_own = _is_own_function(layer)
        if is_own and "__create_fn__" not in layer.__code__.co_qualname:
            texts = list(self._texts_of(layer))
            if wrapped is None and label:
                self._add(label, texts)
                self._named.setdefault(_name_of(layer), set()).add(digest(texts))
            else:
                self._add(_name_of(layer), texts)
        elif label and wrapped is None:
            self._add(label, [_name_of(layer)])
        self._follow(item, layer, is_own=is_own)

    def _texts_of(self, function: types.FunctionType) -> Iterator[str]:
        yield from texts_of_code(function.__code__)
        for default in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()):
            yield stable(default) if type(default) in _PLAIN else _kind_of(default)
        yield from _annotations_of(function)
        for name, value in references_of(function):
            # A name that stands for another function is another program; one that holds other values is not.
            if issubclass(type(value), (*_FUNCTIONS, type)):
                yield f"{name}={_kind_of(value)}"

    def _follow(self, item: _Item, function: types.FunctionType, *, is_own: bool) -> None:
        def reach(children: Iterable[tuple[str, object]]) -> None:
            self._push_all(item, children, foreign=not is_own)

        constants = function.__code__.co_consts
        reach(("", one) for one in constants if type(one) is types.FunctionType)
        reach(("", one) for one in (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()))
        if not is_own:
            for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=False):
                if cell != types.CellType():
                    reach([(name, cell.cell_contents)])
            return
        references = list(references_of(function))
        self._constants(str(function.__globals__.get("__name__")), references)
        reach(references)
        # `tool` of LangChain makes its schema of them; other annotations are said by their text.
        reach((name, one) for name, one in items_of(function.__annotations__) if issubclass(type(one), type))
        modules = [value for _, value in references if type(value) is types.ModuleType]
        names = names_of(function.__code__)
        for module in modules:
            if len(modules) < _MOST_DEPTH and _is_own_module(module.__name__):
                inside = [(name, vars(module)[name]) for name in names if name in vars(module)]
                self._constants(module.__name__, inside)
                reach(inside)
                modules += [one for _, one in inside if type(one) is types.ModuleType and one not in modules]

    def _constants(self, module: str, references: Iterable[tuple[str, object]]) -> None:
        for name, value in references:
            if name.isupper() and type(value) in _PLAIN:
                self._add(f"constant {module}.{name}", [stable(value)])

    # Classes and objects

    def _look_at_class(self, item: _Item, cls: type) -> None:
        for base in type.mro(cls):
            own = type.__dict__["__dict__"].__get__(base)
            if not _is_own_module(own.get("__module__")):
                continue
            body = list(own.items())
            self._add(f"class {own['__module__']}.{base.__qualname__}", _texts_of_class(base, own))
            self._push_all(item, body, foreign=False)

    def _look_at_object(self, item: _Item, cls: type) -> None:
        names = _names_of_bases(cast("Hashable", cls))
        if ("langgraph.pregel", "Pregel") in names:
            self._look_at_graph(item)
            return
        if ("oao_harness.runtime.graph", "TaskGraph") in names:
            self._look_at_task_graph(item)
            return
        is_own = _is_own_module(cls.__dict__.get("__module__"))
        if not is_own and not _is_followed(cls):
            return
        if _has_own_base(cls):
            self.push(cls, "", item.name, item.depth + 1, 0)
        label, fields = item.label, dict(attributes_of(item.value))
        if ("langchain_core.tools.base", "BaseTool") in names:
            label = f"tool {fields.get('name')}"
            told = [stable(fields.get(key)) for key in ("name", "description", "return_direct", "response_format")]
            self._add(label, ["tool", _kind_of(cls), *told])
            for name in ("_run", "_arun"):
                method = next((vars(one)[name] for one in type.mro(cls) if name in vars(one)), None)
                if method is not None and is_own:
                    self.push(method, label, name, item.depth + 1, 0)
        elif label:
            self._add(label, [_kind_of(cls)])
        for name, child in fields.items():
            inner = label if name in _INNER and not is_own else ""
            self.push(child, inner, name, item.depth + 1, 0 if is_own else item.foreign + 1)

    def _look_at_graph(self, item: _Item) -> None:
        fields = dict(attributes_of(item.value))
        whole = item.label or (item.name if item.name == "the graph" else f"the graph {item.name}")
        nodes = cast("Mapping[str, object]", fields.get("nodes") or {})
        self._add(f"edges of {whole}", _texts_of_edges(fields))
        channels = cast("Mapping[str, object]", fields.get("channels") or {})
        self._add(f"state of {whole}", sorted(f"{name}: {_kind_of(type(one))}" for name, one in channels.items()))
        for name, channel in channels.items():
            self.push(channel, "", name, item.depth + 1, 0)
        for name, node in nodes.items():
            inside = dict(attributes_of(node))
            bound = inside.pop("bound", None)
            is_graph = ("langgraph.pregel", "Pregel") in _names_of_bases(cast("Hashable", type(bound)))
            label = f"{whole} in node {name}" if is_graph else f"node {name} of {whole}"
            if name != "__start__":
                self.push(bound, label, name, item.depth + 1, 0)
            self.push(inside.get("writers"), "", name, item.depth + 1, 1)
        for source, branches in _branches_of(fields):
            for name, branch in branches:
                path = dict(zip(("path", "ends"), cast("tuple[object, object]", branch), strict=False)).get("path")
                self.push(path, f"branch {name} after {source} of {whole}", name, item.depth + 1, 0)
        for name in ("store", "checkpointer", "context_schema"):
            fields.pop(name, None)
        self.push(fields.get("config"), "", item.name, item.depth + 1, 1)

    def _look_at_task_graph(self, item: _Item) -> None:
        nodes = cast("Mapping[str, object]", dict(attributes_of(item.value)).get("_nodes") or {})
        whole = item.label or "the graph"
        edges: list[str] = []
        for name, node in nodes.items():
            inside = dict(attributes_of(node))
            edges.append(f"{name} {_names_in(inside.get('dependencies'))} {stable(inside.get('over'))}")
            task = inside.get("task")
            edges.append(stable(task) if type(task) in _PLAIN else _kind_of(task))
            # Many nodes: by the names of their functions, each once.
            label = f"node {name} of {whole}" if len(nodes) <= _MOST_LABELS else ""
            self.push(inside.get("agent"), label, name, item.depth + 1, 0)
            for key in ("task", "when"):
                self.push(inside.get(key), "", name, item.depth + 1, 0)
        self._add(f"edges of {whole}", edges)


def _texts_of_edges(fields: Mapping[str, object]) -> Iterator[str]:
    for name, node in sorted(cast("Mapping[str, object]", fields.get("nodes") or {}).items()):
        inside = dict(attributes_of(node))
        yield f"{name} {_names_in(inside.get('triggers'))} {_names_in(inside.get('channels'))}"
    for key in ("input_channels", "output_channels", "interrupt_before_nodes", "interrupt_after_nodes"):
        yield f"{key} {_names_in(fields.get(key))}"
    builder = dict(attributes_of(fields.get("builder")))
    for key in ("edges", "waiting_edges"):
        yield f"{key} {sorted(stable(one) for _, one in items_of(builder.get(key)))}"
    for source, branches in _branches_of(fields):
        for name, branch in branches:
            ends = sorted(f"{key}: {stable(end)}" for key, end in items_of(cast("tuple[object, object]", branch)[1]))
            yield f"branch {source} {name} {ends}"


def _names_in(value: object) -> str:
    """Return a list of names, or one name, as text."""
    return str([stable(one) for _, one in items_of(value)]) if not isinstance(value, str) else value


def _branches_of(fields: Mapping[str, object]) -> Iterator[tuple[str, list[tuple[str, object]]]]:
    builder = dict(attributes_of(fields.get("builder")))
    found = cast("Mapping[str, Mapping[str, object]]", builder.get("branches") or {})
    for source, branches in sorted(found.items()):
        yield source, sorted(branches.items(), key=lambda pair: pair[0])


def _texts_of_class(cls: type, body: Mapping[str, object]) -> Iterator[str]:
    yield from (_kind_of(base) for base in cls.__bases__)
    for name, value in body.items():
        if (name == "__doc__" or not name.startswith("__")) and type(value) in _PLAIN and " at 0x" not in str(value):
            yield f"{name}={stable(value)}"
    yield from _annotations_of(body.get("__annotations__"))
    for key in _FIELDS:
        for name, field in items_of(body.get(key)):
            told = dict(attributes_of(field))
            yield f"{name} {stable(told.get('default'))} {stable(told.get('description'))}"


def _annotations_of(owner: object) -> Iterator[str]:
    """Yield what annotations say: a tool's are its schema."""
    annotate = getattr(owner, "__annotate__", None) if type(owner) is types.FunctionType else None
    if type(annotate) is types.FunctionType:
        # Python 3.14 evaluates them when they are asked for: that would run code.
        yield from texts_of_code(annotate.__code__)
        return
    found = owner.__annotations__ if type(owner) is types.FunctionType else owner
    yield from (f"{name}: {text_of_annotation(one)}" for name, one in items_of(found))


def _name_of(function: types.FunctionType) -> str:
    """Return where a function is written; `__qualname__` is what `functools.wraps` copied."""
    return f"{function.__globals__.get('__name__')}.{function.__code__.co_qualname}"


def _kind_of(value: object) -> str:
    """Return the name of a function or class, or the name of an object's class."""
    function = function_of(value) if issubclass(type(value), _FUNCTIONS) else None
    if function is not None:
        return _name_of(function)
    cls = value if issubclass(type(value), type) else type(value)
    return f"{cast('type', cls).__dict__.get('__module__')}.{cast('type', cls).__qualname__}"


@functools.lru_cache(maxsize=1024)
def _names_of_bases(hashable: Hashable) -> frozenset[tuple[str, str]]:
    """Return where the bases of a class are defined: of `langgraph.pregel.main` the first two parts count too."""
    found: set[tuple[str, str]] = set()
    for base in type.mro(cast("type", hashable)):
        module = str(base.__dict__.get("__module__"))
        found |= {(module, base.__name__), (module.rpartition(".")[0], base.__name__)}
    return frozenset(found)


def _has_own_base(cls: type) -> bool:
    return any(_is_own_module(base.__dict__.get("__module__")) for base in type.mro(cls))


def _is_builtin(cls: type) -> bool:
    return cls.__dict__.get("__module__") in {None, "builtins", "collections"}


def _is_followed(cls: type) -> bool:
    """Return True for objects of installed packages, which may hold the user's functions."""
    module = str(cls.__dict__.get("__module__") or "builtins")
    top = module.partition(".")[0]
    return top not in sys.stdlib_module_names and top not in _TRANSPORT and top not in _OURS


def _is_own_function(function: types.FunctionType) -> bool:
    module = function.__globals__.get("__name__")
    return str(module).partition(".")[0] not in _OURS and _is_own_path(function.__code__.co_filename)


def _is_own_module(name: object) -> bool:
    """Return True for a module that is no part of Python, of an installed package, or of this one."""
    if type(name) is not str or name.partition(".")[0] in _OURS or name.partition(".")[0] in sys.stdlib_module_names:
        return False
    module = sys.modules.get(name)
    file = vars(module).get("__file__") if type(module) is types.ModuleType else None
    return file is None or (type(file) is str and _is_own_path(file))


@functools.lru_cache(maxsize=4096)
def _is_own_path(path: str) -> bool:
    """Return True for what the user wrote: not installed, unless it is installed to be edited, and not Python's."""
    if path.startswith("<frozen"):
        return False
    parts = PurePath(path).parts
    if "site-packages" in parts or "dist-packages" in parts:
        return False
    return not any(PurePath(path).is_relative_to(folder) for folder in _python_folders())


@functools.cache
def _python_folders() -> tuple[str, ...]:
    found: Callable[[str], str | None] = sysconfig.get_paths().get
    return tuple(folder for folder in (found("stdlib"), found("platstdlib")) if folder)
