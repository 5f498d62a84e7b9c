"""What is paid before anything is governed: imports, the pytest plugin, the memory of a worker that waits."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile

from benchmarks.contending import Contender, Figure, Goal, Row
from benchmarks.timing import Measure

HERE = "benchmarks.rows.imports"
GOAL_MS = 100.0
OURS, PLUGIN = "import oao_harness", "import pytest_oao.plugin, beside import pytest"
FACE = "from oao_harness import Orchestrator, StrictPolicy"
CPU_MS = Figure(key="cpu_ms", unit="ms of the processor")
MEMORY = Figure(key="mib", unit="MiB")
MODULES = Figure(key="modules", unit="modules of ours", digits=0)
PEERS = {
    "import pytest": ("pytest", "pytest"),
    "import oao, the existing implementation": ("oao", "open-agent-orchestrator"),
    "import langchain.agents": ("langchain.agents", "langchain"),
    "import langgraph.graph": ("langgraph.graph", "langgraph"),
    "import pydantic_ai": ("pydantic_ai", "pydantic-ai-slim"),
    "import agents (openai-agents)": ("agents", "openai-agents"),
}


def row() -> Row:
    def imports(name: str, code: str, *packages: str, beside: str = "pass") -> Contender:
        return Contender(
            name=name,
            make=f"{HERE}:imported",
            options={"code": code, "beside": beside},
            process="imports",
            packages=packages,
        )

    return Row(
        id="imports",
        title="import",
        how="A fresh process each time that imports one thing and ends, minus one that imports nothing: processor "
        "time, byte code there already; and its memory above that of a bare interpreter.",
        figures=(CPU_MS, MEMORY, MODULES),
        rounds=11,
        contenders=(
            imports(OURS, "import oao_harness"),
            imports(FACE, FACE),
            imports(f"{FACE}, and a run", f"{FACE}; Orchestrator(policy=StrictPolicy()).run(lambda task: task, 'x')"),
            imports(PLUGIN, "import pytest_oao.plugin", beside="import pytest"),
            *(imports(name, f"import {module}", package) for name, (module, package) in PEERS.items()),
        ),
        goals=(
            Goal(says="import oao_harness under 100 ms", contender=OURS, at_most=GOAL_MS),
            Goal(says="with its classes under 100 ms", contender=FACE, at_most=GOAL_MS),
            Goal(says="the pytest plugin under 100 ms", contender=PLUGIN, at_most=GOAL_MS),
            Goal(
                says="nothing of ours is imported by the idle plugin", contender=PLUGIN, at_most=0, figure=MODULES.key
            ),
        ),
    )


def imported(*, code: str, beside: str) -> Measure:
    """Return what measures a process that executes code, minus one that executes what it is beside."""

    def measure() -> dict[str, float]:
        empty, with_it = _process(beside), _process(code)
        return {key: with_it[key] - empty[key] for key in empty}

    return measure


_TELL = """
import sys
modules = sum(name.split(".")[0] in ("oao_harness", "oao_hookspecs") for name in sys.modules)
status = open("/proc/self/status").read()
print("\\n%d %s" % (modules, status.split("VmRSS:")[1].split()[0]), file=sys.stderr)
"""


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _process(code: str) -> dict[str, float]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = _children_s()
    done = subprocess.run(
        [sys.executable, "-c", code + _TELL],
        env=environment, cwd=tempfile.gettempdir(), capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    cpu_s = _children_s() - before
    modules, kib = done.stderr.splitlines()[-1].split()
    return {"cpu_ms": cpu_s * 1e3, "mib": int(kib) / 1024, "modules": float(modules)}
