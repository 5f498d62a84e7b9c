"""What the dashboard's templates are given: bars, lines, budgets, questions. No server, no browser."""

from __future__ import annotations

import re
from importlib.resources import files
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from oao_harness import MemoryStore, Orchestrator, StrictPolicy, tool
from oao_harness.journal.timeline import Timeline
from oao_harness.server.dashboard.bars import Scale, Span, overview_of, packed
from oao_harness.server.dashboard.details import detail_of
from oao_harness.server.dashboard.lists import STATUSES, status_look
from oao_harness.server.dashboard.live import digest_of
from oao_harness.server.dashboard.rows import window_of
from oao_harness.server.dashboard.run_page import head_of, meters_of, pretty, stages_of
from oao_harness.server.dashboard.snapshot import REGIONS, Snapshot, regions_of
from oao_harness.server.dashboard.templating import environment, run_url

spans = st.builds(
    lambda start, length: Span(start_s=start, end_s=start + length, look="tool"),
    st.floats(0, 100),
    st.floats(0.001, 50),
)


@tool(effect="pure")
def count(i: int) -> int:
    """Do nothing much."""
    return i


@tool(effect="pure")
def outer(i: int) -> int:
    """Call a tool in a tool."""
    return count(i) + 1


def counter(task: int) -> str:
    for i in range(task):
        count(i)
    return "counted"


def run_of(agent: object, task: object, policy: object = None) -> tuple[MemoryStore, str]:
    store = MemoryStore()
    report = Orchestrator(policy, store=store).run(agent, task)
    return store, report.execution_id


@given(st.lists(spans, max_size=40))
def test_lanes_are_as_many_as_calls_ran_side_by_side(found: list[Span]) -> None:
    """No two bars of a lane overlap, nothing is lost, and no lane is one too many."""
    lanes = packed(found)
    assert sorted(map(id, found)) == sorted(id(span) for lane in lanes for span in lane)
    for lane in lanes:
        assert all(one.end_s <= other.start_s for one, other in pairwise(lane))
    most = max((sum(one.start_s <= at.start_s < one.end_s for one in found) for at in found), default=0)
    assert len(lanes) == most


def test_an_overview_does_not_grow_with_the_run() -> None:
    """Five thousand calls in a row are a few bars; calls beyond the last lane are counted."""
    row = [Span(start_s=i, end_s=i + 0.9, look="tool") for i in range(5000)]
    found = overview_of(row, [100.0], 5000.0)
    assert sum(map(len, found.lanes)) < 1100
    assert found.gaps == [2.0]
    together = overview_of([Span(start_s=0, end_s=1, look="model")] * 30, [], 1.0)
    assert (len(together.lanes), together.left_out, together.most_at_once) == (14, 16, 30)


@given(spans, st.floats(0, 10), st.floats(0.1, 200))
def test_a_bar_is_always_seen_and_inside(span: Span, start: float, length: float) -> None:
    """Whatever the scale, a bar has a width and does not leave it."""
    bar = Scale(start_s=start, end_s=start + length).bar(span)
    assert bar.width > 0
    assert bar.x >= 0
    assert bar.x + bar.width <= 100.02


def test_a_long_run_is_shown_in_parts() -> None:
    """The start of a run that is over; then each line once, to the last."""
    store, id_ = run_of(counter, 450, "off")
    timeline = Timeline.of(list(store.read(id_)))
    first = window_of(timeline, None, timeline.running_s)
    assert (first.first, len(first.rows), first.total, first.calls) == (0, 200, 450, 450)
    seen = [row.n for row in first.rows]
    while (window := window_of(timeline, len(seen), timeline.running_s)).rows and len(seen) < 450:
        seen += [row.n for row in window.rows]
    assert seen == [str(n) for n in range(1, 451)]
    # An open run is looked at where it is.
    timeline.finished = None
    assert window_of(timeline, None, timeline.running_s).rows[-1].n == "450"


def test_a_call_in_a_call_is_deeper_and_a_denied_one_says_its_rule() -> None:
    """Depth, state and rule of each line are those of the journal."""
    store, id_ = run_of(lambda task: outer(1), "x")
    rows = window_of(Timeline.of(list(store.read(id_))), None, 1.0).rows
    assert [(row.name, row.depth, row.state) for row in rows] == [("outer", 0, "done"), ("count", 1, "done")]
    store, id_ = run_of(counter, 3, StrictPolicy(max_tool_calls=1))
    snapshot = Snapshot.of(store, list(store.read(id_)))
    last = window_of(snapshot.timeline, None, 1.0).rows[-1]
    assert (last.state, last.verdict, last.rule) == ("denied", "denied", "max_tool_calls")
    assert head_of(snapshot.timeline).violation["rule"] == "max_tool_calls"
    (meter,) = [one for one in meters_of(snapshot.timeline) if one.name == "tool calls"]
    assert (meter.shown, meter.level) == ("1 of 1", "full")
    assert [stage.name for stage in stages_of(snapshot.timeline) if stage.is_now] == []
    detail = detail_of(snapshot.timeline, 2)
    assert detail is not None
    assert ("verdict", "deny") in detail.decision
    assert detail_of(snapshot.timeline, 9) is None


def test_every_region_is_rendered_and_escapes() -> None:
    """What a caller may not do is not offered, and nothing that an agent said becomes a tag."""

    def agent(task: str) -> str:
        count(i="<img src=x>")  # type: ignore[arg-type]
        return "<script>1</script>\x00"

    store, id_ = run_of(agent, "</title><script>")
    values = Snapshot.of(store, list(store.read(id_))).values(dict.fromkeys(("read", "run", "approve", "admin"), False))
    found = regions_of(values)
    assert set(found) == set(REGIONS)
    assert "<button" not in found["actions"]
    whole = "".join(found.values())
    assert "<script" not in whole
    assert "<img" not in whole
    assert "&lt;script&gt;1&lt;/script&gt;\\x00" in found["result"]
    allowed = Snapshot.of(store, list(store.read(id_))).values(dict.fromkeys(("read", "run", "approve", "admin"), True))
    assert 'id="b-replay"' in regions_of(allowed)["actions"]


def test_that_time_passes_is_no_change() -> None:
    """A fragment that differs only in how long ago something was is not sent again."""
    told = environment().from_string('{% from "icons.html" import when %}<p>{{ when(at) }}{{ what }}</p>')
    one = told.render(at=1_000_000.0, what="a")
    other = one.replace(" d ago", " d and more ago")
    assert one != other
    assert digest_of(one) == digest_of(other)
    assert digest_of(one) != digest_of(told.render(at=1_000_000.0, what="b"))


@pytest.mark.parametrize("value", ["\ud800", {"a": "\x1b[2J"}, ["<b>"], None, 3])
def test_any_value_can_be_shown(value: object) -> None:
    """Half a surrogate pair, control characters: all of it becomes text that can be sent."""
    shown = pretty(value)  # type: ignore[arg-type]
    shown.encode("utf-8")
    assert "\x1b" not in shown


def test_every_status_has_a_word_and_an_icon() -> None:
    """Colour alone tells nothing; one that is not known is shown as it is."""
    assert all(look.word and look.icon for look in STATUSES.values())
    assert len({look.icon for look in STATUSES.values()}) == len(STATUSES)
    assert status_look("NEW").word == "New"
    assert run_url("a/b#c") == "/ui/runs/a%2Fb%23c"


def test_templates_leave_escaping_on_and_styles_out() -> None:
    """No template marks anything safe but the icons' own paths; none has a style, a handler or a script in it."""
    folder = files("oao_harness.server.dashboard") / "templates"
    for template in folder.iterdir():
        text = template.read_text("utf-8")
        safe = text.count("|safe") + text.count("| safe") + text.count("autoescape")
        assert safe == (1 if template.name == "icons.html" else 0), template.name
        assert not re.search(r"""\s(style|on\w+)=["']""", text), template.name
        assert not re.search(r"<script(?![^>]* src=)", text), template.name
    assert "htmx 2" in (folder.parent / "static" / "LICENSES.txt").read_text("utf-8")


_PAIRS = [(text, ground) for text in ("text", "muted") for ground in ("bg", "panel", "sunk")] + [
    ("accent", "panel"), ("accent", "accent-ground"), ("on-accent", "accent"), ("bad", "panel"), ("wait", "sunk"),
    *((tone, f"{tone}-ground") for tone in ("good", "bad", "wait", "run", "queue", "dead")),
]  # fmt: skip


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_has_contrast(theme: str) -> None:
    """4.5 to 1 or more for every pair of text and ground, in both themes (WCAG 2.2, 1.4.3)."""
    css = (files("oao_harness.server.dashboard") / "static" / "dashboard.css").read_text("utf-8")
    start = css.index(":root {") if theme == "light" else css.index(':root[data-theme="dark"] {')
    block = css[start : css.index("}", start)]
    colours = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})\b", block))

    def luminance(name: str) -> float:
        digits = colours[name][1:]
        digits = "".join(one * 2 for one in digits) if len(digits) == 3 else digits
        parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
        linear = [one / 12.92 if one <= 0.03928 else ((one + 0.055) / 1.055) ** 2.4 for one in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    for text, ground in _PAIRS:
        high, low = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, (text, ground)
