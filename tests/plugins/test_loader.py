"""`PluginLoader`: a plugin of a single file, as the seed prints it; checked, active, and gone without a trace."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from oao_harness import ConfigError, Orchestrator, StrictPolicy, tool
from oao_harness.plugins.loader import PluginLoader
from oao_harness.plugins.manager import make_manager
from oao_harness.policy.registry import PolicyRegistry

if TYPE_CHECKING:
    from tests.plugins.conftest import Site

# As the seed prints it, with the name of this package, and the policy that the seed leaves to the reader.
SEED = """
from oao_harness.plugins.base import PluginInterface
from oao_harness.policy.registry import PolicyRegistry

class MyPlugin(PluginInterface):
    @property
    def name(self): return "my_security_plugin"
    
    @property
    def version(self): return "1.0.0"

    def activate(self):
        # Register custom components safely
        PolicyRegistry.register("custom_policy", MyCustomPolicy)
        
    def deactivate(self):
        pass
"""  # noqa: W293
POLICY = """
from oao_hookspecs import Limits, hookimpl

class MyCustomPolicy:
    @hookimpl
    def oao_limits(self, run):
        return Limits(max_tool_calls=0)
"""
HOOKED = """
from pathlib import Path
from oao_harness.plugins.base import PluginInterface
from oao_hookspecs import Deny, hookimpl

Path({ran!r}).write_text("ran")

class Guard(PluginInterface):
    name = "guard"
    version = "1.0.0"

    def activate(self): ...

    def deactivate(self): ...

    @hookimpl
    def oao_decide_tool_call(self, call):
        return Deny(rule="guard", reason="no")
"""


def ask(policy: object = None) -> str | None:
    act = tool(lambda: 1, name="act")
    return Orchestrator(policy).run(lambda task: act(), "x").error


def test_the_example_of_the_seed_runs(project: Path) -> None:
    """Its policy can be named; unloaded, nothing of it is left, though its `deactivate` does nothing."""
    (project / "my_plugin.py").write_text(SEED + POLICY)
    modules = set(sys.modules)
    registered = dict(PolicyRegistry.registered())

    plugin = PluginLoader.load("my_plugin.py")

    assert (plugin.name, plugin.version) == ("my_security_plugin", "1.0.0")
    assert ask("custom_policy") == "max_tool_calls: tool act: call 1, the limit is 0"
    PluginLoader.unload(plugin)
    assert set(sys.modules) == modules
    assert PolicyRegistry.registered() == registered
    assert not PluginLoader.loaded()
    with pytest.raises(ConfigError, match="unknown policy 'custom_policy'"):
        ask("custom_policy")


def test_its_hooks_are_asked_while_it_is_active(site: Site, project: Path) -> None:
    """By each orchestrator that is made then; a program that loads it has named it, so it decides."""
    (project / "guard.py").write_text(HOOKED.format(ran=str(site.mark)))
    plugin = PluginLoader.load(project / "guard.py")
    assert ask() == "guard: no"
    with pytest.raises(ConfigError, match="a plugin 'guard' is active already"):
        PluginLoader.load(project / "guard.py")

    PluginLoader.unload("guard")

    assert ask() is None
    assert not make_manager(())[0].has_plugin("guard")
    with pytest.raises(ConfigError, match="no plugin 'guard' is active; active: none"):
        PluginLoader.unload(plugin)
    PluginLoader.load(project / "guard.py")
    assert ask() == "guard: no"


def test_signed_altered_unsigned(
    site: Site, project: Path, sign: Callable[..., Path], trusting: Callable[..., object]
) -> None:
    """The same verification, with a manifest beside the file; an altered file never runs."""
    path = project / "guard.py"
    path.write_text(HOOKED.format(ran=str(site.mark)))
    with pytest.raises(ConfigError, match=r"guard.py is refused: nobody signed it, and verify = 'strict' admits"):
        PluginLoader.load(path, verify="strict")
    sign(path)
    with pytest.raises(ConfigError, match="nobody trusts the key"):
        PluginLoader.load(path, verify="strict")
    trusting("guard")
    source = path.read_text()
    path.write_text(source + "\n")
    for verify in ("auto", "strict"):
        with pytest.raises(ConfigError, match=r"guard.py is refused: it is not the file that was signed"):
            PluginLoader.load(path, verify=verify)
    (project / "guard.py.oao.json").rename(project / "gone.json")
    with pytest.raises(ConfigError, match=r"oao-trust.json says that Acme does"):
        PluginLoader.load(path)
    assert not site.ran

    (project / "gone.json").rename(project / "guard.py.oao.json")
    path.write_text(source)
    PluginLoader.load(path, verify="strict")
    assert site.ran
    assert ask() == "guard: no"


def test_strict_as_the_project_says(site: Site, project: Path, configure: Callable[..., Path]) -> None:
    """The project's word holds for files too."""
    (project / "guard.py").write_text(HOOKED.format(ran=str(site.mark)))
    configure(verify="strict")

    with pytest.raises(ConfigError, match=r"pyproject.toml:2 admits verified plugins only"):
        PluginLoader.load("guard.py")
    assert not site.ran


def test_a_version_or_hook_that_was_not_signed_is_refused(
    site: Site, project: Path, sign: Callable[..., Path], trusting: Callable[..., object]
) -> None:
    """What it says of itself is compared too."""
    (project / "guard.py").write_text(HOOKED.format(ran=str(site.mark)))
    trusting("guard")
    sign("guard.py", version="2.0.0")
    with pytest.raises(ConfigError, match=r"it says it is version 1.0.0, and version 2.0.0 was signed"):
        PluginLoader.load("guard.py")
    sign("guard.py", hooks=["oao_limits"])
    PluginLoader.load("guard.py")
    with pytest.raises(ConfigError, match="implements 'oao_decide_tool_call', which its signed manifest does not name"):
        Orchestrator(StrictPolicy())
    assert not [name for name in sys.modules if name.startswith("_oao_plugin_guard_")]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = (", "cannot be run: SyntaxError"),
        ("raise SystemExit(3)", "cannot be run: SystemExit: 3"),
        ("x = 1", "one class that implements PluginInterface, and this one has none"),
        (SEED.replace("def deactivate", "def deactivated"), r"has none \(MyPlugin lacks deactivate\)"),
        (SEED + SEED.replace("MyPlugin", "Other"), "has 2 of them: MyPlugin, Other"),
        (SEED.replace("1.0.0", "one"), "version 'one' is none that PEP 440 knows"),
        (SEED, r"cannot be activated: NameError: name 'MyCustomPolicy'"),
        (SEED.replace('return "my_security_plugin"', "return None"), "both must be texts"),
    ],
)
def test_what_is_no_plugin_leaves_nothing_behind(project: Path, source: str, said: str) -> None:
    """The message says what is wrong with which file."""
    (project / "my_plugin.py").write_text(source)
    modules, registered = set(sys.modules), dict(PolicyRegistry.registered())

    with pytest.raises(ConfigError, match=said) as refused:
        PluginLoader.load("my_plugin.py")

    assert re.search(r"my_plugin\.py", str(refused.value))
    assert set(sys.modules) == modules
    assert PolicyRegistry.registered() == registered
    assert not PluginLoader.loaded()
    with pytest.raises(ConfigError, match=r"'nowhere.py' cannot be read: No such file"):
        PluginLoader.load("nowhere.py")


def test_one_that_fails_to_end_is_gone_even_so(project: Path) -> None:
    """The error is said, and nothing is left."""
    source = SEED.replace("        pass", "        raise ValueError('not now')") + POLICY
    (project / "my_plugin.py").write_text(source)
    plugin = PluginLoader.load("my_plugin.py")

    with pytest.raises(ConfigError, match="failed when it was deactivated, and is unloaded: ValueError: not now"):
        PluginLoader.unload(plugin)
    assert not PluginLoader.loaded()
    assert "custom_policy" not in PolicyRegistry.registered()
