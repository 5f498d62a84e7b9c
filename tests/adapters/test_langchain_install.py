"""Patches: in any order of imports, once, and refused where a framework has changed."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
from langchain_core.language_models.chat_models import BaseChatModel

from oao_harness.adapters import langchain_llms, langchain_models, langchain_tools, langgraph_loop
from oao_harness.adapters.patching import require
from oao_harness.errors import FrameworkError

ROOT = Path(__file__).parents[2]
PATHS = "import sys; sys.path[:0] = ['.', 'hookspecs']\n"

BODY = """
import tests.adapters.scripted as s
from langchain.agents import create_agent
from langchain_core.tools import tool
ran = []
@tool
def add(a: int, b: int) -> int:
    "Add."
    ran.append(1)
    return a + b
graph = create_agent(s.Scripted(script=[s.asks(("add", {"a": 1, "b": 2})), s.says("three")]), [add])
report = oao_harness.Orchestrator().run(graph, "1+2?")
assert (report.error, report.model_calls, report.tool_calls, report.total_steps) == (None, 2, 1, 3), report
report = oao_harness.Orchestrator(oao_harness.ToolPolicy(deny=["add"])).run(graph, "1+2?")
assert report.status == "FAILED" and len(ran) == 1, report
"""
FIRST = "import oao_harness; oao_harness.Orchestrator()"
ORDERS = {
    "tools first": ["import langchain_core.tools", FIRST],
    "models first": ["import langchain_core.language_models.chat_models", FIRST],
    "oao, then structured": [FIRST, "import langchain_core.tools.structured"],
    "oao, then models": [FIRST, "import langchain_core.language_models.chat_models"],
    "oao, then llms": [FIRST, "import langchain_core.language_models.llms"],
    "agents, then oao": ["from langchain.agents import create_agent", FIRST],
    "oao, then prebuilt": [FIRST, "from langgraph.prebuilt import ToolNode"],
}


def python(code: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-W", "error", "-c", PATHS + code]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT, check=False)


@pytest.mark.parametrize("order", ORDERS)
def test_patches_hold_in_any_order_of_imports(order: str) -> None:
    """Whichever module of LangChain or LangGraph comes first, before or after oao, every leaf is governed."""
    code = "\n".join([*ORDERS[order], BODY])
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_importing_oao_imports_no_framework() -> None:
    """Who does not use LangChain does not pay for it."""
    code = f"{FIRST}; import sys; assert not [m for m in sys.modules if m.startswith(('langchain', 'langgraph'))]"
    done = python(code)
    assert done.returncode == 0, done.stderr


def test_installing_again_changes_nothing() -> None:
    """Patches are made once, also when several threads make them."""
    installs = [langchain_models.install, langchain_llms.install, langchain_tools.install, langgraph_loop.install]
    for install in installs:
        install()
    before = BaseChatModel._generate_with_cache
    threads = [threading.Thread(target=install) for install in installs * 4]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert BaseChatModel._generate_with_cache is before


def test_a_framework_without_its_leaves_is_refused() -> None:
    """The message says what is missing, what is installed, and what to do."""

    class Stripped:
        def tick(self) -> None: ...

    require(Stripped, ("tick",), "langgraph")
    with pytest.raises(FrameworkError) as caught:
        require(Stripped, ("tick", "tock"), "langgraph")
    text = str(caught.value)
    assert "Stripped has no tock" in text
    assert "installed is langgraph 1." in text
    assert "install a version" in text


def test_a_refused_patch_is_refused_again() -> None:
    """A second orchestrator does not run a framework ungoverned that the first one refused."""
    code = """
import sys, types
from oao_harness.runtime.leaves import install_when_imported
def install():
    raise RuntimeError("no leaves")
for _ in range(2):
    try:
        install_when_imported([("json", install)])
    except RuntimeError as error:
        print(error)
"""
    done = python("import json\n" + code)
    assert done.stdout.split("\n") == ["no leaves", "no leaves", ""], done.stderr
