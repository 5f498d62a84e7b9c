"""What a provider says in every answer, so that a recording says it once: left out when written, put back when read.

```text
{..., "usual": {"provider": "openai", "in": 10, "out": 5}, "extra": {...}, "llm_output": {...}}
{"chunks": ["text", {"calls": [...]}, {"extra": {...}, "usage": {"in": 10, "out": 5}}], "each": {...}}
```

`extra` and `llm_output` then hold only what differs from the usual, and `-` the names that the usual has and this
answer has not. `each` is what most chunks of a stream carry beside their content. Nothing is lost: where an answer is
not like this it is written in full.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, cast

from oao_harness.errors import CodecError
from oao_hookspecs import Json

__all__ = ["full_answer", "full_chunks", "marked_partial", "refuse_partial", "short_answer", "short_chunks"]

_Node = Mapping[str, Json]
_WITHOUT: Final = "-"


def short_answer(node: _Node, model: str) -> dict[str, Json]:
    """Return a whole answer without what is usual.

    Args:
        node: `message`, and where present `extra` and `llm_output`.
        model: Name of the model that was asked.
    """
    said = node.get("llm_output")
    extra = cast("_Node", node.get("extra") or {})
    usage = extra.get("usage_metadata")
    if not isinstance(said, Mapping) or said.get("model_provider") != "openai" or not isinstance(usage, Mapping):
        return dict(node)
    sent, received = usage.get("input_tokens"), usage.get("output_tokens")
    if type(sent) is not int or type(received) is not int:
        return dict(node)
    usual: dict[str, Json] = {"provider": "openai", "in": sent, "out": received}
    short: dict[str, Json] = {"message": node["message"], "usual": usual}
    expected = _usual(short, model)
    for name, value in (("extra", extra), ("llm_output", said)):
        changes = _changes(value, expected[name])
        if changes is None:
            return dict(node)
        if changes:
            short[name] = changes
    return short


def full_answer(node: _Node, model: str) -> dict[str, Json]:
    """Return the whole answer that `short_answer` was given."""
    if "usual" not in node:
        return dict(node)
    rest = {name: item for name, item in node.items() if name != "usual"}
    for name, value in _usual(node, model).items():
        rest[name] = _changed(value, cast("_Node", node.get(name) or {}))
    return rest


def _usual(node: _Node, model: str) -> dict[str, _Node]:
    """Return what OpenAI's chat completions say beside an answer, as langchain-openai hands it on."""
    usual = cast("_Node", node["usual"])
    sent, received = cast("int", usual["in"]), cast("int", usual["out"])
    message = cast("_Node", node["message"])
    reason = "tool_calls" if message.get("calls") else "stop"
    return {
        "extra": {
            "generation_info": {"finish_reason": reason, "logprobs": None},
            "additional_kwargs": {"refusal": None},
            "usage_metadata": _usage(sent, received),
        },
        "llm_output": {
            "token_usage": {
                "completion_tokens": received,
                "prompt_tokens": sent,
                "total_tokens": sent + received,
                "completion_tokens_details": {
                    "accepted_prediction_tokens": 0,
                    "audio_tokens": 0,
                    "reasoning_tokens": 0,
                    "rejected_prediction_tokens": 0,
                    "text_tokens": None,
                },
                "prompt_tokens_details": {
                    "audio_tokens": 0,
                    "cache_write_tokens": None,
                    "cached_tokens": 0,
                    "image_tokens": None,
                    "text_tokens": None,
                },
            },
            "model_provider": "openai",
            "model_name": model,
            "system_fingerprint": None,
        },
    }


def _usage(sent: int, received: int) -> _Node:
    return {
        "input_tokens": sent,
        "output_tokens": received,
        "total_tokens": sent + received,
        "input_token_details": {"audio": 0, "cache_read": 0},
        "output_token_details": {"audio": 0, "reasoning": 0},
    }


def _changes(value: _Node, usual: _Node) -> dict[str, Json] | None:
    """Return what must be changed in the usual to get a value; None where that cannot be said."""
    if _WITHOUT in value or any(str(key).startswith("$") for key in value):
        return None
    changes: dict[str, Json] = {}
    if missing := [name for name in usual if name not in value]:
        changes[_WITHOUT] = cast("Json", missing)
    for name, item in value.items():
        known = usual.get(name)
        if name in usual and item == known and type(item) is type(known):
            continue
        if isinstance(item, Mapping) and isinstance(known, Mapping):
            inner = _changes(item, known)
            if inner is None:
                return None
            if inner:
                changes[name] = inner
        elif isinstance(known, Mapping) and known:
            return None
        else:
            changes[name] = item
    return changes


def _changed(usual: _Node, changes: _Node) -> dict[str, Json]:
    """Return the value of which `_changes` said how it differs from the usual."""
    missing = cast("Sequence[str]", changes.get(_WITHOUT) or ())
    value = {name: item for name, item in usual.items() if name not in missing}
    for name, item in changes.items():
        known = usual.get(name)
        if name == _WITHOUT:
            continue
        value[name] = _changed(known, item) if isinstance(known, Mapping) and isinstance(item, Mapping) else item
    return value


def short_chunks(chunks: Sequence[Json]) -> dict[str, Json]:
    """Return a stream as `{"chunks": [...]}`, with what most chunks carry said once in `each`.

    Args:
        chunks: Texts, or `content`, and where present `calls` and `extra`.
    """
    nodes = [_short_chunk(chunk) for chunk in chunks]
    carried = Counter(json.dumps(node["extra"], sort_keys=True) for node in nodes if node.get("extra"))
    each, count = carried.most_common(1)[0] if carried else ("", 0)
    if count * 2 <= len(nodes):
        return {"chunks": [_as_text(node) for node in nodes]}
    written: list[Json] = []
    for node in nodes:
        if json.dumps(node.get("extra") or {}, sort_keys=True) == each:
            node.pop("extra", None)
            written.append(_as_text(node))
        else:
            written.append({"extra": {}, **node})
    return {"chunks": written, "each": json.loads(each)}


def full_chunks(node: _Node) -> list[Json]:
    """Return the chunks that `short_chunks` was given."""
    each = cast("_Node", node.get("each") or {})
    return [_full_chunk(chunk, each) for chunk in cast("Sequence[Json]", node["chunks"])]


def _short_chunk(chunk: Json) -> dict[str, Json]:
    node: dict[str, Json] = dict(chunk) if isinstance(chunk, Mapping) else {"content": chunk}
    if not node.get("content", True) and isinstance(node["content"], str) and len(node) > 1:
        del node["content"]
    extra = dict(cast("_Node", node.get("extra") or {}))
    usage = extra.get("usage_metadata")
    if isinstance(usage, Mapping):
        sent, received = usage.get("input_tokens"), usage.get("output_tokens")
        if type(sent) is int and type(received) is int and usage == _usage(sent, received):
            del extra["usage_metadata"]
            node["usage"] = {"in": sent, "out": received}
    node.pop("extra", None)
    return {**node, "extra": extra} if extra else node


def _as_text(node: dict[str, Json]) -> Json:
    if not node:
        return ""
    return node["content"] if node.keys() == {"content"} and isinstance(node["content"], str) else node


def _full_chunk(chunk: Json, each: _Node) -> Json:
    if isinstance(chunk, str):
        return {"content": chunk, "extra": each} if each else chunk
    node = dict(cast("_Node", chunk))
    usage = cast("_Node | None", node.pop("usage", None))
    extra = dict(cast("_Node", node.pop("extra", each)))
    if usage is not None:
        extra["usage_metadata"] = _usage(cast("int", usage["in"]), cast("int", usage["out"]))
    if "message" not in node:
        node = {"content": "", **node}
    return {**node, "extra": extra} if extra else node


def marked_partial(node: dict[str, Json], partial: bool) -> dict[str, Json]:
    """Return a stream as it is written; one that its consumer left before its end is marked."""
    return {**node, "partial": True} if partial else node


def refuse_partial(node: _Node) -> None:
    """Refuse to give more of a stream than was recorded.

    Raises:
        CodecError: Its consumer left before its end when it was recorded.
    """
    if node.get("partial"):
        count = len(cast("Sequence[Json]", node.get("chunks") or node.get("events") or ()))
        raise CodecError(
            f"only the first {count} {'chunk' if count == 1 else 'chunks'} of this answer were recorded, because its "
            "stream was closed early then; read no more of it than that, or record again"
        )
