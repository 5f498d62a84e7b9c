"""Finds the recorded runs that a command is to judge again: files of any form, folders of them, runs of a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, cast

from oao_harness.cli.recorded import is_file_name, shown
from oao_harness.cli.stores import find_outer_run
from oao_harness.errors import RecordingError, UsageError
from oao_harness.importing.forms import UnknownFormError, import_runs, is_cassette
from oao_harness.importing.reading import read_documents
from oao_harness.journal.histories import History, histories_of_recording, history_of_records
from oao_harness.journal.nesting import tape_of
from oao_harness.journal.recording import Recording
from oao_harness.journal.timeline import text
from oao_hookspecs import Json, Record, Store

__all__ = ["ALL", "Source", "sources_of", "wants_store"]

ALL: Final = "all"
_RECORDING: Final = ".oao.json"
_SUFFIXES: Final = (".json", ".jsonl")
_BLOBS: Final = "blobs"
_MOST_RUNS: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One file, or one run of a store."""

    name: str
    load: Callable[[], Sequence[History]] = field(repr=False)
    """Reads it; nothing for a run that is nested in another one of the store, and judged with that."""
    is_named: bool = True
    """False where it was found in a folder: then an unknown form is no mistake."""


def wants_store(given: Sequence[str]) -> bool:
    """Return True where some of the runs that a user named are in a store."""
    return any(one == ALL or not is_file_name(one) for one in given)


def sources_of(given: Sequence[str], store: Store | None) -> list[Source]:
    """Return what a user named, each once, in the order it was named.

    Args:
        given: Files, folders, ids of runs or unique starts of them, `last`, `all`.
        store: Where runs are searched; None where none was named.

    Raises:
        UsageError: A file is missing, a folder has no run, or no run has that id.
    """
    found: dict[str, Source] = {}
    for one in given:
        for source in _sources(one, store):
            found.setdefault(source.name, source)
    return list(found.values())


def _sources(given: str, store: Store | None) -> Iterator[Source]:
    if store is not None and (given == ALL or not is_file_name(given)):
        yield from _stored(given, store)
        return
    path = Path(given)
    if not path.exists():
        raise UsageError(f"there is no file or folder {given!r}")
    if not path.is_dir():
        yield Source(name=shown(path), load=lambda: _of_file(path))
        return
    files = sorted(file for file in path.rglob("*") if _may_hold_runs(file.relative_to(path)) and file.is_file())
    if not files:
        raise UsageError(f"the folder {given!r} holds no file that ends in {' or '.join(_SUFFIXES)}")
    for file in files:
        yield Source(name=shown(file), load=_loader(file), is_named=False)


def _may_hold_runs(path: Path) -> bool:
    is_hidden = any(part.startswith(".") for part in path.parts)
    return path.name.endswith(_SUFFIXES) and not is_hidden and _BLOBS not in path.parts[:-1]


def _loader(path: Path) -> Callable[[], Sequence[History]]:
    return lambda: _of_file(path)


def _of_file(path: Path) -> list[History]:
    name = shown(path)
    if is_cassette(path):
        from oao_harness.importing.recordings import recording_of  # noqa: PLC0415 - its extra may be missing

        return histories_of_recording(recording_of(path), name)
    if path.name.endswith(_RECORDING):
        return histories_of_recording(Recording.load(path), name)
    try:
        runs = import_runs(path)
    except UnknownFormError:
        documents = read_documents(path)
        if all(_is_record(one) for one in documents):
            return [history_of_records([("main", cast("Record", one)) for one in documents], name)]
        if isinstance(documents[0], dict) and "events" in documents[0] and "oao" in documents[0]:
            return histories_of_recording(Recording.load(path), name)
        raise
    return [
        history
        for run in runs
        for history in histories_of_recording(run.recording, f"{name}:{run.name}" if run.name else name)
    ]


def _is_record(document: Json) -> bool:
    return isinstance(document, dict) and "type" in document and "seq" in document


def _stored(given: str, store: Store) -> Iterator[Source]:
    if given == ALL:
        runs = store.runs(limit=_MOST_RUNS)
        if not runs:
            raise UsageError("no run is journaled here yet; make one with: oao run module:agent TASK")
        for summary in reversed(runs):
            yield Source(name=summary.execution_id, load=_stored_loader(summary.execution_id, store))
        return
    execution_id = text(find_outer_run(store, given)[0], "execution_id")
    yield Source(name=execution_id, load=lambda: [_history(execution_id, store)])


def _stored_loader(execution_id: str, store: Store) -> Callable[[], Sequence[History]]:
    def load() -> Sequence[History]:
        first = next(iter(store.read(execution_id)), None)
        parent = None if first is None else first.get("parent")
        if first is None or (parent is not None and next(iter(store.read(str(parent))), None) is not None):
            return []
        return [_history(execution_id, store)]

    return load


def _history(execution_id: str, store: Store) -> History:
    try:
        tape = tape_of(execution_id, lambda one: list(store.read(one)))
    except (KeyError, TypeError, ValueError) as error:
        raise RecordingError(f"run {execution_id}: its journal is damaged: {type(error).__name__} {error}") from error
    return history_of_records(tape, execution_id)
