"""A graph with a checkpointer whose process may be killed: run as a script by the tests of LangGraph's history.

    python -m tests.adapters.history_agents MODE FOLDER:WHAT...

Each WHAT happens in a process of its own, forked before anything was opened: LangGraph is imported once. What became of
it is `FOLDER/WHAT.json`.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import operator
import os
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Annotated, Any, TypedDict

from langgraph.checkpoint.sqlite import SqliteSaver
from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import START, StateGraph

import oao_harness as oao


class State(TypedDict):
    said: Annotated[list[str], operator.add]


def graph_of(folder: Path, checkpointer: Any, *, crashes: bool, nested: bool = False) -> Any:
    """Return a graph of three nodes that call a tool each; the process dies before the third where it may."""

    @oao.tool(effect="once")
    def act(what: str, turn: int) -> str:
        with (folder / "effects").open("a") as file:
            file.write(f"{what} {turn}\n")
        return f"{what}-{turn}"

    @oao.model
    def think(prompt: str) -> str:
        with (folder / "effects").open("a") as file:
            file.write("think\n")
        return prompt.upper()

    def first(state: State) -> State:
        return {"said": [act("first", len(state["said"]))]}

    def second(state: State) -> State:
        think(" ".join(state["said"]))
        return {"said": [act("second", len(state["said"]))]}

    def crash(state: State) -> State:
        if crashes and len(state["said"]) > 2:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"said": []}

    def third(state: State) -> State:
        return {"said": [act("third", len(state["said"]))]}

    nodes = (first, second, crash, third)
    inner: Any = StateGraph(State).add_sequence(nodes).add_edge(START, "first")
    if not nested:
        return inner.compile(checkpointer=checkpointer)

    def count(state: State) -> State:
        return {"said": [act("count", len(state["said"]))]}

    outer: Any = StateGraph(State).add_sequence([count, ("inner", inner.compile(checkpointer=True))])
    return outer.add_edge(START, "count").compile(checkpointer=checkpointer)


CONFIG = {"configurable": {"thread_id": "mine"}}


async def go(folder: Path, what: str, mode: str) -> None:
    store = f"sqlite:{folder}/oao.db"
    orchestrator = oao.Orchestrator(store=store)
    crashes = what == "run"
    task = {"said": ["hello"]}
    connection = sqlite3.connect(folder / "threads.db", check_same_thread=False)
    async with AsyncSqliteSaver.from_conn_string(str(folder / "threads.db")) as asaver:
        saver: Any = {"none": None, "async": asaver}.get(mode) if mode in {"none", "async"} else SqliteSaver(connection)
        quiet = graph_of(folder, saver, crashes=False, nested=mode == "nested")
        graph = graph_of(folder, saver, crashes=crashes, nested=mode == "nested")
        agent = graph.with_config(CONFIG) if mode not in {"none", "own"} else graph
        if what == "before":
            # A turn of the user's own, before the run and outside of it.
            await quiet.ainvoke({"said": []}, CONFIG) if mode == "async" else quiet.invoke({"said": []}, CONFIG)
            return
        if what == "run":
            if mode == "async":
                await orchestrator.run_async(agent, task, execution_id="r")
            orchestrator.run(agent, task, execution_id="r")
            return
        if mode == "async":
            is_whole = what == "whole"
            report = await (orchestrator.run_async(agent, task) if is_whole else orchestrator.resume_async("r", agent))
            state = (await graph.aget_state(CONFIG)).values
        else:
            is_whole = what == "whole"
            report = orchestrator.run(agent, task, execution_id="r") if is_whole else orchestrator.resume("r", agent)
            config = {"configurable": {"thread_id": "r"}} if mode == "own" else CONFIG
            state = graph.get_state(config).values if saver is not None else None
        connection.close()
        said = {"report": report.model_dump(mode="json"), "state": state}
        (folder / f"{what}.said").write_text(json.dumps(said))


def step(folder: Path, what: str, mode: str) -> None:
    """Do one thing in a process of its own, and write how that ended, with the effects so far."""
    context = multiprocessing.get_context("fork")
    process = context.Process(target=lambda: asyncio.run(go(folder, what, mode)))
    process.start()
    process.join(60)
    said, effects = folder / f"{what}.said", folder / "effects"
    found = {
        "exitcode": process.exitcode,
        "effects": effects.read_text().splitlines() if effects.exists() else [],
        "said": json.loads(said.read_text()) if said.exists() else None,
    }
    (folder / f"{what}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    for place, _, what_ in (argument.rpartition(":") for argument in sys.argv[2:]):
        step(Path(place), what_, sys.argv[1])
