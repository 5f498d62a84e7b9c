"""What hooks are handed: JSON that refuses to be changed, so that nobody alters what is judged, run or journaled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NoReturn, cast

from oao_hookspecs import Call, Json, ModelCall, Outcome, ProposedCall, ToolCall

__all__ = ["freeze", "freeze_call", "freeze_outcome"]


def _refuse(_self: object, *_args: object, **_kwargs: object) -> NoReturn:
    raise TypeError("what a hook is handed cannot be changed; a policy changes a call by returning Modify(call=...)")


class _FrozenDict(dict[str, Json]):
    """A dict, for `json` and `isinstance`; copies of it are plain."""

    __slots__ = ()
    if not TYPE_CHECKING:
        __setitem__ = __delitem__ = __ior__ = _refuse
        clear = pop = popitem = setdefault = update = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)


class _FrozenList(list[Json]):
    """A list, for `json` and `isinstance`; copies of it are plain."""

    __slots__ = ()
    if not TYPE_CHECKING:
        __setitem__ = __delitem__ = __iadd__ = __imul__ = _refuse
        append = clear = extend = insert = pop = remove = reverse = sort = _refuse

    def __reduce__(self) -> tuple[Any, ...]:
        return list, (list(self),)


_UNCHANGING: Final = frozenset({str, int, float, bool, type(None), _FrozenDict, _FrozenList})


def freeze(value: Json) -> Json:
    """Return a copy of a JSON value in which nothing can be changed; the value itself where it is one already."""
    if type(value) in _UNCHANGING:
        return value
    if isinstance(value, Mapping):
        return _FrozenDict({key: freeze(item) for key, item in value.items()})
    if isinstance(value, tuple):
        return tuple(freeze(item) for item in value)
    return _FrozenList(freeze(item) for item in value) if isinstance(value, list) else value


def freeze_call(call: Call, *, unique: str | None = None) -> Call:
    """Return a call that is frozen to its depth.

    Args:
        call: Any call.
        unique: The id that it is given; None keeps the one it has.
    """
    id_ = call.id if unique is None else unique
    # Field by field: `dataclasses.replace` takes five times as long, and this is done for every call that is judged.
    if isinstance(call, ModelCall):
        return ModelCall(
            name=call.name,
            messages=cast("Any", freeze(call.messages)),
            tools=cast("Any", freeze(call.tools)),
            params=cast("Any", freeze(call.params)),
            scope=call.scope,
            id=id_,
        )
    return ToolCall(
        name=call.name,
        arguments=cast("Any", freeze(call.arguments)),
        call_id=call.call_id,
        scope=call.scope,
        effect=call.effect,
        access=call.access,
        defaulted=call.defaulted,
        proposed=call.proposed,
        id=id_,
    )


def freeze_outcome(outcome: Outcome) -> Outcome:
    """Return an outcome that is frozen to its depth."""
    proposed: list[ProposedCall] = [
        replace(one, arguments=cast("Any", freeze(one.arguments))) for one in outcome.proposed
    ]
    error = outcome.error
    if error is not None:
        error = replace(error, data=cast("Any", freeze(error.data)))
    return Outcome(
        value=freeze(outcome.value),
        error=error,
        usage=outcome.usage,
        proposed=tuple(proposed),
        attempts=outcome.attempts,
        duration_s=outcome.duration_s,
        replayed=outcome.replayed,
    )
