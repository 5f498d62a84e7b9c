"""Size, saving and loading of recordings, beside HTTP cassettes of the same traffic as vcrpy keeps them in YAML."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.contending import Contender, Figure, Goal, Row
from benchmarks.timing import Measure, slice_s

HERE = "benchmarks.rows.recordings"
TURNS = (50, 500)
SAVE = Figure(key="save_ms", unit="ms to save", digits=2)
LOAD = Figure(key="load_ms", unit="ms to load", digits=2)
SIZE = Figure(key="kb", unit="kB")
DIFF = Figure(key="diff_ms", unit="ms to compare", digits=2)
PURE = "pure Python"
FASTER, SMALLER = 100.0, 20.0


OURS, THEIRS = "oao", "vcrpy, YAML"


def row() -> Row:
    return _row(
        TURNS[0],
        Goal(says="20 times smaller", contender=THEIRS, at_least=SMALLER, than=(OURS,), figure=SIZE.key),
    )


def thousand() -> Row:
    return _row(
        TURNS[1],
        Goal(says="saved 100 times as quickly", contender=THEIRS, at_least=FASTER, than=(OURS,)),
        Goal(says="loaded 100 times as quickly", contender=THEIRS, at_least=FASTER, than=(OURS,), figure=LOAD.key),
        takes_minutes=True,
    )


def _row(turns: int, *goals: Goal, takes_minutes: bool = False) -> Row:
    options = {"turns": turns}
    return Row(
        id=f"recordings-{2 * turns}",
        title=f"recordings of {2 * turns:,} events",
        how=f"A conversation of {turns} turns, an answer of the model and a tool call each. vcrpy's own persister "
        "writes and reads the HTTP requests and responses, with libyaml. Comparing is what `oao diff` does with a "
        "recording and its copy; vcrpy compares nothing. Processor time.",
        figures=(SAVE, LOAD, SIZE, DIFF),
        contenders=(
            Contender(name=OURS, make=f"{HERE}:recording", options=options),
            Contender(name=THEIRS, make=f"{HERE}:cassette", options=options, packages=("vcrpy", "pyyaml"), process=""),
        ),
        goals=goals,
        rounds=5,
        limit_s=300.0,
        takes_minutes=takes_minutes,
        note="A conversation sends its history again with each request: a recording keeps each message once.",
    )


def milliseconds(work: Callable[[], object]) -> float:
    """Return the processor time of a piece of work, repeated while it is short."""
    wall, began, count = time.perf_counter(), time.process_time(), 0
    while not count or time.perf_counter() - wall < slice_s() / 3:
        work()
        count += 1
    return (time.process_time() - began) / count * 1e3


def recording(*, turns: int) -> Measure:
    from benchmarks.traffic import conversation
    from oao_harness.journal.changes import changes
    from oao_harness.journal.recording import Recording

    tape = conversation(turns).tape
    made = Recording.from_records(tape, test="test_support.py::test_late_parcel")
    path = Path(tempfile.mkdtemp(prefix="oao-bench-")) / "x.oao.json"
    made.save(path)
    text = path.read_text(encoding="utf-8")
    other_path = path.with_name("y.oao.json")
    other_path.write_text(text, encoding="utf-8")
    other = Recording.load(other_path)
    return lambda: {
        SAVE.key: milliseconds(lambda: made.save(path)),
        LOAD.key: milliseconds(lambda: Recording.load(path)),
        SIZE.key: path.stat().st_size / 1000,
        DIFF.key: milliseconds(lambda: changes(made, other)),
    }


def cassette(*, turns: int) -> Measure:
    from vcr.persisters.filesystem import FilesystemPersister
    from vcr.request import Request
    from vcr.serializers import yamlserializer

    from benchmarks.traffic import conversation

    interactions = conversation(turns).interactions
    requests = [Request(**one["request"]) for one in interactions]
    kept = {"requests": requests, "responses": [one["response"] for one in interactions]}
    path = Path(tempfile.mkdtemp(prefix="oao-bench-")) / "x.yaml"
    return lambda: {
        SAVE.key: milliseconds(lambda: FilesystemPersister.save_cassette(path, kept, yamlserializer)),
        LOAD.key: milliseconds(lambda: FilesystemPersister.load_cassette(path, yamlserializer)),
        SIZE.key: path.stat().st_size / 1000,
    }
