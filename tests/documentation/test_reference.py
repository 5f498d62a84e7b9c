"""docs/reference/: complete, made of the source where it can be, and its examples are real."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import oao_harness
import oao_hookspecs
import pytest_oao.testing
from oao_harness import config, errors
from oao_harness.cli import main
from oao_harness.fleet import agents
from oao_harness.journal import recording_file
from oao_harness.plugins.manifest import HOOKS, read_manifest
from oao_harness.plugins.signing import is_signed_by_its_key
from oao_harness.plugins.trust import FILE_NAME, find_trust
from oao_harness.policy import project
from oao_harness.server.keys import KeyFile
from pytest_oao import marker
from tests.console_pages import ROOT, executed, play
from tests.documentation import tables

PAGES = {path.name: path.read_text(encoding="utf-8") for path in tables.PAGES.glob("*.md")}
FORMATS = executed("reference/formats.md")
SOURCES = [path for name in ("oao_harness", "pytest_oao") for path in (ROOT / name).rglob("*.py")]


def described(page: str) -> set[str]:
    """Return the objects that a page has Sphinx describe."""
    return set(re.findall(r"^\.\. auto\w+:: ([\w.]+)", PAGES[page], re.MULTILINE))


def first_cells(page: str, head: str) -> list[str]:
    """Return the code in the first cells of the table with a head."""
    table = PAGES[page].partition(f"\n| {head} |\n")[2].partition("\n\n")[0]
    return [name for row in table.splitlines()[1:] for name in re.findall(r"`([^`]+)`", row.split("|")[1])]


def example(name: str) -> str:
    found = re.search(rf"^```json {name}\n(.*?)^```$", FORMATS, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def test_the_generated_parts_are_what_the_source_says() -> None:
    """To mend it: python -m tests.documentation.tables --write."""
    assert tables.outdated() == []


def test_a_page_that_says_something_else_is_noticed() -> None:
    """The comparison above can fail."""
    page = PAGES["hooks.md"]
    assert tables.generated(page) == page
    assert tables.generated(page.replace("`oao_limits`", "`oao_limit`")) == page


def test_every_hook_is_described() -> None:
    """And no other."""
    found = {name.rpartition(".")[2] for name in described("hooks.md")}
    assert found == {*HOOKS, "hookimpl", "hookspec", "PROJECT"}
    assert first_cells("hooks.md", "hook | mode | what it is for") == list(HOOKS)


def test_every_name_of_the_contract_is_described() -> None:
    """All that `oao_hookspecs` exports."""
    found = {name for page in ("hooks.md", "values.md") for name in described(page)}
    assert {f"oao_hookspecs.{name}" for name in oao_hookspecs.__all__} <= found


def test_every_public_name_is_described() -> None:
    """All that `oao_harness` exports, errors on their own page."""
    found = {name for page in ("api.md", "errors.md") for name in described(page)}
    assert {f"oao_harness.{name}" for name in oao_harness.__all__} <= found
    assert described("errors.md") == {f"oao_harness.{name}" for name in errors.__all__}


def test_every_test_tool_is_described() -> None:
    """All that `pytest_oao.testing` exports."""
    assert {f"pytest_oao.testing.{name}" for name in pytest_oao.testing.__all__} <= described("testing.md")


def test_every_command_is_described() -> None:
    """In the table, and below it by Sphinx: the whole tree of `oao`, nested in full."""
    assert first_cells("cli.md", "command | what it does") == [name for name, _ in tables.commands_of(main)]
    assert re.search(r"^\.\. click:: oao_harness.cli:main\n   :prog: oao\n   :nested: full$", PAGES["cli.md"], re.M)


def test_every_option_of_pytest_is_described() -> None:
    """Options, keys of the ini file, fixtures, and arguments of the marker."""
    registered = tables.registered()
    options = first_cells("pytest.md", "option | one of | meaning")
    assert [re.split(r"[= ]", one)[0] for one in options] == [name for name, _ in registered.options]
    assert first_cells("pytest.md", "key | type | meaning") == [name for name, _, _ in registered.keys]
    assert first_cells("pytest.md", "fixture | scope | what it is") == [name for name, _, _ in tables.fixtures()]
    assert {"oao", "oao_policy", "oao_scripted"} <= {name for name, _, _ in tables.fixtures()}
    arguments = first_cells("pytest.md", "argument | meaning")
    assert sorted(arguments) == sorted(marker._KNOWN)


def test_the_marker_of_the_page_is_one() -> None:
    """Its arguments are accepted."""
    (block,) = re.findall(r"^```python\n(.*?)^```$", executed("reference/pytest.md"), re.DOTALL | re.MULTILINE)
    names: dict[str, Any] = {}
    exec(compile(block, "pytest.md", "exec"), names)
    (mark,) = names["test_refund"].pytestmark
    marker.check_marker("test_refund", mark)


@pytest.mark.parametrize(
    ("head", "keys"),
    [
        ("key of `[tool.oao]` | value | meaning", project._KNOWN),
        ("key of an agent | value | meaning", agents._KEYS),
        ("key of `[tool.oao.redact]` | value | meaning", config._KNOWN),
    ],
)
def test_every_key_of_the_project_is_described(head: str, keys: tuple[str, ...]) -> None:
    """And no other."""
    assert first_cells("configuration.md", head) == sorted(keys)


def test_every_variable_of_the_environment_is_described() -> None:
    """All whose names are in the source; those of the demonstration's own processes are left out."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in SOURCES)
    used = set(re.findall(r"\b(?:OAO|OTEL|PROMETHEUS)_[A-Z_]*[A-Z]\b", text)) | {"PYTHONHASHSEED"}
    shown = set(first_cells("configuration.md", "variable | meaning"))
    ours = {name for name in used if not name.startswith(("OAO_SERVER_", "OAO_DEMO_"))}
    assert ours | {"OAO_SERVER_..."} == shown


def test_the_formats_are_what_is_written(tmp_path: Path) -> None:
    """A run, its journal, its recording: word for word but for ids, hashes and times."""
    assert play("reference/formats.md", tmp_path) == 4


def test_every_field_of_a_recording_is_described() -> None:
    """In the docstring that the page shows."""
    names = recording_file._FIELDS | recording_file._EVENT_FIELDS
    text = recording_file.__doc__ or ""
    assert [name for name in sorted(names) if not re.search(rf"\b{name}\b", text)] == []


def test_every_record_that_the_page_shows_has_described_fields() -> None:
    """A field of a real record that the description does not name is a red test."""
    text = tables.journal()
    for line in re.findall(r"^\{\"v\": 1, .*\}$", FORMATS, re.MULTILINE):
        record = json.loads(line)
        assert re.search(rf"^{re.escape(record['type'])} ", text, re.MULTILINE)
        assert [key for key in record if not re.search(rf"\b{key}\b", text)] == []


def test_the_manifest_is_one() -> None:
    """Read and written again it is the same, and its signature holds."""
    text = example("manifest")
    manifest = read_manifest(text.encode(), "formats.md")
    assert manifest.text() == text
    assert is_signed_by_its_key(manifest)


def test_the_trust_file_is_one(tmp_path: Path) -> None:
    """Read and written again it is the same, and it trusts the manifest above."""
    (tmp_path / ".git").mkdir()
    (tmp_path / FILE_NAME).write_text(example("trust"), encoding="utf-8")
    trust = find_trust(tmp_path)
    assert trust.refusal(read_manifest(example("manifest").encode(), "formats.md")) == ""
    trust.save()
    assert (tmp_path / FILE_NAME).read_text(encoding="utf-8") == example("trust")


def test_the_file_of_keys_is_one(tmp_path: Path) -> None:
    """A server reads it."""
    path = tmp_path / "keys.json"
    path.write_text(example("keys"), encoding="utf-8")
    path.chmod(0o600)
    (key,) = KeyFile(path).keys()
    assert (key.name, key.roles, key.tenant) == ("alice", ("operator",), "acme")
    assert key.model_dump(mode="json") == json.loads(example("keys"))["keys"][0]


def test_the_report_of_a_session_is_one(pytester: pytest.Pytester) -> None:
    """A session that writes one has the same fields, at any depth."""
    files = dict(re.findall(r"^```python file=(\S+)\n(.*?)^```$", FORMATS, re.DOTALL | re.MULTILINE))
    (pytester.path / "desk.py").write_text(files["desk.py"], encoding="utf-8")
    (pytester.path / "test_desk.py").write_text(
        "import sys; sys.path.insert(0, '.')\nfrom desk import agent\nfrom oao_harness import Orchestrator\n"
        "def test_bridges():\n    assert Orchestrator().run(agent, 'Why do bridges fall').status == 'SUCCESS'\n"
    )
    options = ("--oao-record=once", "--oao-policy=standard", "--oao-report=report.json")
    done = pytester.runpytest_subprocess("-p", "no:randomly", *options)
    done.assert_outcomes(passed=1)
    written = json.loads((pytester.path / "report.json").read_text(encoding="utf-8"))

    def shape(value: object) -> object:
        if isinstance(value, dict):
            return {key: shape(item) for key, item in value.items()}
        return [shape(item) for item in value] if isinstance(value, list) else None

    shown = json.loads(example("report"))
    assert shape(written) == shape(shown)
    assert written["totals"] == shown["totals"]
    fields = tables.session_report()
    assert [
        key for key in (*shown, *shown["session"], *shown["tests"][0]) if not re.search(rf"\b{key}\b", fields)
    ] == []
