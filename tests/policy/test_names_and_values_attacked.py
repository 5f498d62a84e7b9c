"""Names and values that are written so that a policy file looks past them."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

from oao_harness import Orchestrator, tool
from oao_harness.policy.file import FilePolicy
from oao_hookspecs import Json


@pytest.mark.parametrize(
    "arguments",
    [
        {"pay": '{"iban": "EVIL"}'},
        {"pay": ["EVIL"]},
        {"pay": 7},
        {"pay.iban": "friend", "pay": {"iban": "EVIL"}},
    ],
)
def test_a_value_cannot_hide_where_a_table_should_be(arguments: Mapping[str, Json]) -> None:
    """A text in place of a table, and the same path written twice: all of it must occur in the source."""
    policy = FilePolicy.from_text(
        '[[rule]]\nname = "known"\ntools = ["send"]\nvalues_from = { "pay.iban" = ["task"] }',
    )
    ran: list[object] = []

    @tool
    def send(**given: Json) -> None:
        ran.append(given)

    orchestrator = Orchestrator(policy)
    report = orchestrator.run(lambda task: send(**arguments), "pay my friend", agent_name="a")
    assert report.violation is not None
    assert (report.violation["rule"], ran) == ("known", [])
    assert orchestrator.run(lambda task: send(pay={"iban": "friend"}), "pay my friend", agent_name="a").error is None


def test_a_tool_whose_name_looks_like_a_glob_is_denied_by_its_name() -> None:
    """`a[b]` selects `ab`, and the tool that is called so."""
    policy = FilePolicy.from_text('[tools]\ndeny = ["a[b]"]')
    verdicts = {name: policy.rules.listed(name) for name in ("a[b]", "ab", "a")}
    assert [name for name, verdict in verdicts.items() if verdict is not None] == ["a[b]", "ab"]
