"""What a search found, as files: a recording, and a test that replays it until the policy stops the program."""

from __future__ import annotations

import asyncio
import os
import re
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from oao_harness.journal.places import recording_place
from oao_harness.runtime.orchestrator import Orchestrator
from pytest_oao.testing.fuzz.search import Outcome
from pytest_oao.testing.program_agents import Agent, Log
from pytest_oao.testing.programs import Op, Program

__all__ = ["Saved", "perform", "save"]

_LONGEST: Final = 60
_TEST: Final = '''"""Found by `oao fuzz`: a program that breaks a rule although the policy is in force.

Rule: {rule}. {how}. It is replayed here, and nothing of it runs.

{code}

The test fails until the policy refuses the program, or holds it for a person.
"""

{path}import pytest

from pytest_oao.testing import {imports}
from pytest_oao.testing.fuzz.saving import perform

PROGRAM = {program}


{marks}
@pytest.mark.oao(unplayed="ignore")
def test_{slug}(oao):
    with oao.expect_violation(or_held=True):
        perform(PROGRAM{is_async})
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Saved:
    """The files that were written."""

    test: Path
    recording: Path


def perform(program: Program, *, is_async: bool = False) -> None:
    """Do what a program says, as the run that this code belongs to.

    Args:
        program: From a test that `oao fuzz` wrote.
        is_async: True makes its agent and bodies coroutines.
    """
    done = Agent(Log(), Orchestrator(), ("main",), is_async=is_async).of(program.tree())("t")
    if is_async:
        asyncio.run(done)


def save(outcome: Outcome, folder: Path, policies: Sequence[str]) -> Saved:
    """Write the recording and the test of what was found.

    Args:
        outcome: Of a search that found something.
        folder: Of the test; made where it is missing.
        policies: Names or files of the policies that were in force.

    Raises:
        ValueError: Nothing was found.
        RecordingError: The recording cannot be written.
    """
    attempt, trial, rule = outcome.attempt, outcome.trial, outcome.rule
    if attempt is None or trial is None or rule is None:
        raise ValueError("nothing was found that could be saved")
    slug = re.sub(r"\W+", "_", rule.text, flags=re.ASCII).strip("_").lower()[:_LONGEST].rstrip("_")
    module = folder / f"test_fuzz_{slug}.py"
    nodeid = f"{module.name}::test_{slug}"
    path = recording_place(module.absolute(), nodeid)
    trial.recording(test=nodeid, policy=", ".join(policies)).save(path)
    named = sorted({type(op).__name__ for op in _all(attempt.program.ops)} | {"Program"})
    ops = "".join(f"        {op!r},\n" for op in attempt.program.ops)
    text = _TEST.format(
        rule=_quoted(rule.text),
        how=_quoted(outcome.how),
        code=_quoted(textwrap.indent(repr(attempt.program), "    ")),
        imports=", ".join(named),
        program=f"Program(\n    (\n{ops}    )\n)",
        path="from pathlib import Path\n\n" if any(Path(one).is_file() for one in policies) else "",
        marks="\n".join(_mark(one, folder) for one in policies),
        slug=slug,
        is_async=", is_async=True" if attempt.is_async else "",
    )
    module.parent.mkdir(parents=True, exist_ok=True)
    module.write_text(text, encoding="utf-8")
    return Saved(test=module, recording=path)


def _all(ops: Sequence[Op]) -> list[Op]:
    return [*ops, *(call for op in ops for call in getattr(op, "batch", ()))]


def _quoted(text: str) -> str:
    """Return a text that may stand in a docstring."""
    return text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')


def _mark(policy: str, folder: Path) -> str:
    return f"@pytest.mark.oao(policy={_named(policy, folder)})"


def _named(policy: str, folder: Path) -> str:
    """Return code for a policy: a file is found from the test's folder, wherever pytest is started."""
    if not Path(policy).is_file():
        return f'"{policy}"'
    return f'str(Path(__file__).parent / "{Path(os.path.relpath(policy, folder)).as_posix()}")'
