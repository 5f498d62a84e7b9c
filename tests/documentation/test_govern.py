"""Every block of `python` in docs/how-to/govern.md and python_policy.md, and their tables beside what holds."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.console_pages import executed
from tests.terminal_pages import python_blocks, run_python

GOVERN = executed("how-to/govern.md")
POLICY = executed("how-to/python_policy.md")
TESTING = executed("how-to/testing.md")


@pytest.mark.parametrize("code", python_blocks(GOVERN) + python_blocks(POLICY))
def test_python_blocks_run(code: str, tmp_path: Path) -> None:
    """Copied into a file and run, in an empty folder, with warnings as errors."""
    told = run_python(code, tmp_path)
    if "report.json(" in code:
        assert '"status": "SUCCESS"' in told


@pytest.mark.parametrize("name", ["standard", "strict"])
def test_the_limits_of_the_named_policies_are_those_of_the_pages(name: str) -> None:
    """The numbers of the table, and of the sentence about tests, are those that hold."""
    from oao_harness.policy.named import oao_policies

    limits = vars(oao_policies()[name]())
    seconds = limits["timeout_seconds"]
    time = f"{seconds / 60:g} minutes" if seconds >= 60 else f"{seconds:g} seconds"
    calls = f"{limits['max_steps']} steps, {limits['max_tool_calls']} tool calls"
    spent = f"{calls}, {limits['max_tokens']:,} tokens or {time}"
    assert f'| `"{name}"` | {spent}' in GOVERN
    verb = {"standard": "stops after", "strict": "after"}[name]
    assert f"`{name}` {verb} {spent}" in " ".join(TESTING.split())


def test_every_hook_is_in_the_table() -> None:
    """An undocumented hook is a red test."""
    from oao_harness.plugins.manager import hook_names

    for mode, names in hook_names().items():
        row = next(line for line in POLICY.splitlines() if line.startswith(f"| {mode} |"))
        assert re.findall(r"`(oao_\w+)`", row) == list(names)
