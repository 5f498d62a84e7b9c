"""What a user may get wrong with `oao run`: one line that says what to do, exit code 2, no traceback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import Oao, Write


def refused(oao: Oao, *args: str) -> str:
    """Run a wrong command and return its standard error."""
    result = oao("run", *args)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    assert "Traceback" not in result.stderr
    return result.stderr


@pytest.mark.parametrize("spec", ["shop", "shop:", ":support", "shop.py:support", "./shop.py:support"])
def test_another_form_than_module_agent_is_refused(oao: Oao, agents: str, spec: str) -> None:
    """The message shows the form; a path is turned into the module that was meant."""
    said = refused(oao, spec, "x")

    assert "is not of the form module:agent; write for example " in said
    assert (".py:" not in spec) or said.endswith("shop:support\n")


def test_an_unknown_module_suggests_a_near_one(oao: Oao, agents: str) -> None:
    """A typing error in the module is answered with the module of the working folder that is nearest."""
    assert "there is no module 'shp' " in refused(oao, "shp:support", "x")
    assert "did you mean 'shop'?" in refused(oao, "shp:support", "x")


def test_an_unknown_module_says_where_to_look(oao: Oao) -> None:
    """Where nothing is near, the message says what to do."""
    assert "run oao in the folder that holds it, or install it" in refused(oao, "qqqq.agents:support", "x")


def test_a_missing_attribute_suggests_a_near_one(oao: Oao, agents: str) -> None:
    """A typing error in the agent's name is answered with the nearest name of the module."""
    assert "'shop' has no 'suport'; did you mean 'support'?" in refused(oao, "shop:suport", "x")


def test_a_missing_attribute_lists_what_there_is(oao: Oao, agents: str, write: Write) -> None:
    """Where no name is near, what can be run is listed; where there is nothing, that is said."""
    assert "it has find, outer, ask, support" in refused(oao, "shop:qqqq", "x")
    write("empty", "x = 1\n")
    assert "it holds nothing that can be run" in refused(oao, "empty:qqqq", "x")


def test_what_is_no_agent_is_refused(oao: Oao, agents: str) -> None:
    """A number cannot be run."""
    assert "there is no way to run 7" in refused(oao, "shop:number", "x")


def test_a_class_is_refused(oao: Oao, agents: str) -> None:
    """The message shows the line that makes an instance."""
    assert "'shop:Desk' is a class" in refused(oao, "shop:Desk", "x")
    assert "`agent = Desk(...)`" in refused(oao, "shop:Desk", "x")


def test_a_graph_that_is_not_compiled_is_refused(oao: Oao, write: Write) -> None:
    """The message shows the line that compiles it."""
    write("graphs", "class StateGraph:\n    def compile(self): return lambda task: task\ngraph = StateGraph()\n")

    said = refused(oao, "graphs:graph", "x")

    assert "'graphs:graph' is a StateGraph that is not compiled" in said
    assert "`agent = graph.compile()`" in said


def test_a_factory_is_refused(oao: Oao, agents: str) -> None:
    """A function that takes no task, or answers with an agent, is not run in place of what it makes."""
    assert "takes no argument" in refused(oao, "shop:make", "x")
    assert "returned an agent (function) and not an answer" in refused(oao, "shop:make")


def test_json_that_is_none_is_refused(oao: Oao, agents: str) -> None:
    """Where and why the JSON ends is said."""
    assert "--input '{order' is not JSON: " in refused(oao, "shop:echo", "--input", "{order")


def test_two_tasks_are_refused(oao: Oao, agents: str) -> None:
    """TASK and --input exclude each other."""
    assert "the task is given twice" in refused(oao, "shop:echo", "x", "--input", "{}")


def test_an_unknown_policy_suggests_a_near_one(oao: Oao, agents: str) -> None:
    """A typing error in a policy lists the known ones."""
    said = refused(oao, "shop:support", "x", "--policy", "strct")

    assert "did you mean 'strict'?" in said
    assert "known: observe, off, standard, strict" in said


def test_an_unknown_framework_lists_the_known_ones(oao: Oao, agents: str) -> None:
    """--framework names an adapter."""
    assert "unknown framework 'qq'; known: " in refused(oao, "shop:support", "x", "--framework", "qq")


def test_an_unknown_store_is_refused(oao: Oao, agents: str, folder: Path) -> None:
    """A scheme that no plugin opens, and a path that cannot be a database, are the user's to mend."""
    assert "no plugin opens the store 'qq://x'" in refused(oao, "shop:support", "x", "--store", "qq://x")
    assert "choose another --store" in refused(oao, "shop:support", "x", "--store", str(folder))


def test_a_module_that_raises_shows_the_users_frames_only(oao: Oao, write: Write) -> None:
    """The error comes first, then where in the user's code; frames of Python and of oao are left out."""
    write(
        "bad",
        """
        import json

        def settings():
            return json.loads("{")

        settings()
        """,
    )

    said = refused(oao, "bad:agent", "x").splitlines()

    assert said[0].startswith("error: importing 'bad' failed: JSONDecodeError: Expecting property name")
    assert said[1:] == [
        "  bad.py:7 in <module>",
        "    settings()",
        "  bad.py:5 in settings",
        '    return json.loads("{")',
    ]


def test_a_module_that_is_no_python_shows_the_line(oao: Oao, write: Write) -> None:
    """A syntax error names file and line."""
    write("bad", "x = 1\ndef f(:\n")

    assert refused(oao, "bad:agent", "x").splitlines()[1:] == ["  bad.py:2", "    def f(:"]


def test_a_missing_dependency_is_not_a_missing_agent(oao: Oao, write: Write) -> None:
    """Where the user's module imports something that is not installed, that import is shown."""
    write("bad", "import not_installed_here\n")

    said = refused(oao, "bad:agent", "x")

    assert "importing 'bad' failed: ModuleNotFoundError: No module named 'not_installed_here'" in said
    assert "bad.py:1 in <module>" in said


def test_a_module_that_exits_is_an_error(oao: Oao, write: Write) -> None:
    """A script without a main guard must not end `oao` as if all were well."""
    write("bad", "import sys\nsys.exit(0)\n")

    assert "importing 'bad' failed: SystemExit: 0" in refused(oao, "bad:agent", "x")


def test_a_policy_module_that_raises_shows_the_users_frames(oao: Oao, agents: str, write: Write) -> None:
    """A broken policy module is reported like a broken agent module."""
    write("rules", "1 / 0\n")

    said = refused(oao, "shop:support", "x", "--policy", "rules:mine")

    assert "importing 'rules' failed: ZeroDivisionError" in said
    assert "rules.py:1 in <module>" in said
