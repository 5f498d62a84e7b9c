"""Size, loading and saving of recordings beside HTTP cassettes of the same traffic, as vcrpy keeps them in YAML.

One process, one conversation; see `traffic`. vcrpy's own persister writes and reads the cassettes: with libyaml, as
vcrpy uses it wherever that is installed, and with PyYAML's pure Python, as it does elsewhere. Times are processor
time, the best of several. Run: `python -m benchmarks.recording_files`; `--pure` measures pure Python too, which takes
minutes.
"""

from __future__ import annotations

import gc
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from vcr.persisters.filesystem import FilesystemPersister
from vcr.request import Request
from vcr.serializers import yamlserializer

from benchmarks.traffic import conversation
from oao_harness.journal.recording import Recording

TURNS = (10, 50, 500)
ENOUGH_S = 1.5
MOST_TIMES = 40


class PureYaml:
    """What `yamlserializer` is where libyaml is missing."""

    @staticmethod
    def serialize(cassette: dict[str, Any]) -> str:
        return yaml.dump(cassette, Dumper=yaml.Dumper)

    @staticmethod
    def deserialize(text: str) -> Any:
        return yaml.load(text, Loader=yaml.SafeLoader)


def milliseconds(work: Callable[[], object]) -> float:
    """Return the least processor time of several runs: other processes do not count."""
    took: list[float] = []
    while not took or (len(took) < MOST_TIMES and sum(took) < ENOUGH_S * 1000):
        begin = time.process_time()
        work()
        took.append((time.process_time() - begin) * 1000)
    return min(took)


def cassette_times(interactions: list[dict[str, Any]], path: Path, serializer: Any) -> tuple[float, float]:
    """Return what saving and loading take, in milliseconds."""
    requests = [Request(**one["request"]) for one in interactions]
    responses = [one["response"] for one in interactions]
    cassette = {"requests": requests, "responses": responses}
    save = milliseconds(lambda: FilesystemPersister.save_cassette(path, cassette, serializer))
    return save, milliseconds(lambda: FilesystemPersister.load_cassette(path, serializer))


def main() -> None:
    """Print the tables."""
    console = Console(width=110)
    kinds = {"libyaml": yamlserializer, **({"pure Python": PureYaml} if "--pure" in sys.argv[1:] else {})}
    with tempfile.TemporaryDirectory() as folder:
        table = Table(
            "events", "what", "oao", *(f"vcrpy, {kind}" for kind in kinds), title="recordings, processor time"
        )
        for turns in TURNS:
            traffic = conversation(turns)
            path, cassette = Path(folder, "x.oao.json"), Path(folder, "x.yaml")
            # What was there before is not what is measured: the garbage collector leaves it alone.
            gc.collect()
            gc.freeze()
            compiling = milliseconds(lambda tape=traffic.tape: Recording.from_records(tape))
            recording = Recording.from_records(traffic.tape, test="test_support.py::test_late_parcel")
            save = milliseconds(lambda one=recording, to=path: one.save(to))
            load = milliseconds(lambda to=path: Recording.load(to))
            theirs = {kind: cassette_times(traffic.interactions, cassette, one) for kind, one in kinds.items()}
            size, their_size = path.stat().st_size / 1000, cassette.stat().st_size / 1000
            name = f"{2 * turns:,}"
            table.add_row(name, "size", f"{size:,.1f} kB", f"{their_size:,.1f} kB  {their_size / size:.1f}x")
            for place, (what, ours) in enumerate((("save", save), ("load", load))):
                times = (f"{one[place]:,.1f} ms  {one[place] / ours:.0f}x" for one in theirs.values())
                table.add_row("", what, f"{ours:,.2f} ms", *times)
            table.add_row("", "compile", f"{compiling:,.2f} ms", end_section=True)
        console.print(table)


if __name__ == "__main__":
    main()
