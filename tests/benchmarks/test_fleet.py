"""The arithmetic of `benchmarks/fleet.py`: what it makes of what jobs wrote down."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.fleet import ENGINES, Engine, Event, Log, Takeover, pick_up_ms, processed_per_s, takeover_of

ENGINES_FOLDER = Path(__file__).parents[2] / "benchmarks" / "engines"


def test_jobs_per_second_count_from_when_every_worker_had_ended_one() -> None:
    """A worker that came up later is no reason to call the fleet slow, and a job that ended twice is one."""
    ends = [(1.0, 0, 7), (2.0, 1, 7), (3.0, 2, 8), (3.5, 3, 7), (4.0, 4, 8), (5.0, 3, 8)]
    events = [Event(at, "ended", job, worker) for at, job, worker in ends]
    assert processed_per_s(events) == pytest.approx(2 / 2)
    assert processed_per_s(events[:1]) == 0
    assert processed_per_s([]) == 0


def test_pick_up_is_from_sent_to_the_first_begin() -> None:
    """The median of the jobs that were begun; a second begin does not count."""
    events = [
        Event(1.0, "sent", 0, 1),
        Event(1.010, "begun", 0, 7),
        Event(2.0, "sent", 1, 1),
        Event(2.030, "begun", 1, 7),
        Event(2.5, "begun", 1, 8),
        Event(3.0, "sent", 2, 1),
    ]
    assert pick_up_ms(events) == pytest.approx(20)
    assert pick_up_ms(events[:1]) is None


def test_a_takeover_is_over_when_all_that_was_at_work_was_begun_again_elsewhere() -> None:
    """Jobs that had ended, that the killed worker had not begun, or that are other jobs do not count."""
    events = [
        Event(0.1, "begun", 0, 7),
        Event(0.2, "ended", 0, 7),
        *(Event(1.0, "begun", job, 7) for job in (1, 2, 3)),
        Event(1.0, "begun", 4, 8),
        Event(1.5, "ended", 3, 7),
        Event(3.0, "ended", 4, 8),
        Event(7.0, "begun", 1, 8),
        Event(8.0, "begun", 2, 8),
        Event(9.0, "ended", 1, 8),
        Event(9.5, "ended", 1, 8),
    ]
    found = takeover_of(events, range(1, 6), 7, 2.0)
    assert found == Takeover(at_work=2, begun_again=2, seconds=6.0, not_ended=2, ended_twice=1)
    early = takeover_of(events[:9], range(1, 6), 7, 2.0)
    assert (early.begun_again, early.seconds) == (1, None)


def test_a_line_that_is_half_written_is_read_when_it_is_whole(tmp_path: Path) -> None:
    """Lines of many processes are read while they are written."""
    log = Log(tmp_path / "log")
    log.path.write_text("1.5 begun 3 7\n2.5 en")
    assert log.look() == [Event(1.5, "begun", 3, 7)]
    log.path.write_text("1.5 begun 3 7\n2.5 ended 3 7\n")
    assert log.look()[1:] == [Event(2.5, "ended", 3, 7)]
    assert not log.wait(lambda events: len(events) > 2, 0.02)


@pytest.mark.parametrize("engine", ENGINES.values(), ids=list(ENGINES))
def test_each_row_has_its_module(engine: Engine) -> None:
    """A row without a module would be found by the run that needs it."""
    assert (ENGINES_FOLDER / f"{engine.module}.py").is_file()
