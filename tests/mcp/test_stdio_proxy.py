"""`oao mcp-proxy -- COMMAND`: real processes on both sides of real pipes."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from oao_harness import Orchestrator
from oao_hookspecs import Principal, RunQuery
from tests.mcp.servers import PLAIN

ROOT = Path(__file__).parent.parent.parent
POLICY = """
[tools]
deny = ["drop"]
ask = ["pay"]

[limits]
call_timeout_seconds = 0.4
"""


class Talk:
    """A client that is a program: it writes lines, and reads lines."""

    def __init__(self, folder: Path, *options: str, server: tuple[str, ...] = (sys.executable, str(PLAIN))) -> None:
        path = os.pathsep.join([str(ROOT), str(ROOT / "hookspecs")])
        self.store = folder / "runs.db"
        command = [sys.executable, "-m", "oao_harness", "mcp-proxy", "--store", str(self.store), *options, "--"]
        self.process = subprocess.Popen(
            [*command, *server], cwd=folder, env={**os.environ, "PYTHONPATH": path, "PYTHONUNBUFFERED": "1"},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self._lines: queue.Queue[bytes] = queue.Queue()
        self._stderr: list[bytes] = []
        self._threads = [
            threading.Thread(target=self._pull, args=(pipe, put), daemon=True)
            for pipe, put in ((self.process.stdout, self._lines.put), (self.process.stderr, self._stderr.append))
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Leave nothing behind."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(timeout=10)
        for thread in self._threads:
            thread.join(timeout=10)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()

    @staticmethod
    def _pull(pipe: Any, put: Any) -> None:
        for line in pipe:
            put(line)

    def write(self, *raw: bytes) -> None:
        assert self.process.stdin is not None
        for line in raw:
            self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def send(self, method: str, id: Any = None, **params: Any) -> None:
        message = {"jsonrpc": "2.0", **({} if id is None else {"id": id}), "method": method, "params": params}
        self.write(json.dumps(message).encode())

    def call(self, id: Any, name: str, **arguments: Any) -> None:
        self.send("tools/call", id, name=name, arguments=arguments)

    def line(self, timeout_s: float = 5.0) -> bytes:
        return self._lines.get(timeout=timeout_s)

    def read(self) -> Any:
        return json.loads(self.line())

    def answers(self, count: int) -> dict[Any, Any]:
        return {found["id"]: found for found in (self.read() for _ in range(count))}

    def end(self) -> int:
        assert self.process.stdin is not None
        self.process.stdin.close()
        return self.process.wait(timeout=15)

    @property
    def silent(self) -> bool:
        return self._lines.empty()

    @property
    def stderr(self) -> str:
        return b"".join(self._stderr).decode()

    def got_settled(self) -> list[Any]:
        """What the server was sent until now."""
        id_ = f"settle-{uuid.uuid4()}"
        self.send("ping", id_)
        assert self.read()["id"] == id_
        return self.got_until(id_)

    def got_until(self, id: Any) -> list[Any]:
        """What the server was sent, once it has said so of the message with an id: it says it on another stream."""
        give_up = time.monotonic() + 10
        while not any(one.get("id") == id for one in self.got()):
            assert time.monotonic() < give_up
            time.sleep(0.01)
        return self.got()

    def got(self) -> list[Any]:
        """What the server was sent."""
        lines = [line for line in self.stderr.splitlines() if line.startswith("GOT ")]
        return [json.loads(line.removeprefix("GOT ")) for line in lines]


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Talk]:
    """One session for all tests that leave it as it was."""
    folder = tmp_path_factory.mktemp("proxy")
    (folder / "policy.toml").write_text(POLICY, encoding="utf-8")
    found = Talk(folder, "--policy", "policy.toml", "--hide-denied", "--name", "plain")
    yield found
    found.close()


@pytest.fixture
def begin(tmp_path: Path) -> Iterator[Callable[..., Talk]]:
    """Begins a session of a test's own."""
    with contextlib.ExitStack() as stack:

        def make(*options: str, **more: Any) -> Talk:
            found = Talk(tmp_path, *options, **more)
            stack.callback(found.close)
            return found

        yield make


def text(answer: Any) -> str:
    return answer["result"]["content"][0]["text"]


def test_what_is_no_call_passes_byte_for_byte(talk: Talk) -> None:
    """Spaces, escapes, unknown methods, numbers as they were written, ids that are texts."""
    odd = rb'{ "jsonrpc":"2.0" ,"params":{"x":1.0e2,"y":"\u00e9/\/"}, "method":"vendor/odd","id":"a\u0031"}'
    talk.write(odd)
    answer = talk.read()

    assert answer["id"] == "a1"
    assert f"GOT {odd.decode()}" in talk.stderr


def test_an_allowed_call_passes_with_all_that_it_says(talk: Talk) -> None:
    """`_meta` and what the future may add stand beside the arguments."""
    talk.send("tools/call", 2, name="echo", arguments={"x": [1, None]}, _meta={"progressToken": 9}, later=True)

    assert json.loads(text(talk.read())) == {
        "name": "echo", "arguments": {"x": [1, None]}, "_meta": {"progressToken": 9}, "later": True
    }  # fmt: skip


def test_a_denied_call_is_an_error_of_the_tool(talk: Talk) -> None:
    """The model reads the rule; the server hears nothing; the session goes on."""
    talk.call(3, "drop", table="users")
    answer = talk.read()
    talk.call(4, "echo")

    assert answer["result"]["isError"] is True
    assert "denied, the tool was not called (tools.deny: tool drop is denied" in text(answer)
    assert answer["result"]["_meta"]["oao"]["rule"] == "tools.deny"
    assert "isError" not in talk.read()["result"]
    assert not [one for one in talk.got() if one.get("params", {}).get("name") == "drop"]


def test_hidden_tools_are_not_listed(talk: Talk) -> None:
    """Those that are denied by name alone."""
    talk.send("tools/list", 5)

    assert [tool["name"] for tool in talk.read()["result"]["tools"]] == ["echo", "die"]


def test_an_error_of_the_server_passes(talk: Talk) -> None:
    """And what it prints beside the protocol does not."""
    talk.call(6, "wrong")
    talk.call(7, "noisy")
    answers = talk.answers(2)

    assert answers[6]["error"] == {"code": -32602, "message": "wrong arguments"}
    assert answers[7]["result"] == {"content": []}
    assert "a line of the server was dropped" in talk.stderr


@pytest.mark.parametrize(
    "raw",
    [
        b'{"jsonrpc":"2.0","id":8,"method":"ping","method":"tools/call","params":{"name":"drop"}}',
        b'{"jsonrpc":"2.0","id":8,"Method":"tools/call","params":{"name":"drop"}}',
        b'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"Name":"drop","name":"echo"}}',
        b'{"jsonrpc":"2.0","id":8,"method":"ping","params":{"x":[\r{"method":"tools/call"}\r]}}',
        b'[{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":"drop"}}]',
        b'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":[]}',
        b'{"jsonrpc":"2.0","id":8,"method":"tools/call","params":{"name":7}}',
        b'{"jsonrpc":"2.0","id":8,"method":["tools/call"]}',
        b'{"jsonrpc":"2.0","id":8,"method":"ping","params":{"x":NaN}}',
        b'{"jsonrpc":"2.0","id":8,',
        b'"\xff"',
        b"[" * 100_000,
        '{"method":"tools/call"}'.encode("utf-16"),
    ],
)
def test_what_two_readers_would_read_differently_is_refused(talk: Talk, raw: bytes) -> None:
    """Nothing of it reaches the server, and the client is told."""
    id_ = f"ping-{uuid.uuid4()}"
    before = len(talk.got_settled())
    talk.write(raw)
    answer = talk.read()
    talk.send("ping", id_)

    assert answer["error"]["code"] in {-32700, -32600}
    assert talk.read()["id"] == id_
    assert [one["method"] for one in talk.got_until(id_)[before:]] == ["ping"]


def test_a_call_that_wants_no_answer_is_dropped(talk: Talk) -> None:
    """Nobody could tell what became of it."""
    talk.send("tools/call", name="echo")
    talk.send("ping", 10)

    assert talk.read()["id"] == 10
    assert [one["method"] for one in talk.got_until(10)[-1:]] == ["ping"]


def test_calls_run_side_by_side(talk: Talk) -> None:
    """Each answer has the id of its request; a hanging call holds up no other, and its time is limited."""
    talk.call(11, "hang")
    talk.call("11", "echo", n=1)
    talk.call(12, "echo", n=2)
    answers = talk.answers(3)

    assert "call_timeout" in text(answers[11])
    assert json.loads(text(answers["11"]))["arguments"] == {"n": 1}
    assert json.loads(text(answers[12]))["arguments"] == {"n": 2}
    talk.send("ping", 13)
    talk.read()
    cancelled = [one for one in talk.got_until(13) if one.get("method") == "notifications/cancelled"]
    assert cancelled[-1]["params"]["requestId"] == 11


def test_a_late_answer_is_not_a_second_one(talk: Talk) -> None:
    """What the server says to a call that was given up is dropped."""
    talk.call(14, "late")
    assert talk.read()["result"]["isError"] is True
    talk.send("ping", 15)

    assert talk.read()["id"] == 15
    assert talk.silent


def test_a_cancelled_call_ends(talk: Talk) -> None:
    """The server is told what the client said, byte for byte, and the journal that it was cancelled."""
    talk.call(16, "hang")
    talk.got_until(16)
    talk.send("notifications/cancelled", requestId=16, reason="changed my mind")
    talk.send("ping", 17)

    assert talk.read()["id"] == 17
    assert talk.got_until(17)[-2]["params"] == {"requestId": 16, "reason": "changed my mind"}


def test_a_held_call_is_made_once_it_is_approved(talk: Talk) -> None:
    """At first its client is told to ask again; asking again before that is the same question."""
    talk.call(18, "pay", amount=5)
    first = talk.read()
    talk.call(19, "pay", amount=5)
    second = talk.read()
    question = first["result"]["_meta"]["oao"]["question"]
    orchestrator = Orchestrator(store=f"sqlite:{talk.store}")
    open_ = [one.id for one in orchestrator.approvals()]
    orchestrator.approve(question, by=Principal(id="ann"))
    talk.call(20, "pay", amount=5)
    third = talk.read()
    talk.call(21, "pay", amount=5)
    fourth = talk.read()
    orchestrator.store.close()

    assert first["result"]["isError"] is True
    assert f"oao approve {question}" in text(first)
    assert second["result"]["_meta"]["oao"]["question"] == question
    assert open_ == [question]
    assert json.loads(text(third))["arguments"] == {"amount": 5}
    assert fourth["result"]["_meta"]["oao"]["state"] == "held", "an approval is good for one call"


def test_sampling_is_a_model_call(talk: Talk) -> None:
    """The server's question reaches the client, and the answer the server."""
    talk.call(22, "think")
    asked = talk.read()
    talk.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {"role": "assistant"}}).encode())
    answer = talk.read()

    assert asked["method"] == "sampling/createMessage"
    assert answer["result"]["model"]["result"] == {"role": "assistant"}


def test_at_the_end_the_journal_tells_the_session(begin: Callable[..., Talk]) -> None:
    """One run around a run for each judged call; the server's exit code counts only where it ended by itself."""
    talk = begin("--policy", "standard", "--name", "plain")
    for id_ in (1, 2):
        talk.call(id_, "echo")
        assert talk.read()["id"] == id_
    talk.call(3, "think")
    asked = talk.read()
    talk.write(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": {"role": "assistant"}}).encode())
    assert talk.read()["id"] == 3
    assert talk.end() == 0
    orchestrator = Orchestrator(store=f"sqlite:{talk.store}")
    outer = orchestrator.store.runs(limit=None, query=RunQuery(outer=True))
    inner = [run for run in orchestrator.store.runs(limit=None) if run.parent is not None]
    journals = [record for run in inner for record in orchestrator.store.read(run.execution_id)]
    kinds = {record["kind"] for record in journals if "kind" in record}
    orchestrator.store.close()

    assert [(run.agent_name, run.status) for run in outer] == [("mcp:plain", "SUCCESS")]
    assert {run.parent for run in inner} == {outer[0].execution_id}
    assert kinds == {"tool", "model"}
    assert len(inner) == 4


def test_a_server_that_dies_is_told_to_who_waits(begin: Callable[..., Talk]) -> None:
    """An error for the call in flight, and its exit code."""
    talk = begin("--policy", "off")
    talk.call(1, "die")
    answer = talk.read()

    assert answer["error"]["message"] == "the MCP server ended with exit code 7"
    assert talk.process.wait(timeout=10) == 7
    assert "ended with exit code 7" in talk.stderr


def test_one_denial_ends_a_session_where_that_is_asked(tmp_path: Path, begin: Callable[..., Talk]) -> None:
    """`--halt`: what comes after the denial is refused for the same reason. A prefix tells servers apart."""
    (tmp_path / "policy.toml").write_text('[tools]\ndeny = ["a.drop"]\n', encoding="utf-8")
    talk = begin("--policy", "policy.toml", "--halt", "--prefix", "a.")
    talk.call(1, "echo")
    first = talk.read()
    talk.call(2, "drop")
    second = talk.read()
    talk.call(3, "echo")
    third = talk.read()

    assert "isError" not in first["result"]
    assert "tool a.drop is denied" in text(second)
    assert "tool a.drop is denied" in text(third)
    talk.process.send_signal(signal.SIGTERM)
    assert talk.process.wait(timeout=10) == 0


def test_a_held_call_waits_where_that_is_asked(tmp_path: Path, begin: Callable[..., Talk]) -> None:
    """`--wait`: the answer comes by itself, with the arguments that the person gave."""
    (tmp_path / "policy.toml").write_text('[tools]\nask = ["pay"]\n', encoding="utf-8")
    talk = begin("--policy", "policy.toml", "--wait", "20")
    talk.call(1, "pay", amount=500)
    orchestrator = Orchestrator(store=f"sqlite:{talk.store}")
    while not (waiting := orchestrator.approvals()):
        assert talk.silent
    orchestrator.approve(waiting[0].id, by=Principal(id="ann"), arguments={"amount": 5})
    orchestrator.store.close()

    assert json.loads(text(talk.read()))["arguments"] == {"amount": 5}
    assert talk.end() == 0


def test_a_command_that_is_not_there(begin: Callable[..., Talk]) -> None:
    """One line, and exit code 2."""
    talk = begin("--policy", "off", server=("no-such-server",))

    assert talk.process.wait(timeout=10) == 2
    assert "cannot start the server 'no-such-server'" in talk.stderr
