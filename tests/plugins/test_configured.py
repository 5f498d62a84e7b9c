"""`[tool.oao] plugins`, `required`, `disabled`, `verify`: read wherever a plugin manager is made."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness import ConfigError, Orchestrator, tool
from oao_harness.plugins.manager import make_manager
from oao_harness.runtime.rejudging import Rejudge

if TYPE_CHECKING:
    from tests.plugins.conftest import Site

Configure = Callable[..., Path]


def ask(**options: object) -> str | None:
    """What became of a run that calls a tool."""
    act = tool(lambda: 1, name="act")
    return Orchestrator(**options).run(lambda task: act(), "x").error  # type: ignore[arg-type]


def test_a_plugin_that_the_project_names_decides_everywhere(site: Site, configure: Configure) -> None:
    """In an orchestrator, and where recorded runs are judged again."""
    site.install()
    assert ask() is None

    configure(plugins=["guard"])

    assert ask() == "guard: the guard says no"
    assert Rejudge([]).hears("oao_decide_tool_call")


def test_the_project_may_be_another_folder(site: Site, configure: Configure, tmp_path: Path) -> None:
    """A test that changes the working folder does not lose the plugins of its session."""
    site.install()
    path = configure(plugins=["guard"])
    (tmp_path / "elsewhere").mkdir()
    import os

    os.chdir(tmp_path / "elsewhere")

    assert ask() is None
    assert ask(project=path.parent) == "guard: the guard says no"


@pytest.mark.parametrize(("key", "verb"), [("required", "requires"), ("plugins", "names")])
def test_one_that_is_missing_stops_the_start(site: Site, configure: Configure, key: str, verb: str) -> None:
    """With what, where, and what to do."""
    site.install()
    configure(**{key: ["guard", "gaurd"]})

    with pytest.raises(ConfigError) as refused:
        make_manager(())
    said = str(refused.value)
    assert said.startswith(f"pyproject.toml:2: the project {verb} the plugin 'gaurd', which is not installed")
    assert "did you mean 'guard'?" in said


def test_one_that_is_required_is_used_and_does_not_decide(site: Site, configure: Configure) -> None:
    """To be there is one thing, to decide another."""
    site.install()
    configure(required=["guard"])

    assert ask() is None
    assert site.ran


def test_one_that_is_disabled_is_never_imported(site: Site, configure: Configure) -> None:
    """Proven by what its first line would have done."""
    site.install()
    configure(disabled=["guard"])

    assert ask() is None
    assert not site.ran
    with pytest.raises(ConfigError, match=r"plugin 'guard' is disabled at pyproject.toml:2"):
        ask(plugins=["guard"])


def test_what_cannot_be_meant_is_refused(site: Site, configure: Configure) -> None:
    """A typing error in `disabled` would let in what was to stay out."""
    site.install()
    for keys, said in (
        ({"disabled": ["gard"]}, r"pyproject.toml:2: the plugin 'gard' is disabled, and not installed; did you mean"),
        ({"disabled": ["guard"], "plugins": ["guard"]}, "is disabled here, and named under 'plugins' at"),
        ({"verify": "strickt"}, r"pyproject.toml:2: verify is 'strickt'; did you mean 'strict'\?"),
        ({"plugins": "guard"}, "plugins is 'guard'; give a list"),
        ({"plugins": [1]}, "plugins holds 1; give the name"),
        ({"pluggins": []}, r"unknown key 'pluggins'; did you mean 'plugins'\?"),
    ):
        configure(**keys)
        with pytest.raises(ConfigError, match=said):
            make_manager(())
    assert not site.ran
    configure(disabled=["something-else"])
    make_manager(())


def test_two_packages_with_one_name_are_refused(site: Site, tmp_path: Path, configure: Configure) -> None:
    """Else a package could take the name of a plugin that decides."""
    site.install()
    site.install("evil-guard", points={"guard": "evil_guard:guard"})
    configure(plugins=["guard"])

    with pytest.raises(ConfigError, match="two installed packages have a plugin named 'guard'"):
        make_manager(())
    assert not site.ran


def test_a_plugin_that_may_not_decide_offers_no_listener_that_does(site: Site) -> None:
    """The listener has the rights of who offers it."""
    source = """
from oao_hookspecs import Deny, hookimpl
class Hidden:
    name = "hidden"
    @hookimpl
    def oao_decide_tool_call(self, call):
        return Deny(rule="hidden", reason="no")
@hookimpl
def oao_listeners():
    return [Hidden()]
"""
    site.install("shop-ear", points={"ear": "shop_ear"}, sources={"shop_ear.py": source})

    assert ask() is None
    assert ask(plugins=["ear"]) == "hidden: no"


def test_a_changed_file_is_read_again(site: Site, configure: Configure) -> None:
    """What was read is kept only as long as the file is the same."""
    site.install()
    configure(disabled=["guard"])
    make_manager(())
    configure(plugins=["guard"], disabled=[])

    assert ask() == "guard: the guard says no"
    assert "shop_guard" in sys.modules
