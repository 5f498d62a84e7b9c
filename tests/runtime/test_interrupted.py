"""Ctrl-C, by a real signal to a real process: the run is suspended wherever it was, and goes on."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

_PROGRAM = textwrap.dedent(
    """
    import asyncio, os, signal, sys, time
    from oao_harness import Orchestrator, tool
    from oao_hookspecs import Principal

    what, agent_name, where = sys.argv[1:4]

    def interrupt(here):
        if what != "resume" and here == where:
            os.kill(os.getpid(), signal.SIGINT)

    def note(line):
        with open("effects", "a") as file:
            file.write(line + "\\n")

    @tool(effect="once")
    def pay(who):
        note(f"pay {who}")
        interrupt("tool")
        return who

    @tool(effect="once")
    async def pay_async(who):
        note(f"pay {who}")
        if who == "bob":
            interrupt("tool")
        await asyncio.sleep(30 if what != "resume" and where == "tool" else 0)
        return who

    def sync_agent(task):
        interrupt("agent")
        return pay("bob")

    async def async_agent(task):
        interrupt("agent")
        await asyncio.sleep(0)
        return await pay_async("bob")

    async def side_by_side(task):
        interrupt("agent")
        await asyncio.sleep(0)
        return (await asyncio.gather(pay_async("bob"), pay_async("ann")))[0]

    agent = globals()[agent_name]
    orchestrator = Orchestrator(store="sqlite:oao.db")
    if what == "run":
        orchestrator.run(agent, "t", execution_id="r")
    elif what == "run_async":
        asyncio.run(orchestrator.run_async(agent, "t", execution_id="r"))
    else:
        found = orchestrator.in_doubt()
        for doubt in found:
            orchestrator.resolve(doubt.id, landed=True, result=doubt.arguments["who"], by=Principal(id="ann"))
        report = orchestrator.resume("r", agent, allow_changes=True)
        import json
        print(json.dumps([report.status, report.final_output, len(found)]))
    """
)


@pytest.mark.parametrize("where", ["tool", "agent"])
@pytest.mark.parametrize(
    ("how", "agent", "paid"),
    [
        ("run", "sync_agent", 1),
        ("run", "async_agent", 1),
        ("run_async", "async_agent", 1),
        ("run", "side_by_side", 2),
        ("run_async", "side_by_side", 2),
    ],
)
def test_ctrl_c_suspends_and_the_run_goes_on(tmp_path: Path, how: str, agent: str, where: str, paid: int) -> None:
    """Also in async code, where `asyncio.run` makes a cancellation of it: what was cut off is in doubt, not failed."""
    (tmp_path / "program.py").write_text(_PROGRAM, encoding="utf-8")

    def start(what: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "program.py", what, agent, where]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)

    assert "KeyboardInterrupt" in start(how).stderr
    after = start("resume")
    assert after.returncode == 0, after.stderr
    status, output, doubts = json.loads(after.stdout)
    assert (status, output) == ("SUCCESS", "bob")
    if where == "agent" or agent == "async_agent":
        assert doubts == (1 if where == "tool" else 0)
    assert len((tmp_path / "effects").read_text(encoding="utf-8").split("\n")) - 1 == paid
