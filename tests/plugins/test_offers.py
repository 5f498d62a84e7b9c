"""What `pip install` of a package adds besides: commands and redactors."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness import ConfigError
from oao_harness.config import project_scrubber
from oao_harness.plugins.manager import hook_names, make_manager

if TYPE_CHECKING:
    from tests.plugins.conftest import Oao, Site

COMMANDS = """
import click
from oao_hookspecs import hookimpl

@click.command("{name}", short_help="Says hello.")
def hello():
    click.echo("hello from a plugin")

@hookimpl
def oao_commands():
    return [hello]
"""
REDACTORS = """
from oao_hookspecs import hookimpl

def cards(text):
    {body}

@hookimpl
def oao_redactors():
    return [cards]
"""


def command(site: Site, package: str, name: str) -> None:
    module = package.replace("-", "_")
    sources = {f"{module}.py": COMMANDS.format(name=name)}
    site.install(package, points={package: module}, sources=sources)


def test_a_command_is_listed_and_run(site: Site, oao: Oao) -> None:
    """One entry point is enough; its name is suggested like any other."""
    command(site, "greeter", "hello")

    assert "hello  Says hello." in oao("--help").stdout
    assert oao("hello").stdout == "hello from a plugin\n"
    assert "did you mean 'hello'?" in oao("helo").stderr


def test_a_command_replaces_none(site: Site, oao: Oao) -> None:
    """Neither one of ours, nor that of another plugin; each clash is said, and `oao` goes on."""
    command(site, "one", "run")
    command(site, "two", "hello")
    command(site, "three", "hello")

    shown = oao("--help")
    assert shown.exit_code == 0
    assert "plugin 'one' offers a command 'run', which oao has; it is left out" in shown.stderr
    assert "both offer a command 'hello'; both are left out" in shown.stderr
    assert "hello from a plugin" not in oao("run", "--help").output
    assert oao("hello").exit_code == 2


@pytest.mark.parametrize(
    "source",
    ["raise ValueError('broken')", "raise SystemExit(0)", COMMANDS.format(name="x").replace("[hello]", "[1 / 0]"),
     COMMANDS.format(name="x").replace("[hello]", "[1]")],
)  # fmt: skip
def test_a_broken_plugin_does_not_break_the_help(site: Site, oao: Oao, source: str) -> None:
    """One line says which plugin; the commands of the others are there."""
    command(site, "greeter", "hello")
    site.install("broken", points={"broken": "broken"}, sources={"broken.py": source})

    shown = oao("--help")
    assert shown.exit_code == 0
    assert "hello  Says hello." in shown.stdout
    assert len(shown.stderr.splitlines()) == 1
    assert shown.stderr.startswith("error: plugin 'broken'")


def test_our_own_commands_import_no_plugin(site: Site, oao: Oao, configure: Callable[..., Path]) -> None:
    """What a plugin is cannot depend on the plugin: `oao plugins` works where it is refused."""
    site.install()
    assert oao("plugins", "list").exit_code == 0
    assert oao("hooks").exit_code == 0
    configure(verify="strict")
    assert "Commands of plugins" not in oao("--help").stdout
    assert not site.ran


def test_the_help_is_as_fast_as_it_was() -> None:
    """Without a plugin, nothing of the machine is imported to list the commands."""
    code = (
        "import sys; from oao_harness.cli import main; main(['--help'], standalone_mode=False); "
        "assert not {'pydantic', 'pluggy', 'packaging.version', 'rich.console'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)

    assert done.stderr == ""


def test_a_redactor_is_asked_about_each_text_that_is_recorded(site: Site) -> None:
    """Keys and values, at any depth; found is enough: a plugin may always provide."""
    body = "return text.replace('4111', '<card>')"
    site.install("cards", points={"cards": "cards_plugin"}, sources={"cards_plugin.py": REDACTORS.format(body=body)})

    scrubbed = project_scrubber().scrub({"a 4111": ["4111 4111", {"x": "pay 4111"}], "n": 4111})

    assert scrubbed == {"a <card>": ["<card> <card>", {"x": "pay <card>"}], "n": 4111}


@pytest.mark.parametrize("body", ["raise ValueError(text)", "return None"])
def test_a_redactor_that_fails_withholds_the_text(site: Site, body: str) -> None:
    """What it would have taken out may be in it."""
    site.install("cards", points={"cards": "cards_plugin"}, sources={"cards_plugin.py": REDACTORS.format(body=body)})

    assert project_scrubber().scrub({"a": "4111"}) == {"<redacted>": "<redacted>"}


def test_what_is_no_redactor_is_refused(site: Site) -> None:
    """At the start, not in the middle of a recording."""
    source = REDACTORS.format(body="return text").replace("[cards]", "['cards']")
    site.install("cards", points={"cards": "cards_plugin"}, sources={"cards_plugin.py": source})

    with pytest.raises(ConfigError, match="oao_redactors offers 'cards'; offer functions from text to text"):
        project_scrubber()


def test_an_unknown_hook_is_an_error_at_the_start_and_fewer_arguments_are_none(site: Site) -> None:
    """A typing error suggests the hook; a plugin takes the arguments that it needs, of every hook that there is."""
    source = "from oao_hookspecs import hookimpl\n@hookimpl\ndef oao_run_finish(event): ...\n"
    site.install("typo", points={"typo": "typo_plugin"}, sources={"typo_plugin.py": source})
    with pytest.raises(ConfigError, match="'oao_run_finish', which is no hook of oao; did you mean 'oao_run_finished'"):
        make_manager(())

    every = [name for names in hook_names().values() for name in names]
    source = "from oao_hookspecs import hookimpl\n" + "".join(f"@hookimpl\ndef {name}(): ...\n" for name in every)
    fewest = type("Fewest", (), {})()
    scope: dict[str, object] = {}
    exec(source, scope)
    for name in every:
        if name not in {"oao_policies", "oao_listeners"}:
            setattr(fewest, name, scope[name])
    make = __import__("sys").path
    make.remove(str(site.folder))
    manager, _ = make_manager((), [fewest])
    assert len(manager.get_hookcallers(fewest) or ()) == len(every) - 2
