"""The public surface as a tested object: what is exported, that it is sorted, that errors form the drawn tree."""

from __future__ import annotations

import importlib
import inspect
import re

import pytest

import oao_harness
import oao_hookspecs
import pytest_oao.testing
from oao_harness import errors

WITH_ALL = [oao_harness, oao_hookspecs, pytest_oao.testing, errors]


@pytest.mark.parametrize("module", WITH_ALL, ids=lambda module: module.__name__)
def test_what_is_public_is_listed_sorted_and_there(module: object) -> None:
    """`__all__` is sorted, without doubles, and each name exists."""
    names = module.__all__  # type: ignore[attr-defined]

    assert sorted(names) == sorted(set(names))
    assert all(getattr(module, name, None) is not None for name in names)


@pytest.mark.parametrize(
    "name",
    [
        "oao_harness.Orchestrator",
        "oao_harness.StrictPolicy",
        "oao_harness.PolicyViolation",
        "oao_harness.ExecutionReport",
        "oao_harness.policy.registry.PolicyRegistry",
    ],
)
def test_names_of_the_seed_are_familiar(name: str) -> None:
    """What a user of the seed imports is where it was."""
    module, _, attribute = name.rpartition(".")
    assert hasattr(importlib.import_module(module), attribute)


def test_every_error_is_in_the_drawn_tree() -> None:
    """The drawing at the head of `errors.py` names each class below its base."""
    drawing = re.search(r"```text\n(.*?)```", errors.__doc__ or "", re.S)
    assert drawing is not None
    parents: list[str] = []
    drawn: dict[str, str] = {}
    for line in drawing[1].splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        parents[indent // 2 :] = [name]
        if len(parents) > 1:
            drawn[name] = parents[-2]
    classes = {name: cls for name, cls in vars(errors).items() if inspect.isclass(cls)}

    assert drawn.keys() == set(errors.__all__) == classes.keys()
    assert {name: cls.__bases__[0].__name__ for name, cls in classes.items()} == drawn


@pytest.mark.parametrize("name", errors.__all__)
def test_every_error_is_exported(name: str) -> None:
    """A user catches them by `oao_harness.X`."""
    assert getattr(oao_harness, name) is getattr(errors, name)


def test_the_report_has_the_fields_of_the_seed_and_more() -> None:
    """No field of the seed was lost."""
    seed = {
        "execution_id", "agent_name", "status", "total_tokens", "total_steps", "tool_calls",
        "execution_time_seconds", "state_history", "final_output", "timestamp", "execution_hash",
    }  # fmt: skip
    more = {"error", "violation", "tool_usage", "model_calls", "ungoverned"}

    assert seed | more <= oao_harness.ExecutionReport.model_fields.keys()
