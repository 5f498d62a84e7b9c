"""Streams: events of a run, rows of the list, and everything over a websocket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

if TYPE_CHECKING:
    from tests.server.conftest import Server


def events_of(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    event: dict[str, str] = {}
    for line in lines:
        if not line:
            if event:
                yield event
            event = {}
        elif not line.startswith(":"):
            name, _, value = line.partition(": ")
            event[name] = value


def read_all(socket: ClientConnection) -> None:
    while True:
        socket.recv(timeout=10)


def test_a_run_is_followed_from_where_a_client_was(server: Server) -> None:
    """Each record is an event with its number; `Last-Event-ID` leaves out what was seen; `end` ends it."""
    id_ = server.run("echo", 1).json()["execution_id"]

    def follow(headers: dict[str, str]) -> list[dict[str, str]]:
        with server.client.stream("GET", f"/runs/{id_}/events", headers=headers, timeout=10) as stream:
            assert stream.headers["content-type"].startswith("text/event-stream")
            return list(events_of(stream.iter_lines()))

    whole, rest, nothing = follow({}), follow({"Last-Event-ID": "4"}), follow({"Last-Event-ID": "9999"})

    assert whole[0]["event"] == "run.started"
    assert [event["event"] for event in whole[-2:]] == ["run.finished", "end"]
    assert [int(event["id"]) for event in whole[:-1]] == list(range(1, len(whole)))
    assert rest == whole[4:]
    assert [event["event"] for event in nothing] == ["end"]
    assert json.loads(whole[0]["data"])["execution_id"] == id_


def test_a_stream_stays_open_while_a_run_waits(server: Server) -> None:
    """A held run's stream says nothing but that it lives, and ends when the run does."""
    held = server.run("payer", 31).json()
    told: list[str] = []
    with server.client.stream("GET", f"/runs/{held['execution_id']}/events", timeout=20) as stream:
        for line in stream.iter_lines():
            if line.startswith(": ping") and "approved" not in told:
                told.append("approved")
                server.client.post(f"/approvals/{held['approvals'][0]['id']}/approve")
            if line.startswith("event: "):
                told.append(line[7:])

    assert told.index("run.suspended") < told.index("approved") < told.index("run.finished")
    assert told[-1] == "end"


def test_the_list_of_runs_is_followed(server: Server) -> None:
    """/events tells of a run as it begins and as it ends."""
    seen: list[tuple[str, str]] = []
    with server.client.stream("GET", "/events", timeout=20) as stream:
        lines = stream.iter_lines()
        next(lines)
        ran: list[str] = []
        threading.Timer(0.5, lambda: ran.append(server.run("slow", 0.6).json()["execution_id"])).start()
        for event in events_of(lines):
            row: dict[str, Any] = json.loads(event["data"])
            if row["agent"] == "slow":
                seen.append((row["execution_id"], row["status"]))
            if row["agent"] == "slow" and row["status"] == "SUCCESS":
                break

    assert [status for _, status in seen] == ["RUNNING", "SUCCESS"]
    assert len({id_ for id_, _ in seen}) == 1


def test_runs_of_other_processes_are_told_of(server: Server) -> None:
    """What another process writes to the store comes over the same streams."""
    import asyncio

    from oao_harness import Orchestrator, SQLiteStore

    store = SQLiteStore(server.folder / "runs.db")

    async def elsewhere(task: object) -> object:
        await asyncio.sleep(0.5)
        return task

    other = threading.Thread(
        target=lambda: Orchestrator("standard", store).run(elsewhere, 1, execution_id="from-elsewhere")
    )
    with server.client.stream("GET", "/events", timeout=20) as stream:
        lines = stream.iter_lines()
        next(lines)
        threading.Timer(1.0, other.start).start()
        rows = (json.loads(event["data"]) for event in events_of(lines))
        assert any((row["execution_id"], row["status"]) == ("from-elsewhere", "SUCCESS") for row in rows)
    other.join(5)
    store.close()


def test_events_come_over_a_websocket(server: Server) -> None:
    """/ws/events sends plain JSON with the familiar names."""
    with connect(server.url.replace("http", "ws") + "/ws/events") as socket:
        id_ = server.run("payer", 32).json()["execution_id"]
        found: list[dict[str, Any]] = []
        while not found or found[-1]["event"] != "EXECUTION_PAUSED":
            event = json.loads(socket.recv(timeout=10))
            if event["execution_id"] == id_:
                found.append(event)

    names = [event["event"] for event in found]
    assert names[0] == "EXECUTION_STARTED"
    assert {"STATE_ENTER", "TOOL_CALL", "TOOL_CALL_FINISHED", "APPROVAL_REQUESTED"} <= set(names)
    call = next(event for event in found if event["event"] == "TOOL_CALL")
    assert (call["name"], call["req"]) == ("look", {"what": "the order"})


def test_a_websocket_may_ask_for_one_run(server: Server) -> None:
    """`execution_id` leaves out the events of all others."""
    with connect(server.url.replace("http", "ws") + "/ws/events?execution_id=nothing") as socket:
        server.run("echo", 1)
        with pytest.raises(TimeoutError):
            socket.recv(timeout=0.5)


def test_who_does_not_read_holds_up_nobody(server: Server) -> None:
    """A client of the websocket that reads nothing is dropped with a reason, and the runs go on."""
    with connect(server.url.replace("http", "ws") + "/ws/events", max_queue=1, compression=None) as socket:
        assert server.run("chatty").json()["status"] == "SUCCESS"
        with pytest.raises(ConnectionClosed) as closed:
            read_all(socket)

    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1013
    assert "too slow" in closed.value.rcvd.reason
