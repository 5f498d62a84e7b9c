"""What the adapters of frameworks share for models: requests as model calls, answers as objects of the framework's.

An answer is journaled as

```text
{"answer": ...}                                  a whole one, as the codec writes the framework's object
{"chunks": [...]}                                a stream, with its boundaries
{"chunks": [...], "partial": true}               a stream that its consumer left before its end
```
"""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from oao_harness.adapters.patching import Arguments, Kind, Prepare, Request, govern, made_here
from oao_harness.errors import CodecError, ConfigError
from oao_harness.journal.codec import decode, encode
from oao_harness.runtime.context import is_possible
from oao_harness.runtime.gate import Answer
from oao_harness.runtime.outside import governed_model_call
from oao_harness.runtime.overrides import refuse_swap
from oao_harness.runtime.usage import usage_or_estimate
from oao_hookspecs import Call, Json, ModelCall, ProposedCall, Usage

__all__ = ["AnswerShape", "Said", "arguments_of", "asked_once", "model_request", "plain"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Said:
    """What a framework's answer says."""

    usage: Usage | None
    """Tokens as reported; None where nothing was."""
    texts: Sequence[Json] = ()
    """What the model wrote, for an estimate where no tokens were reported."""
    proposed: Sequence[ProposedCall] = ()
    """Tool calls that it asks for."""


class AnswerShape:
    """Answers of a framework's models, whole or streamed.

    Args:
        call: The request.
        read: Reads an answer: a list of one object, or of all chunks of a stream.
        dump: Turns an object of the framework's into JSON.
        load: Turns that JSON into the object.
        is_last: True for the chunk after which the framework may not come back.
        merge: Makes a whole answer of the chunks of a stream, so that a run recorded as a stream is replayed whole;
            None where the framework has no way.
        split: Makes chunks of a whole answer; None where the framework has no way.
    """

    __slots__ = ("_call", "_dump", "_is_last", "_load", "_merge", "_read", "_split")

    def __init__(
        self,
        call: ModelCall,
        read: Callable[[Sequence[Any]], Said],
        *,
        dump: Callable[[Any], Json] = encode,
        load: Callable[[Json], Any] = decode,
        is_last: Callable[[Any], bool] | None = None,
        merge: Callable[[list[Any]], Any] | None = None,
        split: Callable[[Any], Iterable[Any]] | None = None,
    ) -> None:
        self._call, self._read, self._dump, self._load = call, read, dump, load
        self._is_last, self._merge, self._split = is_last, merge, split

    def dump(self, value: Any) -> Answer:
        """Return a whole answer as JSON."""
        return self._answer({"answer": self._dump(value)}, [value])

    def load(self, value: Json) -> Any:
        """Return the whole answer.

        Raises:
            CodecError: It was recorded as a stream that cannot be made whole.
        """
        node = cast("Mapping[str, Json]", value)
        if "answer" in node:
            return self._load(node["answer"])
        if self._merge is None or node.get("partial"):
            raise CodecError("it was recorded as a stream; replay it as a stream, or record it again")
        return self._merge([self._load(chunk) for chunk in cast("Sequence[Json]", node["chunks"])])

    def load_chunks(self, value: Json) -> Iterable[Any]:
        """Yield the chunks.

        Raises:
            CodecError: It was recorded whole and cannot be made a stream; or its consumer left it earlier than now.
        """
        node = cast("Mapping[str, Json]", value)
        if "answer" in node:
            if self._split is None:
                raise CodecError("it was not recorded as a stream; replay it as it was, or record it again")
            yield from self._split(self._load(node["answer"]))
            return
        for chunk in cast("Sequence[Json]", node["chunks"]):
            yield self._load(chunk)
        if node.get("partial"):
            raise CodecError("the recorded stream was left by its reader here, and now it is read further")

    def snapshot(self, chunk: Any) -> Json:
        """Return a chunk as JSON."""
        return self._dump(chunk)

    def is_last(self, chunk: Any) -> bool:
        """Return True where the consumer may stop at this chunk."""
        return self._is_last is not None and self._is_last(chunk)

    def join(self, snapshots: list[Json], chunks: list[Any], *, partial: bool) -> Answer:
        """Return a stream as JSON."""
        node: dict[str, Json] = {"chunks": snapshots}
        if partial:
            node["partial"] = True
        return self._answer(node, chunks)

    def _answer(self, node: dict[str, Json], values: Sequence[Any]) -> Answer:
        said = self._read(values)
        usage = usage_or_estimate(self._call, said.usage, said.texts)
        return Answer(value=node, usage=usage, proposed=said.proposed)


def model_request(
    call: ModelCall, shape: AnswerShape, model: Any, arguments: Arguments, *, name_field: str | None = None
) -> Request:
    """Return a model call on its way to the gate.

    Args:
        call: The request as it is judged.
        shape: Of its answers.
        model: The framework's model.
        arguments: Of the method that was called.
        name_field: The attribute of the model that names whom it asks, for a run that asks another one; None where
            there is none.
    """

    def refuse(judged: Call) -> NoReturn:
        raise ConfigError(
            f"model {judged.name!r}: a policy modified the request, and only the arguments of tools can be modified; "
            "let the policy deny the call, or change the prompt in the agent"
        )

    def swap(judged: Call) -> tuple[Any, Arguments]:
        if name_field is None or getattr(model, name_field, None) != call.name:
            why = f"{type(model).__name__} has no field that names the model it asks"
            refuse_swap(judged, call.name, f"{why}; change the agent's code, or leave the model as it is")
        other = copy.copy(model)
        object.__setattr__(other, name_field, judged.name)
        return other, arguments

    return Request(call=call, shape=shape, arguments=refuse, swap=swap)


def plain(value: object) -> Json:
    """Return a value as JSON that a provider could be sent: models of pydantic without what is not set, no None."""
    dump = getattr(value, "model_dump", None)
    if dump is not None:
        value = dump(mode="json", exclude_none=True)
    if isinstance(value, Mapping):
        items = cast("Mapping[object, object]", value).items()
        return {str(key): plain(item) for key, item in items if item is not None}
    if isinstance(value, list | tuple):
        return [plain(item) for item in cast("Sequence[object]", value)]
    return encode(value)


def arguments_of(text: object) -> Mapping[str, Json]:
    """Return the arguments that a model wrote for a tool, as JSON text or as a mapping; empty where they are none."""
    found = text
    if isinstance(text, str):
        try:
            found = cast("object", json.loads(text or "{}"))
        except ValueError:
            return {}
    return cast("Mapping[str, Json]", encode(cast("object", found))) if isinstance(found, Mapping) else {}


def asked_once(function: Callable[..., Any], kind: Kind, prepare: Prepare) -> Callable[..., Any]:
    """Return a method of a model that passes the gate, unless it is asked by a model that has passed it.

    Who hands a request on to another model, as a router does, is not counted a second time.
    """
    governed = govern(function, kind, prepare)

    def chosen() -> Callable[..., Any]:
        return governed if is_possible() and governed_model_call() is None else function

    async def arequest(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return await chosen()(self, *args, **kwargs)

    def request(self: Any, /, *args: Any, **kwargs: Any) -> Any:
        return chosen()(self, *args, **kwargs)

    wrapper = functools.wraps(function)(arequest if kind == "async" else request)
    made_here(wrapper)
    return wrapper
