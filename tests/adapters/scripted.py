"""Chat models that follow a script, and what the tests of the adapters share: a replay that reads a journal."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from oao_harness.journal.records import error_from_json, key_of, request_of, usage_from_json
from oao_harness.journal.replay import Divergence, Served
from oao_harness.runtime import context
from oao_hookspecs import Call, Outcome, Record


def asks(*calls: tuple[str, dict[str, Any]], text: str = "") -> AIMessage:
    """An answer that asks for tools: `(name, arguments)` each."""
    return AIMessage(
        content=text,
        tool_calls=[{"name": n, "args": a, "id": f"c{i}_{n}", "type": "tool_call"} for i, (n, a) in enumerate(calls)],
        usage_metadata={"input_tokens": 10, "output_tokens": 5, "total_tokens": 15},
    )


def says(text: str, *, sent: int = 10, received: int = 5) -> AIMessage:
    """An answer in words, with the tokens it reports."""
    usage = {"input_tokens": sent, "output_tokens": received, "total_tokens": sent + received}
    return AIMessage(content=text, usage_metadata=usage, response_metadata={"model_name": "scripted-1"})


class Scripted(BaseChatModel):
    """Answers by the number of tool results in the conversation, or by a function of it."""

    script: Sequence[AIMessage] | Callable[[list[BaseMessage]], AIMessage]
    model: str = "scripted-1"
    _executed: list[str] = PrivateAttr(default_factory=list)

    @property
    def executed(self) -> list[str]:
        return self._executed

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], **kwargs: Any) -> Any:
        kwargs.pop("tool_choice", None)
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _answer(self, messages: list[BaseMessage]) -> AIMessage:
        if callable(self.script):
            return self.script(messages).model_copy(deep=True)
        asked = sum(isinstance(message, AIMessage) for message in messages)
        return self.script[min(asked, len(self.script) - 1)].model_copy(deep=True)

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any) -> ChatResult:
        self._executed.append("generate")
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))], llm_output={"system": "s"})


class ScriptedStream(Scripted):
    """The same, word by word."""

    def _stream(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **_: Any
    ) -> Iterator[ChatGenerationChunk]:
        self._executed.append("stream")
        answer = self._answer(messages)
        words = str(answer.content).split(" ") if answer.content else []
        for i, word in enumerate(words):
            chunk = ChatGenerationChunk(message=AIMessageChunk(content=word if i == 0 else f" {word}"))
            if run_manager is not None:
                run_manager.on_llm_new_token(word, chunk=chunk)
            yield chunk
        for i, call in enumerate(answer.tool_calls):
            import json

            text = json.dumps(call["args"])
            for name, part in ((call["name"], text[:4]), (None, text[4:])):
                piece = {"index": i, "id": call["id"] if name else None, "name": name, "args": part}
                yield ChatGenerationChunk(
                    message=AIMessageChunk(content="", tool_call_chunks=[{**piece, "type": "tool_call_chunk"}])
                )
        yield ChatGenerationChunk(
            message=AIMessageChunk(
                content="", usage_metadata=answer.usage_metadata, response_metadata=answer.response_metadata
            )
        )


class Delegating(ScriptedStream):
    """Like ChatOpenAI with `streaming=True`: `_agenerate -> _generate -> _stream`, and `super()` on the way."""

    def _generate(
        self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kw: Any
    ) -> ChatResult:
        super()._generate(messages, stop, run_manager, **kw)
        chunks = list(self._stream(messages, stop, run_manager, **kw))
        whole = chunks[0]
        for chunk in chunks[1:]:
            whole += chunk
        answer = self._answer(messages)
        return ChatResult(generations=[ChatGeneration(message=answer)])

    async def _agenerate(self, messages: Any, stop: Any = None, run_manager: Any = None, **kw: Any) -> ChatResult:
        return self._generate(messages, stop, None, **kw)


class JournalReplay:
    """Serves the outcomes of a journal by their request: what the real replay does, without its diagnosis."""

    plays_wire = False

    def serve_inside(self, call: Call, run: str) -> None:
        return None

    def __init__(self, records: Sequence[Record]) -> None:
        self._lock = threading.Lock()
        self._served: dict[str, list[Record]] = {}
        outcomes = {record["n"]: record for record in records if record["type"] == "outcome"}
        for record in records:
            if record["type"] == "call" and record["n"] in outcomes:
                key = key_of(str(record["kind"]), str(record["name"]), dict(record.get("given") or record["req"]))  # type: ignore[arg-type]
                self._served.setdefault(key, []).append(outcomes[record["n"]])

    def unplayed_text(self) -> str | None:
        return None

    def serve(self, call: Call, run: str) -> Served | Divergence:
        with self._lock:
            found = self._served.get(key_of(call.kind, call.name, request_of(call)))
            if not found:
                text = f"nothing recorded for {call.kind} {call.name} {request_of(call)}"
                return Divergence(kind="unexpected", text=text)
            record: Mapping[str, Any] = found.pop(0)
        return Served(
            outcome=Outcome(
                value=record.get("res"),
                error=error_from_json(record["error"]) if "error" in record else None,
                usage=usage_from_json(record["usage"]) if "usage" in record else None,
            )
        )


class ReplaySession:
    """Gives every run that starts a recording to replay."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._replay = JournalReplay(records)

    def ambient(self) -> None:
        return None

    def adopt(self, run: Any) -> None:
        run.replay = self._replay

    def __enter__(self) -> ReplaySession:
        context.set_session(self)
        return self

    def __exit__(self, *_: object) -> None:
        context.set_session(None)


def tool_texts(messages: Sequence[BaseMessage]) -> list[str]:
    return [str(message.content) for message in messages if isinstance(message, ToolMessage)]
