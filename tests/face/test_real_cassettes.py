"""All real cassettes, imported, play through their real clients in a test session without a network.

`cassette_agents` makes the requests. Two sessions of pytest play all of them: one as recorded, one with a changed word.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from oao_harness.importing.recordings import import_cassette
from tests import forked

ROOT = Path(__file__).parents[2]
CASSETTES = ROOT.parent / "shared" / "data" / "cassettes"

if not CASSETTES.is_dir():
    pytest.skip("the recorded cassettes are not part of this checkout", allow_module_level=True)
for framework in ("langchain_openai", "langchain_anthropic", "pydantic_ai"):
    pytest.importorskip(framework)

os.environ.setdefault("OAO_CASSETTES", str(CASSETTES))
from tests.face.cassette_agents import ALL, DRIVERS  # noqa: E402

# `strict` allows 4,000 tokens and 10 steps. These declare answers of 4,096 and 8,192 tokens, or make 12 calls.
TOO_LARGE_FOR_STRICT = {
    "llm-anthropic/test_prompt",
    "pydantic-ai/test_anthropic_model_thinking_part_stream",
    "pydantic-ai/test_multiple_parallel_tool_calls",
    "langsmith/test_anthropic_test_completions_sync_api",
}
WIDE = """
extends = "standard"
[limits]
max_steps = 20
max_tool_calls = 5
max_tokens = 20000
timeout_seconds = 30
require_governed = true
"""
CONFTEST = """
import sys

TOUCHED = []

def hook(event, args):
    if event == "socket.getaddrinfo" or (event == "socket.connect" and isinstance(args[1], tuple)):
        TOUCHED.append((event, args))

sys.addaudithook(hook)

def pytest_unconfigure():
    print(f"sockets: {len(TOUCHED)} {TOUCHED[:3]}")
"""
MODULE = """
import pytest
from tests.face.cassette_agents import DRIVERS, bodies_of

@pytest.mark.parametrize("name", {names})
def test_play(name):
    cassette, drive = DRIVERS[name]
    drive(bodies_of(cassette))
"""
STRICT_ONES = [name for name, (cassette, _) in DRIVERS.items() if cassette not in TOO_LARGE_FOR_STRICT]
WIDE_ONES = [name for name in DRIVERS if name not in STRICT_ONES]


def session(folder: Path, names: list[str], policy: str, *, change: bool) -> str:
    """Import the cassettes of drivers, and run a test of each in a session of its own."""
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings =\n")
    (folder / "conftest.py").write_text(CONFTEST)
    (folder / "wide.toml").write_text(WIDE)
    (folder / "test_real.py").write_text(MODULE.format(names=names))
    for name in names:
        path = folder / "recordings" / "test_real" / f"test_play[{name}].oao.json"
        import_cassette(CASSETTES / f"{DRIVERS[name][0]}.yaml").recording.save(path)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.upper().endswith("_PROXY")},
        "PYTHONPATH": os.pathsep.join(map(str, (ROOT, ROOT / "hookspecs"))),
        "OAO_CHANGE": "1" if change else "",
        "COLUMNS": "200",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    }
    plugins = ["-p", "pytest_oao.plugin", "-p", "no:cacheprovider"]
    options = [f"--oao-policy={policy}", "--oao-network=closed", "-q", "-rA", "--tb=line"]
    words = ["pytest", *plugins, *options, "test_real.py"]
    done = forked.run(words, cwd=folder, env=environment, timeout=180, frameworks=True)
    return done.stdout + done.stderr


def outcomes(output: str, word: str) -> set[str]:
    return set(re.findall(rf"^{word} test_real\.py::test_play\[(.+?)\]", output, re.MULTILINE))


@pytest.mark.parametrize(("policy", "names"), [("strict", STRICT_ONES), ("wide.toml", WIDE_ONES)])
def test_they_play_without_a_socket(policy: str, names: list[str], tmp_path: Path) -> None:
    """openai, langchain-openai, anthropic, langchain-anthropic and pydantic-ai; not even a name is looked up."""
    output = session(tmp_path, names, policy, change=False)

    assert outcomes(output, "PASSED") == set(names), output
    assert "sockets: 0 []" in output


@pytest.mark.parametrize(("policy", "names"), [("strict", STRICT_ONES), ("wide.toml", WIDE_ONES)])
def test_one_other_word_is_refused(policy: str, names: list[str], tmp_path: Path) -> None:
    """Every one of them, with a message that shows the new word, and still without a socket."""
    output = session(tmp_path, names, policy, change=True)

    assert outcomes(output, "FAILED") == set(names), output
    assert output.count("(replay diverged)") >= len(names)
    assert len(re.findall(r"^\s*[~+-].*pelican", output, re.MULTILINE)) == len(names), output
    assert "sockets: 0 []" in output


def test_every_cassette_of_the_folder_is_played() -> None:
    """By a client of its provider, and those of pydantic-ai by pydantic-ai; one that is added must be too."""
    found = {str(path.relative_to(CASSETTES).with_suffix("")) for path in CASSETTES.rglob("*.yaml")}

    assert found == set(ALL) == {cassette for cassette, _ in DRIVERS.values()}
    by_pydantic = {cassette for name, (cassette, _) in DRIVERS.items() if name.startswith("pydantic-ai-")}
    assert by_pydantic == {cassette for cassette in found if cassette.startswith("pydantic-ai/")}
    assert all(not import_cassette(CASSETTES / f"{name}.yaml").skipped for name in found)
