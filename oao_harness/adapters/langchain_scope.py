"""What the LangChain patches share: where in the graph a call is made, and caches that would hide it."""

from __future__ import annotations

from typing import Any

from langchain_core.runnables.config import var_child_runnable_config

from oao_harness.runtime.context import is_possible

__all__ = ["ReadGuard", "guard_cache", "scope"]


def scope() -> str:
    """Return the path of LangGraph nodes around this call, the same in every run; empty outside of a graph."""
    config = var_child_runnable_config.get()
    if not config:
        return ""
    namespace = (config.get("metadata") or {}).get("langgraph_checkpoint_ns")
    if not isinstance(namespace, str):
        return ""
    # Each part is `node:task id`; the task id is random.
    return "|".join(part.partition(":")[0] for part in namespace.split("|"))


class ReadGuard:
    """A field of a pydantic model that is read through here; it wins over the instance, also one made before.

    The class has no value for it, as it had none before: pydantic keeps defaults elsewhere.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is None:
            raise AttributeError(self._name)
        try:
            value = instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None
        return self.guarded(instance, value)

    def __set__(self, instance: Any, value: object) -> None:
        instance.__dict__[self._name] = value

    def __delete__(self, instance: Any) -> None:
        del instance.__dict__[self._name]

    def guarded(self, instance: Any, value: Any) -> Any:
        """Return what a reader gets."""
        raise NotImplementedError


class _CacheGuard(ReadGuard):
    """`model.cache`: False inside of a run, because a cache hit is a call that nobody judged, counted or wrote.

    False also switches off the cache of `set_llm_cache`. The run's journal is what replays answers.
    """

    __slots__ = ()

    def guarded(self, instance: Any, value: Any) -> Any:
        return False if is_possible() else value


def guard_cache(cls: type) -> None:
    """Switch off the LLM caches of a base class inside of runs."""
    if not isinstance(vars(cls).get("cache"), _CacheGuard):
        type.__setattr__(cls, "cache", _CacheGuard("cache"))
