"""A shape depends on its request alone, however much of it was sent before."""

from __future__ import annotations

import copy
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from oao_harness.journal.shape import Shaper
from oao_hookspecs import Json

CONTENTS: st.SearchStrategy[Json] = st.recursive(
    st.sampled_from([None, True, 1, 1.0, 0, -0.0, "a", "call_7Xk29fQpLm31", "call_9Zt11bVnQs48", "\x1a", ""]),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["a", "call_7Xk29fQpLm31", "b"]), inner)
    ),
    max_leaves=4,
)
HISTORIES = st.lists(st.lists(st.fixed_dictionaries({"content": CONTENTS}), max_size=8), min_size=2, max_size=5)


@settings(max_examples=300, deadline=None)
@given(HISTORIES, st.booleans())
def test_a_history_that_goes_on_has_the_shape_of_one_that_is_new(histories: list[list[Json]], is_final: bool) -> None:
    """The same digest and tokens as from a shaper that has seen nothing, whatever was sent before in the lane."""
    shaper = Shaper()
    sent: list[Json] = []
    for history in histories:
        # Some go on, some start again, and all share how they begin.
        sent = [*sent, *history] if len(history) % 2 else [*sent[: len(sent) // 2], *history]
        request = {"messages": cast("Json", copy.deepcopy(sent))}
        assert shaper.shape("model", "m", request, "lane", is_final=is_final) == Shaper().shape("model", "m", request)


@pytest.mark.parametrize(("before", "after"), [(1, True), (1, 1.0), ("x", "y"), (0, False)])
def test_a_message_that_was_changed_in_place_has_its_new_shape(before: Json, after: Json) -> None:
    """A client may keep its history and change it: what was known of a message is not what it is now."""
    shaper = Shaper()
    messages: list[dict[str, Json]] = [{"content": "a"} for _ in range(5)] + [{"content": {"limit": before}}]
    request = {"messages": cast("Json", messages)}
    first = shaper.shape("model", "m", request, "lane")
    messages[5]["content"] = {"limit": after}
    second = shaper.shape("model", "m", request, "lane")
    assert second == Shaper().shape("model", "m", request)
    assert second != first
