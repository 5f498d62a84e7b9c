"""Class patches: how the methods that leave a foreign framework pass the gate. Knows no framework.

A patched method is inert outside of runs and keeps its signature. Which instance is being governed is marked in a
context variable, so that `super()._run()` and `_agenerate -> _generate` are one call; the mark is set around each
`next()` of a generator and never across a `yield`, and it is cleared where the user's own code begins.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator, Mapping
from contextlib import aclosing, closing
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, Protocol, cast
from weakref import WeakSet

from oao_harness.adapters.requiring import require
from oao_harness.runtime import gate
from oao_harness.runtime.context import current, is_possible
from oao_harness.runtime.judging import require_unchanged
from oao_harness.runtime.overrides import is_swap
from oao_harness.runtime.within import each_within, each_within_async
from oao_hookspecs import Call, Json

__all__ = [
    "Kind",
    "Leaf",
    "Mark",
    "Prepare",
    "Request",
    "StreamShape",
    "cleared",
    "cleared_function",
    "closing_streams",
    "govern",
    "is_wrapper",
    "made_here",
    "mark",
    "patching",
    "require",
    "set_method",
    "unmasked",
]

Kind = Literal["sync", "async", "stream", "astream"]
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class StreamShape(gate.Shape, Protocol):
    """How the results of a leaf that may stream become JSON and come back."""

    def snapshot(self, chunk: Any) -> Json:
        """Return a chunk as JSON before its consumer can change it."""
        ...

    def is_last(self, chunk: Any) -> bool:
        """Return True where the consumer may stop at this chunk, although the producer has not returned."""
        ...

    def join(self, snapshots: list[Json], chunks: list[Any], *, partial: bool) -> gate.Answer:
        """Return the answer of a stream.

        Args:
            snapshots: What its chunks were before their consumer got them.
            chunks: The chunks.
            partial: True where the consumer left before the producer was through.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A framework's call on its way to the gate."""

    call: Call
    shape: gate.Shape
    """A `StreamShape` where the leaf streams."""
    arguments: Callable[[Call], Arguments]
    """The method's arguments for a call that a policy modified."""
    swap: Callable[[Call], tuple[Any, Arguments]] | None = None
    """The instance and the arguments that ask another model the same."""


class Prepare(Protocol):
    """Turns a framework's call into a request."""

    def __call__(
        self, instance: Any, function: Callable[..., Any], arguments: Arguments, call_id: str | None, /
    ) -> Request:
        """Return the request.

        Args:
            instance: Whose method was called.
            function: The method as it was written.
            arguments: Positional and named arguments, without the instance.
            call_id: The id that a model gave to the call, where the framework said so.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaf:
    """A method that leaves the framework."""

    name: str
    kind: Kind
    prepare: Prepare


@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """Whose method is running in this context."""

    instance: object
    entered: tuple[object, ...] = ()
    """The methods on the way; empty where the call has not passed the gate yet."""
    is_entry: bool = False
    """True while only a public entry has passed the gate, which may still hand on to the framework's own."""
    call_id: str | None = None

    def covers(self, instance: object, function: object) -> bool:
        """Return True where a method belongs to the call that is being made; False for a recursion."""
        return self.instance is instance and bool(self.entered) and function not in self.entered

    def of(self, instance: object) -> Mark:
        """Return the mark for another instance that is to be run in place of this one."""
        return self if instance is self.instance else replace(self, instance=instance)

    def entering(self, function: object, is_entry: bool = False) -> Mark:
        """Return the mark for inside of one more method of the same call."""
        return Mark(self.instance, (*self.entered, function), self.is_entry and is_entry)


mark: Final[ContextVar[Mark | None]] = ContextVar("oao_mark", default=None)
_Opened = Generator[Any, None, None] | AsyncGenerator[Any, None]
_opened: Final[ContextVar[list[_Opened] | None]] = ContextVar("oao_opened", default=None)

patching: Final = threading.RLock()
"""Held while a class is patched."""
# Process-wide, because the patched classes are. Not an attribute: `functools.wraps` of a user would copy it.
_wrappers: Final[WeakSet[Callable[..., Any]]] = WeakSet()


def govern(function: Callable[..., Any], kind: Kind, prepare: Prepare, *, is_entry: bool = False) -> Callable[..., Any]:
    """Return a method like `function` whose calls pass the gate inside of a run.

    Args:
        function: The method as it was written.
        kind: How it returns.
        prepare: Turns a call into a request.
        is_entry: True for a public entry of the framework that a user overrode.
    """
    makers = {"sync": _govern_sync, "async": _govern_async, "stream": _govern_stream, "astream": _govern_astream}
    wrapper = functools.wraps(function)(makers[kind](function, prepare, is_entry))
    _wrappers.add(wrapper)
    return wrapper


def _govern_sync(function: Callable[..., Any], prepare: Prepare, is_entry: bool) -> Callable[..., Any]:
    def wrapper(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        outer = mark.get()
        if outer is not None and outer.covers(self, function):
            return _marked(outer.entering(function, is_entry), function, self, args, kwargs)
        run = current()
        if run is None:
            return function(self, *args, **kwargs)
        request = prepare(self, function, (args, kwargs), _call_id(outer, self))
        inner = Mark(self, (function,), is_entry)

        def act(judged: Call) -> Any:
            one, (positional, named) = _judged(
                request, judged, lambda: prepare(self, function, (args, kwargs), None), (self, (args, kwargs))
            )
            return _marked(inner.of(one), function, one, positional, named)

        return gate.call(run, request.call, act, request.shape)

    return wrapper


def _govern_async(function: Callable[..., Any], prepare: Prepare, is_entry: bool) -> Callable[..., Any]:
    async def wrapper(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        outer = mark.get()
        if outer is not None and outer.covers(self, function):
            return await _marked_async(outer.entering(function, is_entry), function, self, args, kwargs)
        run = current()
        if run is None:
            return await function(self, *args, **kwargs)
        request = prepare(self, function, (args, kwargs), _call_id(outer, self))
        inner = Mark(self, (function,), is_entry)

        async def act(judged: Call) -> Any:
            one, (positional, named) = _judged(
                request, judged, lambda: prepare(self, function, (args, kwargs), None), (self, (args, kwargs))
            )
            return await _marked_async(inner.of(one), function, one, positional, named)

        return await gate.acall(run, request.call, act, request.shape)

    return wrapper


def _govern_stream(function: Callable[..., Any], prepare: Prepare, _is_entry: bool) -> Callable[..., Any]:
    def wrapper(self: Any, /, *args: Any, **kwargs: Any) -> Iterator[Any]:
        outer = mark.get()
        if outer is not None and outer.covers(self, function):
            yield from each_within(mark, outer.entering(function), lambda: function(self, *args, **kwargs))
            return
        run = current()
        if run is None:
            yield from function(self, *args, **kwargs)
            return
        request = prepare(self, function, (args, kwargs), None)
        shape = cast("StreamShape", request.shape)
        joined = _PieceShape(shape)
        inner = Mark(self, (function,))

        def act(judged: Call) -> Iterator[_Piece]:
            one, (positional, named) = _judged(
                request, judged, lambda: prepare(self, function, (args, kwargs), None), (self, (args, kwargs))
            )
            for chunk in each_within(mark, inner.of(one), lambda: function(one, *positional, **named)):
                yield _Piece(chunk, shape.snapshot(chunk))
            joined.is_whole = True

        with closing(gate.stream(run, request.call, act, joined)) as pieces:
            opened = _opened.get()
            if opened is not None:
                opened.append(pieces)
            for piece in pieces:
                # The rest is taken first: it is what ends the call, and who has seen the last chunk may not come back.
                for taken in (piece, *pieces) if shape.is_last(piece.chunk) else (piece,):
                    yield taken.chunk

    return wrapper


def _govern_astream(function: Callable[..., Any], prepare: Prepare, _is_entry: bool) -> Callable[..., Any]:
    async def wrapper(self: Any, /, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        outer = mark.get()
        if outer is not None and outer.covers(self, function):
            async with aclosing(
                each_within_async(mark, outer.entering(function), lambda: function(self, *args, **kwargs))
            ) as chunks:
                async for chunk in chunks:
                    yield chunk
            return
        run = current()
        if run is None:
            async for chunk in function(self, *args, **kwargs):
                yield chunk
            return
        request = prepare(self, function, (args, kwargs), None)
        shape = cast("StreamShape", request.shape)
        joined = _PieceShape(shape)
        inner = Mark(self, (function,))

        async def act(judged: Call) -> AsyncIterator[_Piece]:
            one, (positional, named) = _judged(
                request, judged, lambda: prepare(self, function, (args, kwargs), None), (self, (args, kwargs))
            )
            async with aclosing(
                each_within_async(mark, inner.of(one), lambda: function(one, *positional, **named))
            ) as chunks:
                async for chunk in chunks:
                    yield _Piece(chunk, shape.snapshot(chunk))
            joined.is_whole = True

        async with aclosing(gate.astream(run, request.call, act, joined)) as pieces:
            opened = _opened.get()
            if opened is not None:
                opened.append(pieces)
            async for piece in pieces:
                rest = [later async for later in pieces] if shape.is_last(piece.chunk) else []
                for taken in (piece, *rest):
                    yield taken.chunk

    return wrapper


def _judged(
    request: Request, judged: Call, again: Callable[[], Request], given: tuple[Any, Arguments]
) -> tuple[Any, Arguments]:
    if judged is not request.call:
        swaps = request.swap is not None and is_swap(judged, request.call)
        return request.swap(judged) if request.swap is not None and swaps else (given[0], request.arguments(judged))
    if judged.kind == "tool":
        # Not for models: to describe a conversation a second time costs as much as all the rest of the gate.
        require_unchanged(judged, lambda: again().call)
    return given


def _call_id(outer: Mark | None, instance: object) -> str | None:
    return outer.call_id if outer is not None and outer.instance is instance else None


@dataclass(frozen=True, slots=True)
class _Piece:
    """A chunk, and what it was before its consumer got it: LangChain writes ids and metadata into chunks."""

    chunk: Any
    snapshot: Json


class _PieceShape:
    """A stream's shape for the gate, which sees pieces."""

    __slots__ = ("_shape", "is_whole")

    def __init__(self, shape: StreamShape) -> None:
        self._shape = shape
        self.is_whole = False
        """True once the producer is through."""

    def dump(self, value: list[_Piece]) -> gate.Answer:
        snapshots, chunks = [piece.snapshot for piece in value], [piece.chunk for piece in value]
        return self._shape.join(snapshots, chunks, partial=not self.is_whole)

    def load(self, value: Json) -> object:
        return self._shape.load(value)

    def load_chunks(self, value: Json) -> Iterable[_Piece]:
        for chunk in self._shape.load_chunks(value):
            yield _Piece(chunk, self._shape.snapshot(chunk))


def _marked(
    inner: Mark | None, function: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    token = mark.set(inner)
    try:
        return function(instance, *args, **kwargs)
    finally:
        mark.reset(token)


async def _marked_async(
    inner: Mark | None, function: Callable[..., Any], instance: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Any:
    token = mark.set(inner)
    try:
        return await function(instance, *args, **kwargs)
    finally:
        mark.reset(token)


def cleared(function: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    """Return a public entry like `function` inside of which the same instance is governed again.

    Else a tool whose body calls itself, or a callback that calls the model it listens to, would escape.
    """

    def clears(instance: object) -> bool:
        outer = mark.get()
        return outer is not None and outer.instance is instance

    def wrapper(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not clears(self):
            return function(self, *args, **kwargs)
        if kind == "sync":
            return _marked(None, function, self, args, kwargs)
        if kind == "async":
            return _marked_async(None, function, self, args, kwargs)
        if kind == "stream":
            return each_within(mark, None, lambda: function(self, *args, **kwargs))
        return each_within_async(mark, None, lambda: function(self, *args, **kwargs))

    functools.update_wrapper(wrapper, function)
    _wrappers.add(wrapper)
    return wrapper


def cleared_function(function: Callable[..., Any], kind: Kind) -> Callable[..., Any]:
    """Return a method that calls a function of the user's, which is no method: what that calls is governed anew."""

    async def amethod(_owner: object, *args: Any, **kwargs: Any) -> Any:
        token = mark.set(None)
        try:
            return await function(*args, **kwargs)
        finally:
            mark.reset(token)

    def method(_owner: object, *args: Any, **kwargs: Any) -> Any:
        if kind == "stream":
            return each_within(mark, None, lambda: function(*args, **kwargs))
        if kind == "astream":
            return each_within_async(mark, None, lambda: function(*args, **kwargs))
        token = mark.set(None)
        try:
            return function(*args, **kwargs)
        finally:
            mark.reset(token)

    return functools.wraps(function)(amethod if kind == "async" else method)


def closing_streams(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an async public stream like `function` that closes the governed streams in it when it is closed itself.

    LangChain leaves that to the garbage collector, and so to a later turn of the loop: after what comes next.
    """

    async def stream(make: Callable[[], AsyncIterator[Any]]) -> AsyncIterator[Any]:
        opened: list[_Opened] = []
        async with aclosing(each_within_async(_opened, opened, make)) as chunks:
            try:
                async for chunk in chunks:
                    yield chunk
            finally:
                # First: LangChain tells its callbacks about the end, and they may take their time.
                for inner in opened:
                    if isinstance(inner, Generator):
                        inner.close()  # an async stream of LangChain's may read a sync one in threads
                    else:
                        await inner.aclose()

    @functools.wraps(function)
    def wrapper(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        if not is_possible():
            return function(self, *args, **kwargs)
        return stream(lambda: function(self, *args, **kwargs))

    _wrappers.add(wrapper)
    return wrapper


def unmasked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return an async public entry like `function` that lets a halt through where the framework stumbles over it.

    LangChain's `agenerate` gathers exceptions as values and takes every one that is no `Exception` for a result.
    """

    @functools.wraps(function)
    async def wrapper(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        try:
            return await function(self, *args, **kwargs)
        except Exception:
            run = current() if is_possible() else None
            if run is not None and run.halted is not None:
                raise run.halted from None
            raise

    _wrappers.add(wrapper)
    return wrapper


def is_wrapper(function: object) -> bool:
    """Return True for a function that was made here."""
    return function in _wrappers


def made_here(function: Callable[..., Any]) -> None:
    """Remember a function as one that is not to be wrapped once more."""
    _wrappers.add(function)


def set_method(cls: type, name: str, wrap: Callable[[Callable[..., Any]], Callable[..., Any]]) -> None:
    """Replace a method of a class by a wrapper of it; once, however often it is asked."""
    with patching:
        function = inspect.getattr_static(cls, name)
        if function not in _wrappers:
            wrapper = wrap(function)
            _wrappers.add(wrapper)
            type.__setattr__(cls, name, wrapper)
