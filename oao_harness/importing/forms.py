"""Which form a file of recorded runs has, and its runs; an unknown form is an error that names the known ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from oao_harness.errors import RecordingError
from oao_harness.importing import agentdojo, otlp, tau_bench
from oao_harness.importing.reading import read_documents
from oao_harness.importing.runs import ImportedRun
from oao_hookspecs import Json

__all__ = ["FORMS", "UnknownFormError", "import_runs", "is_cassette"]

_READERS: Final[dict[str, tuple[Callable[[Json], bool], Callable[[Sequence[Json], str], list[ImportedRun]]]]] = {
    agentdojo.FORM: (
        agentdojo.is_agentdojo,
        lambda documents, source: [run for one in documents for run in agentdojo.runs_of_agentdojo(one, source)],
    ),
    tau_bench.TAU2_FORM: (
        tau_bench.is_tau2,
        lambda documents, source: [run for one in documents for run in tau_bench.runs_of_tau2(one, source)],
    ),
    tau_bench.TAU_FORM: (
        tau_bench.is_tau_bench,
        lambda documents, source: [run for one in documents for run in tau_bench.runs_of_tau_bench(one, source)],
    ),
    otlp.FORM: (otlp.is_otlp, otlp.runs_of_otlp),
}
FORMS: Final = tuple(_READERS)
"""Names of the forms that `import_runs` reads."""
_CASSETTES: Final = (".yaml", ".yml", ".yaml.gz", ".yml.gz")


class UnknownFormError(RecordingError):
    """A file is sound JSON, and of no form that is known."""


def is_cassette(path: Path) -> bool:
    """Return True where a file is, by its name, a cassette of vcrpy."""
    return path.name.lower().endswith(_CASSETTES)


def import_runs(path: str | Path) -> list[ImportedRun]:
    """Return the recorded runs of a file, whatever form of `FORMS` it has.

    Args:
        path: The file.

    Raises:
        RecordingError: The file is missing, damaged, or (`UnknownFormError`) of an unknown form; names file and place.
    """
    path = Path(path)
    try:
        documents = _unpacked(read_documents(path))
        known = [
            name for name, (matches, _) in _READERS.items() if documents and all(matches(one) for one in documents)
        ]
        if not known:
            raise UnknownFormError(_unknown(documents))
        runs = _READERS[known[0]][1](documents, path.name)
    except UnknownFormError as error:
        raise UnknownFormError(f"cannot import {str(path)!r}: {error}") from error
    except RecordingError as error:
        raise RecordingError(f"cannot import {str(path)!r}: {error}") from error
    except RecursionError as error:
        raise RecordingError(f"cannot import {str(path)!r}: it is nested too deep") from error
    if not runs:
        raise RecordingError(f"cannot import {str(path)!r}: it holds no run")
    return runs


def _unpacked(documents: list[Json]) -> list[Json]:
    """Return the documents of a list of them: exporters write requests of OTLP, and people logs, into one list."""
    if len(documents) == 1 and isinstance(documents[0], list) and documents[0]:
        items = list(documents[0])
        if all(otlp.is_otlp(one) or agentdojo.is_agentdojo(one) for one in items):
            return items
    return documents


def _unknown(documents: Sequence[Json]) -> str:
    first = documents[0] if documents else None
    several = f"{len(documents)} JSON lines, each of them " if len(documents) > 1 else ""
    if isinstance(first, list):
        inner = first[0] if first else None
        keys = f" of objects with {_keys(inner)}" if isinstance(inner, dict) else ""
        shape = f"a list of {len(first)}{keys}"
    else:
        shape = f"an object with {_keys(first)}" if isinstance(first, dict) else f"{first!r:.60}"
    hint = "; a recording of oao needs no import" if isinstance(first, dict) and "oao" in first else ""
    return f"it is {several}{shape}, and of no known form ({', '.join(FORMS)}){hint}"


def _keys(node: dict[str, Json]) -> str:
    names = [repr(key)[:40] for key in list(node)[:5]]
    return ", ".join(names) + (" ..." if len(node) > 5 else "") if names else "no keys"
