"""`oao run --unmodified`: scripts that know nothing of oao, each in a process of its own, as a user starts them."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from oao_harness.cli import main
from pytest_oao.testing import OpenAIServer

ASK = """
import openai

def ask(what):
    made = openai.OpenAI().chat.completions.create(model="gpt-4o-mini", messages=[{"role": "user", "content": what}])
    return made.choices[0].message.content
"""
ROOT = Path(__file__).parent.parent.parent


@dataclass(frozen=True, slots=True)
class Ended:
    """How a process ended, and what it printed."""

    code: int
    out: str
    err: str


def child(args: list[str], folder: str, base_url: str, typed: str) -> None:
    """Be `oao ARGS`: real descriptors, a real main thread and a real end, without the second that importing takes."""
    os.chdir(folder)
    os.environ.update(OPENAI_BASE_URL=base_url, OPENAI_API_KEY="none", COLUMNS="120", NO_COLOR="1")
    Path("typed").write_text(typed, encoding="utf-8")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, name, flags in (
        (0, "typed", os.O_RDONLY),
        (1, "out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
        (2, "err", os.O_WRONLY | os.O_CREAT | os.O_TRUNC),
    ):
        opened = os.open(name, flags)
        os.dup2(opened, number)
        os.close(opened)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    sys.path[0] = folder
    main(args, prog_name="oao")


class Oao:
    """Runs `oao` in a folder."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self.folder = folder
        self._base_url = base_url
        self._processes = multiprocessing.get_context("forkserver")
        self._processes.set_forkserver_preload(["oao_harness.cli.run", "oao_harness.cli.unmodified", "openai"])

    def start(self, *args: str, typed: str = "") -> Any:
        """Start it."""
        process = self._processes.Process(target=child, args=([*args], str(self.folder), self._base_url, typed))
        process.start()
        return process

    def ended(self, process: Any) -> Ended:
        """Wait for its end."""
        process.join(20)
        assert process.exitcode is not None, "it did not end"
        return Ended(process.exitcode, (self.folder / "out").read_text(), (self.folder / "err").read_text())

    def __call__(self, *args: str, typed: str = "") -> Ended:
        return self.ended(self.start(*args, typed=typed))


Write = Callable[[str, str], None]


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    """A model that says `fine`."""
    with OpenAIServer(respond=lambda body: "fine") as running:
        yield running


@pytest.fixture
def oao(tmp_path: Path, server: OpenAIServer) -> Oao:
    """`oao` in a folder of its own, whose scripts ask the server."""
    return Oao(tmp_path, server.url)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Writes a file into the folder."""

    def to(name: str, text: str) -> None:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(textwrap.dedent(text), encoding="utf-8")

    return to


def test_a_script_runs_as_python_runs_it(write: Write, tmp_path: Path, server: OpenAIServer) -> None:
    """Own `__main__`, argv, file and path; a new interpreter that has imported nothing of the script's before."""
    write("near.py", "word = 'beside the script'\n")
    write("deep/near.py", "word = 'beside the script in its folder'\n")
    write(
        "deep/agent.py",
        ASK
        + """
import os, pickle, sys
from near import word

class Kept: pass

if __name__ == "__main__":
    print(sys.argv, os.path.relpath(__file__), os.path.relpath(sys.path[0]), word, sep="|")
    print(type(pickle.loads(pickle.dumps(Kept()))).__module__, sys.modules["__main__"].__file__ == __file__)
    print(ask("hello"))
""",
    )
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'hookspecs'}"}
    environment |= {"OPENAI_BASE_URL": server.url, "OPENAI_API_KEY": "none"}
    command = [sys.executable, "-m", "oao_harness", "run", "--unmodified", "deep/agent.py", "--policy", "x"]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=30, check=False
    )

    assert done.stdout.splitlines() == [
        "['deep/agent.py', '--policy', 'x']|deep/agent.py|deep|beside the script in its folder",
        "__main__ True",
        "fine",
    ]
    assert done.returncode == 0, done.stderr
    assert "1 model call" in done.stderr


def test_every_call_of_a_script_is_of_its_run(oao: Oao, write: Write) -> None:
    """From its threads, executors, loop and exit functions too; standard output is the script's alone."""
    write(
        "agent.py",
        ASK
        + """
import asyncio, atexit, sys, threading, time
from concurrent.futures import ThreadPoolExecutor

atexit.register(lambda: print("at exit", ask("exit")))
pool = ThreadPoolExecutor(2)
pool.submit(lambda: (time.sleep(0.1), ask("pool")))
threading.Thread(target=lambda: (time.sleep(0.2), ask("thread"))).start()

async def loop():
    made = await openai.AsyncOpenAI().chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": "async"}])
    print(made.choices[0].message.content)

asyncio.run(loop())
print("typed", input())
sys.exit(5)
""",
    )
    done = oao("run", "--unmodified", "agent.py", typed="hello\n")

    assert (done.code, done.out) == (5, "fine\ntyped hello\nat exit fine\n")
    assert "4 model calls" in done.err
    assert "the script ended with exit code 5" in done.err


def test_json_is_the_report_alone(oao: Oao, write: Write) -> None:
    """With --json what the script and its processes print goes to standard error."""
    write("agent.py", ASK + "import os\nprint('mine')\nos.system('echo echoed')\nask('hello')\n")

    done = oao("run", "--json", "--unmodified", "agent.py")

    report = json.loads(done.out)
    assert (report["status"], report["model_calls"], report["agent_name"]) == ("SUCCESS", 1, "agent.py")
    assert any("ungoverned-process" in line for line in report["ungoverned"])
    assert "mine" in done.err
    assert "echoed" in done.err


def test_an_error_is_shown_as_python_shows_it(oao: Oao, write: Write) -> None:
    """The traceback has the script's frames and none of oao; exit code 1; the report names the error."""
    write("agent.py", ASK + "def work():\n    ask('x')\n    raise ValueError('no such order')\n\nwork()\n")

    done = oao("run", "--unmodified", "agent.py")

    trace = done.err[: done.err.index("ValueError: no such order")]
    assert done.code == 1
    assert trace.startswith("Traceback (most recent call last):\n")
    assert trace.count("  File ") == 2
    assert "oao_harness" not in trace
    assert "✘ FAILED" in done.err


def test_a_denial_cannot_be_caught_away(oao: Oao, write: Write, server: OpenAIServer) -> None:
    """Whatever the script catches, nothing more passes, and one that goes on for ever is ended."""
    write("policy.toml", "[limits]\nmax_model_calls = 1\n")
    write(
        "agent.py",
        ASK
        + """
while True:
    try:
        print(ask("again"), flush=True)
    except BaseException as error:
        print(type(error).__name__, flush=True) if "once" not in globals() else None
        once = True
""",
    )
    done = oao("run", "--policy", "policy.toml", "--unmodified", "agent.py")

    assert (done.code, done.out) == (1, "fine\nPolicyViolation\n")
    assert "max_model_calls" in done.err
    assert "Traceback" not in done.err
    assert len(server.requests) == 1


def test_a_script_that_hangs_ends_at_the_time_limit(oao: Oao, write: Write) -> None:
    """It is interrupted, so that what it has to clean up is cleaned up."""
    write("policy.toml", "[limits]\ntimeout_seconds = 0.3\n")
    write("agent.py", "import time\ntry:\n    time.sleep(60)\nfinally:\n    print('cleaned up')\n")
    began = time.monotonic()

    done = oao("run", "--policy", "policy.toml", "--unmodified", "agent.py")

    assert time.monotonic() - began < 10
    assert (done.code, done.out) == (1, "cleaned up\n")
    assert "timeout" in done.err


def test_a_held_call_waits_and_the_script_goes_on_from_the_journal(
    oao: Oao, write: Write, server: OpenAIServer
) -> None:
    """Exit code 3; once approved, `oao resume` starts it again, and serves what was made."""
    write("policy.toml", '[[rule]]\nname = "look"\nmodels = ["*"]\nwhen = "run.model_calls == 1"\nthen = "ask"\n')
    write("agent.py", ASK + "import sys\nprint(ask(sys.argv[1]), flush=True)\nprint(ask('second'))\n")

    held = oao("run", "--policy", "policy.toml", "--unmodified", "agent.py", "first")
    assert (held.code, held.out) == (3, "fine\n")
    assert "SUSPENDED" in held.err

    approved = oao("approvals", "--json")
    assert oao("approve", json.loads(approved.out)[0]["id"], "--as", "ann").code == 0
    resumed = oao("resume")
    assert (resumed.code, resumed.out) == (0, "fine\nfine\n")
    assert len(server.requests) == 2


def test_a_replay_asks_nobody(oao: Oao, write: Write, server: OpenAIServer) -> None:
    """The script runs again with the recorded answers; one that asks for something else diverges."""
    write("agent.py", ASK + "print(ask('first'))\n")
    assert oao("run", "--unmodified", "agent.py").code == 0

    again = oao("replay", "last")
    assert (again.code, again.out) == (0, "fine\n")
    write("agent.py", ASK + "print(ask('another'))\n")
    assert oao("replay", "last").code == 1
    assert len(server.requests) == 1


def test_ctrl_c_ends_the_script_as_without_oao(oao: Oao, write: Write) -> None:
    """Its `finally` runs, the exit code is 130, and the run can be resumed."""
    write(
        "agent.py",
        ASK + "import time\nask('x')\ntry:\n    open('ready', 'w')\n    time.sleep(60)\nfinally:\n    print('bye')\n",
    )
    process = oao.start("run", "--unmodified", "agent.py")
    for _ in range(1000):
        if (oao.folder / "ready").exists():
            break
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)

    done = oao.ended(process)

    assert (done.code, done.out) == (130, "bye\n")
    assert "KeyboardInterrupt" in done.err
    assert "SUSPENDED" in done.err


def test_a_module_and_its_processes(oao: Oao, write: Write) -> None:
    """`-m` starts a module; `multiprocessing` finds the script again in its children, which the report names."""
    write("pkg/__init__.py", "")
    write(
        "pkg/work.py",
        """
        import multiprocessing, sys
        from pkg import word

        def double(n):
            return n * 2

        if __name__ == "__main__":
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                print(sys.argv[1:], pool.map(double, [21]), word.__name__)
        """,
    )
    write("pkg/word.py", "")
    done = oao("run", "--unmodified", "-m", "pkg.work", "-m", "x")

    assert (done.code, done.out) == (0, "['-m', 'x'] [42] pkg.word\n"), done.err
    assert "ungoverned-process" in done.err
    assert "no model call and no tool call" in done.err


def test_a_script_that_uses_oao_itself(oao: Oao, write: Write) -> None:
    """Its runs are nested in the script's, and so are its tools: the outer policy holds for them."""
    write("policy.toml", '[tools]\ndeny = ["pay"]\n')
    write(
        "agent.py",
        """
        import oao_harness

        @oao_harness.tool
        def look(): return "looked"

        @oao_harness.tool
        def pay(): print("PAID")

        print(look())
        print(oao_harness.Orchestrator().run(lambda task: pay(), "x").status)
        """,
    )
    done = oao("run", "--policy", "policy.toml", "--unmodified", "agent.py")

    assert done.code == 1
    assert "PAID" not in done.out
    assert "tools.deny" in done.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "name a script"),
        (["gone.py"], "there is no script 'gone.py'"),
        (["."], "'.' is a folder"),
        (["wrong.py"], "wrong.py:1: SyntaxError"),
        (["-m", "gone"], "there is no module 'gone'"),
        (["-m"], "name a module"),
    ],
)
def test_what_cannot_be_run_is_one_line(
    words: list[str], said: str, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 2, and no run in the journal."""
    monkeypatch.chdir(tmp_path)
    write("wrong.py", "def (\n")
    done = CliRunner().invoke(main, ["run", "--unmodified", *words])

    assert done.exit_code == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / ".oao").exists()
