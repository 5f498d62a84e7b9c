"""A server of MCP over stdio without the SDK: it answers as it is told, and tells on standard error what it got."""

from __future__ import annotations

import json
import sys
import time


def say(message: dict) -> None:
    print(json.dumps(message), flush=True)


def main() -> None:
    held = []
    for line in sys.stdin:
        print(f"GOT {line.strip()}", file=sys.stderr, flush=True)
        message = json.loads(line)
        if isinstance(message, list):
            say([{"jsonrpc": "2.0", "id": one["id"], "result": {}} for one in message if "id" in one])
            continue
        id_, method, params = message.get("id"), message.get("method"), message.get("params", {})
        if id_ is None or method is None:
            if held and "method" not in message:
                # The client's model has answered.
                say({"jsonrpc": "2.0", "id": held.pop(), "result": {"content": [], "model": message}})
            continue
        name = params.get("name")
        if method == "tools/list":
            tools = [{"name": one, "inputSchema": {"type": "object"}} for one in ("echo", "drop", "die")]
            say({"jsonrpc": "2.0", "id": id_, "result": {"tools": tools}})
        elif method == "initialize":
            told = {"protocolVersion": params.get("protocolVersion"), "capabilities": {"tools": {}}}
            say({"jsonrpc": "2.0", "id": id_, "result": {**told, "serverInfo": {"name": "plain", "version": "1"}}})
        elif method == "server/discover":
            say({"jsonrpc": "2.0", "id": id_, "error": {"code": -32601, "message": "not found"}})
        elif method != "tools/call":
            say({"jsonrpc": "2.0", "id": id_, "result": {"asked": message}})
        elif name == "die":
            sys.exit(7)
        elif name == "hang":
            continue
        elif name == "late":
            time.sleep(0.7)
            say({"jsonrpc": "2.0", "id": id_, "result": {"content": [], "late": True}})
        elif name == "wrong":
            say({"jsonrpc": "2.0", "id": id_, "error": {"code": -32602, "message": "wrong arguments"}})
        elif name == "noisy":
            print("a log line on standard output", flush=True)
            say({"jsonrpc": "2.0", "id": id_, "result": {"content": []}})
        elif name == "think":
            held.append(id_)
            asked = {"messages": [{"role": "user", "content": {"type": "text", "text": "hm"}}], "maxTokens": 5}
            say({"jsonrpc": "2.0", "id": "s1", "method": "sampling/createMessage", "params": asked})
        else:
            say({"jsonrpc": "2.0", "id": id_, "result": {"content": [{"type": "text", "text": json.dumps(params)}]}})


main()
