"""A server with the tools, resources and prompts that the public conformance suite of MCP asks for; streamable HTTP.

Run as a program: prints its port and serves until its input ends.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import socket
import sys
import threading
import warnings
from typing import Any

import uvicorn
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.streamable_http import EventMessage, EventStore
from mcp.shared.exceptions import MCPDeprecationWarning
from mcp_types import (
    AudioContent,
    Completion,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    SamplingMessage,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    TextResourceContents,
    UnsubscribeRequestParams,
)
from pydantic import BaseModel, Field

PNG = base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()
WAV = base64.b64encode(b"RIFF\x00\x00\x00\x00WAVE").decode()
server = MCPServer("conformance", log_level="ERROR")


class Kept(EventStore):
    """Events by number, so that a client that comes back gets what it missed."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._events: list[tuple[int, str, Any]] = []

    async def store_event(self, stream_id: str, message: Any) -> str:
        number = next(self._numbers)
        self._events.append((number, stream_id, message))
        return str(number)

    async def replay_events_after(self, last_event_id: str, send_callback: Any) -> str | None:
        last = int(last_event_id)
        stream = next((stream for number, stream, _ in self._events if number == last), None)
        for number, of, message in list(self._events):
            if of == stream and number > last and message is not None:
                await send_callback(EventMessage(message, str(number)))
        return stream


@server.tool(description="test simple text")
def test_simple_text() -> str:
    return "This is a simple text response for testing."


@server.tool(description="test image content")
def test_image_content() -> list[ImageContent]:
    return [ImageContent(type="image", data=PNG, mime_type="image/png")]


@server.tool(description="test audio content")
def test_audio_content() -> list[AudioContent]:
    return [AudioContent(type="audio", data=WAV, mime_type="audio/wav")]


def embedded(uri: str, text: str, kind: str = "text/plain") -> EmbeddedResource:
    return EmbeddedResource(type="resource", resource=TextResourceContents(uri=uri, mime_type=kind, text=text))


@server.tool(description="test embedded resource")
def test_embedded_resource() -> list[EmbeddedResource]:
    return [embedded("test://embedded-resource", "This is an embedded resource content.")]


@server.tool(description="test multiple content types")
def test_multiple_content_types() -> list[TextContent | ImageContent | EmbeddedResource]:
    return [
        TextContent(type="text", text="Multiple content types test:"),
        ImageContent(type="image", data=PNG, mime_type="image/png"),
        embedded("test://mixed-content-resource", json.dumps({"test": "data", "value": 123}), "application/json"),
    ]


@server.tool(description="test tool with logging")
async def test_tool_with_logging(ctx: Context) -> str:
    for text in ("Tool execution started", "Tool processing data", "Tool execution completed"):
        await ctx.info(text)
        await asyncio.sleep(0.02)
    return "done"


@server.tool(description="test tool with progress")
async def test_tool_with_progress(ctx: Context) -> str:
    for done in (0, 50, 100):
        await ctx.report_progress(done, 100, f"{done} of 100")
        await asyncio.sleep(0.02)
    return "done"


@server.tool(description="test sampling")
async def test_sampling(prompt: str, ctx: Context) -> str:
    message = SamplingMessage(role="user", content=TextContent(type="text", text=prompt))
    answer = await ctx.session.create_message(messages=[message], max_tokens=100)
    return f"LLM response: {getattr(answer.content, 'text', '')}"


class Reply(BaseModel):
    response: str = Field(description="User's response")


@server.tool(description="test elicitation")
async def test_elicitation(message: str, ctx: Context) -> str:
    return f"User response: {(await ctx.elicit(message=message, schema=Reply)).action}"


class Defaults(BaseModel):
    name: str = Field(default="John Doe")
    age: int = Field(default=30)
    score: float = Field(default=95.5)
    status: str = Field(default="active", json_schema_extra={"enum": ["active", "inactive", "pending"]})
    verified: bool = Field(default=True)


@server.tool(description="test elicitation sep1034 defaults")
async def test_elicitation_sep1034_defaults(ctx: Context) -> str:
    return f"Elicitation completed: {(await ctx.elicit(message='Your details?', schema=Defaults)).action}"


def choice(**schema: Any) -> Any:
    return Field(json_schema_extra=schema)


TITLED = [{"const": name, "title": name.upper()} for name in ("a", "b", "c")]


class Enums(BaseModel):
    untitledSingle: str = choice(enum=["a", "b", "c"])
    titledSingle: str = choice(oneOf=TITLED)
    untitledMulti: list[str] = choice(items={"type": "string", "enum": ["a", "b", "c"]})
    titledMulti: list[str] = choice(items={"anyOf": TITLED})
    legacyEnum: str = choice(enum=["a", "b", "c"], enumNames=["A", "B", "C"])


@server.tool(description="test elicitation sep1330 enums")
async def test_elicitation_sep1330_enums(ctx: Context) -> str:
    return f"Elicitation completed: {(await ctx.elicit(message='Which?', schema=Enums)).action}"


@server.tool(description="test error handling")
def test_error_handling() -> str:
    raise RuntimeError("This tool intentionally returns an error for testing")


@server.tool(description="test reconnection")
async def test_reconnection(ctx: Context) -> str:
    await ctx.info("before")
    await ctx.close_sse_stream()
    await asyncio.sleep(0.2)
    await ctx.info("after")
    return "Reconnection test completed"


@server.resource("test://static-text", mime_type="text/plain")
def static_text() -> str:
    return "This is the content of the static text resource."


@server.resource("test://static-binary", mime_type="image/png")
def static_binary() -> bytes:
    return base64.b64decode(PNG)


@server.resource("test://template/{id}/data", mime_type="application/json")
def template(id: str) -> str:
    return json.dumps({"id": id, "templateTest": True, "data": f"Data for ID: {id}"})


@server.resource("test://watched-resource")
def watched() -> str:
    return "Watched resource content"


@server.prompt(description="test simple prompt")
def test_simple_prompt() -> list[UserMessage]:
    return [UserMessage("This is a simple prompt for testing.")]


@server.prompt(description="test prompt with arguments")
def test_prompt_with_arguments(arg1: str, arg2: str) -> list[UserMessage]:
    return [UserMessage(f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'")]


@server.prompt(description="test prompt with embedded resource")
def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:
    return [UserMessage(embedded(resourceUri, "Embedded resource content for testing.")), UserMessage("Use it.")]


@server.prompt(description="test prompt with image")
def test_prompt_with_image() -> list[UserMessage]:
    return [UserMessage(ImageContent(type="image", data=PNG, mime_type="image/png")), UserMessage("Look at it.")]


@server.completion()
async def complete(ref: Any, argument: Any, context: Any) -> Completion:
    return Completion(values=["paris", "park"], total=2, has_more=False)


async def nothing(_ctx: Any, _params: Any) -> EmptyResult:
    return EmptyResult()


def main() -> None:
    lowlevel: Any = server._lowlevel_server
    lowlevel.add_request_handler("logging/setLevel", SetLevelRequestParams, nothing)
    lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, nothing)
    lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, nothing)
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    app = server.streamable_http_app(event_store=Kept(), retry_interval=100)
    running = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))

    def until_input_ends() -> None:
        sys.stdin.read()
        running.should_exit = True

    threading.Thread(target=until_input_ends, daemon=True).start()
    print(listening.getsockname()[1], flush=True)
    listening.listen()
    running.run(sockets=[listening])


if __name__ == "__main__":
    warnings.simplefilter("ignore", MCPDeprecationWarning)
    main()
