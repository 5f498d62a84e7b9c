"""The five example plugins as a user has them: built, installed into a clean environment, discovered and run."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

ROOT = Path(__file__).parents[2]
KINDS: Final = ("adapter", "listener", "policy", "scheduler", "store")

# What is asked of the environment: one run with all five.
_SCRIPT: Final = '''
import asyncio, json, os, sys, threading
import parrot
from importlib.metadata import entry_points
from oao_harness import Agents, Fleet, Orchestrator
from pytest_oao.testing.openai_server import OpenAIServer
from pytest_oao.testing.replies import TextReply, ToolCall, ToolCallReply

def pay(amount: float) -> str:
    """Pay."""
    return f"paid {amount}"

asks = ToolCallReply(calls=(ToolCall(name="pay", arguments={"amount": 150}),))
with OpenAIServer(replies=[asks, TextReply(text="done")]) as server:
    orchestrator = Orchestrator("spend-guard", "folder:journals")
    report = orchestrator.run(parrot.Agent(parrot.Model("polly", server.url), [pay]), "pay 150")
with OpenAIServer(replies=[ToolCallReply(calls=(ToolCall(name="pay", arguments={"amount": 5000}),))]) as server:
    denied = orchestrator.run(parrot.Agent(parrot.Model("polly", server.url), [pay]), "pay 5000")

from oao_harness.schedulers.registry import oao_open_scheduler as _bundled
from oao_harness.plugins.manager import make_manager
from oao_hookspecs import Job, SchedulerSettings
queue = make_manager(())[0].hook.oao_open_scheduler(url="queue:jobs.db", settings=SchedulerSettings())

async def work():
    done, stop = [], asyncio.Event()
    async def handler(job):
        done.append(job.execution_id)
        stop.set()
    await queue.submit(Job(execution_id="one", agent="a"))
    await queue.work(handler, slots=1, stop=stop)
    await queue.close()
    return done

print(json.dumps({
    "plugins": sorted(point.name for point in entry_points(group="oao")),
    "status": report.status, "output": report.final_output, "tools": report.tool_usage, "models": report.model_calls,
    "denied": denied.violation["rule"], "stored": len(orchestrator.store.runs()), "jobs": asyncio.run(work()),
    "types": sorted([type(orchestrator.store).__module__, type(queue).__module__]),
    "audited": [json.loads(line)["event"] for line in open("audit.jsonl")],
}))
'''


def bare(**more: str) -> dict[str, str]:
    """An environment without the paths of this test session."""
    left_out = ("PYTHON", "VIRTUAL_ENV", "PYTEST")
    return {**{key: value for key, value in os.environ.items() if not key.startswith(left_out)}, **more}


def run(command: list[str], cwd: Path, **more: str) -> str:
    done = subprocess.run(command, cwd=cwd, env=bare(**more), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new virtual environment with six wheels; only what these depend on is taken from the environment of the tests.

    Taken by a path, and not downloaded again: `tests/test_install.py` does that. Plugins are found in it as anywhere.
    """
    pytest.importorskip("build", reason="the package `build` is not installed")
    pytest.importorskip("hatchling", reason="hatchling is not installed: nothing can be built without a download")
    folder = tmp_path_factory.mktemp("distributions")
    sources = [ROOT, *(folder / kind for kind in KINDS)]
    for kind in KINDS:
        # What builds may leave nothing in the repository.
        ignore = shutil.ignore_patterns("__pycache__", "dist", ".pytest_cache")
        shutil.copytree(ROOT / "examples" / f"plugin_{kind}", folder / kind, ignore=ignore)

    def build(source: Path) -> None:
        options = ["--wheel", "--no-isolation", "--quiet", "--outdir", str(folder / "wheels")]
        run([sys.executable, "-m", "build", *options, str(source)], folder)

    with ThreadPoolExecutor(3) as pool:
        made = pool.submit(venv.create, folder / ".venv", symlinks=True)
        list(pool.map(build, sources))
        made.result()
    python = folder / ".venv" / "bin" / "python"
    wheels = [str(path) for path in (folder / "wheels").glob("*.whl")]
    assert len(wheels) == len(KINDS) + 1
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-compile"]
    run([*pip, "--no-index", *wheels], folder)
    site = next((folder / ".venv" / "lib").glob("python*/site-packages"))
    # A .pth is not read for a folder of a .pth: an editable install of ours is not seen in there.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return folder


def test_all_five_are_installed_discovered_and_run(environment: Path) -> None:
    """One agent of the adapter's framework, judged by the policy, journaled by the store, heard by the listener."""
    python = str(environment / ".venv" / "bin" / "python")
    (environment / "asks.py").write_text(_SCRIPT, encoding="utf-8")
    said = json.loads(run([python, "asks.py"], environment, OAO_AUDIT_FILE="audit.jsonl"))

    names = {"oao-spend-guard", "oao-audit-lines", "oao-folder-store", "oao-file-queue", "oao-parrot"}
    assert names <= set(said["plugins"])
    assert (said["status"], said["output"], said["models"], said["tools"]) == ("SUCCESS", "done", 2, {"pay": 1})
    assert said["denied"] == "spend-guard.most"
    assert said["types"] == ["oao_file_queue.scheduler", "oao_folder_store.store"]
    assert (said["stored"], said["jobs"]) == (2, ["one"])
    assert said["audited"].count("EXECUTION_STARTED") == said["audited"].count("EXECUTION_COMPLETE") == 2
    assert said["audited"].count("POLICY_VIOLATION") == 1


def test_the_command_line_knows_them(environment: Path) -> None:
    """The console script of that environment: the store by its URL, the policy by its name."""
    oao = str(environment / ".venv" / "bin" / "oao")
    (environment / "shop.py").write_text(
        "from oao_harness import tool\n\n\n@tool\ndef pay(amount):\n    return amount\n\n\n"
        "def agent(task):\n    return pay(150) + pay(3)\n",
        encoding="utf-8",
    )
    options = ["--policy", "spend-guard", "--store", "folder:other", "--json"]
    report = json.loads(run([oao, "run", "shop:agent", "a task", *options], environment))
    assert (report["status"], report["final_output"]) == ("SUCCESS", 153)
    assert report["execution_id"] in run([oao, "runs", "--store", "folder:other", "--json"], environment)


def test_the_tests_of_the_plugins_themselves_pass(environment: Path) -> None:
    """As their authors run them, in that environment: the conformance suite of each kind."""
    python = str(environment / ".venv" / "bin" / "python")
    plugins = ["-p", "no:cacheprovider", "-p", "pytest_oao.plugin"]

    def tests(kind: str) -> str:
        command = [python, "-m", "pytest", "-q", *plugins]
        return run(command, environment / kind, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1")

    # They wait for each other's half of the time.
    with ThreadPoolExecutor(3) as pool:
        for said in pool.map(tests, ("scheduler", "store", "adapter", "listener", "policy")):
            assert " passed" in said
            assert "failed" not in said
