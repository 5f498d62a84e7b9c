"""One run as it is now: read once, then rendered into the regions of its page. Blocks: for threads."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from oao_harness.journal.timeline import Kin, Timeline, mapping, number, text
from oao_harness.server.dashboard.lists import status_look
from oao_harness.server.dashboard.rows import PAGE, overview, window_of
from oao_harness.server.dashboard.run_page import Head, QuestionView, head_of, meters_of, questions_of, stages_of
from oao_harness.server.dashboard.templating import environment, run_url
from oao_hookspecs import Record, RunQuery, Store

__all__ = ["REGIONS", "Snapshot", "regions_of"]

REGIONS: Final = ("title", "actions", "head", "asks", "timeline", "result", "budgets", "kin")
"""Parts of a run's page that change while it runs, each by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A run at one moment."""

    timeline: Timeline
    questions: Sequence[QuestionView]
    kin: Kin
    seq: int
    """Number of the last record that was read."""

    @classmethod
    def of(cls, store: Store, records: Sequence[Record]) -> Snapshot:
        """Return what there is to show of a run.

        Args:
            store: Where it is, with the runs nested in it.
            records: Its journal.
        """
        nested: dict[str, list[Record]] = {}

        def read(execution_id: str) -> list[Record]:
            nested[execution_id] = list(store.read(execution_id))
            return nested[execution_id]

        timeline = Timeline.of(records, read)
        waiting = [records, *nested.values()] if timeline.suspended is not None else []
        now = time.time()
        source = text(mapping(timeline.started, "forked"), "run")
        forks = store.runs(50, query=RunQuery(forked_from=text(timeline.started, "execution_id")))
        return cls(
            timeline=timeline,
            questions=[question for one in waiting if one for question in questions_of(one, now)],
            kin=Kin(
                forks=[(run.execution_id, run.status) for run in forks],
                is_source_gone=bool(source) and next(iter(store.read(source)), None) is None,
            ),
            seq=int(number(records[-1], "seq")),
        )

    def values(self, may: Mapping[str, bool], first: int | None = None) -> dict[str, Any]:
        """Return what the templates of a run's page are given.

        Args:
            may: What the caller may do, by permission.
            first: Number of the first line of the timeline; see `window_of`.
        """
        timeline = self.timeline
        head: Head = head_of(timeline)
        return {
            "head": head,
            "look": status_look(head.status),
            "stages": stages_of(timeline),
            "questions": self.questions,
            "doubts": timeline.doubts if timeline.suspended is not None else [],
            "meters": meters_of(timeline),
            "kin": self.kin,
            "window": window_of(timeline, first, head.now_s),
            "overview": overview(timeline, head.now_s),
            "page_size": PAGE,
            "url": run_url(head.execution_id),
            "seq": self.seq,
            "may": may,
            "in_inbox": False,
        }


def regions_of(values: Mapping[str, Any], names: Sequence[str] = REGIONS) -> dict[str, str]:
    """Return the regions of a run's page as markup, by name."""
    render: Callable[[str], str] = lambda name: environment().get_template(f"run_{name}.html").render(values)  # noqa: E731
    return {name: render(name) for name in names}
