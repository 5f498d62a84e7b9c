"""A context variable set only while a producer runs: between its chunks the consumer's code runs in this context."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Iterator
from contextvars import ContextVar
from typing import TypeVar

__all__ = ["each_within", "each_within_async"]

T = TypeVar("T")
V = TypeVar("V")


def each_within(variable: ContextVar[V], value: V, make: Callable[[], Iterable[T]]) -> Generator[T, None, None]:
    """Yield what a producer yields; it is made, advanced and closed with the variable set.

    Args:
        variable: Set around each step, never across a `yield`.
        value: What it is set to.
        make: Makes the producer.
    """
    source: Iterator[T] | None = None
    try:
        while True:
            token = variable.set(value)
            try:
                if source is None:
                    source = iter(make())
                chunk = next(source)
            except StopIteration:
                return
            finally:
                variable.reset(token)
            yield chunk
    finally:
        close = getattr(source, "close", None)
        if close is not None:
            close()


async def each_within_async(
    variable: ContextVar[V], value: V, make: Callable[[], AsyncIterator[T]]
) -> AsyncGenerator[T, None]:
    """Yield what an async producer yields; see `each_within`."""
    source: AsyncIterator[T] | None = None
    try:
        while True:
            token = variable.set(value)
            try:
                if source is None:
                    source = aiter(make())
                chunk = await anext(source)
            except StopAsyncIteration:
                return
            finally:
                variable.reset(token)
            yield chunk
    finally:
        close = getattr(source, "aclose", None)
        if close is not None:
            await close()
