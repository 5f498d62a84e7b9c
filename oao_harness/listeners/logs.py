"""Says in every log record which run and which trace it belongs to. Needs no OpenTelemetry; uses it where it is used.

The library itself configures no logging: commands that run agents for others call `install_log_fields`.
"""

from __future__ import annotations

import datetime as dt
import json
import logging
import sys
from collections.abc import Callable
from typing import Any, Final

from oao_harness.journal.secrets import scrub
from oao_harness.runtime.context import here

__all__ = ["JsonFormatter", "LogFields", "install_log_fields"]

_FIELDS: Final = ("execution_id", "trace_id", "span_id")


class LogFields(logging.Filter):
    """Adds `execution_id`, `trace_id` and `span_id` to the records that pass a handler; empty where there is none.

    For handlers of your own. Attach it where records are made: a handler in another thread, behind a queue, is too
    late.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the fields, and let every record pass."""
        _add(record)
        return True


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON, without secrets of the environment.

    Keys: `time` (ISO 8601, UTC), `level`, `logger`, `message`, `execution_id`, `trace_id`, `span_id`, and where there
    is one `error` with the traceback.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        line: dict[str, str] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {name: str(getattr(record, name, "")) for name in _FIELDS}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        elif record.exc_text:
            line["error"] = record.exc_text
        return json.dumps(scrub(line), ensure_ascii=False)


def install_log_fields() -> None:
    """Add the fields to every log record of this process, whoever makes it. Calling it twice is allowed."""
    make = logging.getLogRecordFactory()
    if not isinstance(make, _Factory):
        logging.setLogRecordFactory(_Factory(make))


class _Factory:
    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(self, *args: Any, **kwargs: Any) -> logging.LogRecord:
        record = self._make(*args, **kwargs)
        _add(record)
        return record


def _add(record: logging.LogRecord) -> None:
    if hasattr(record, "execution_id") and hasattr(record, "trace_id"):
        # Made where it was logged; here may be another thread.
        return
    run = here.get()
    record.execution_id = "" if run is None else run.execution_id
    record.trace_id = record.span_id = ""
    # Not imported: nobody traces anything, and a log line shall not be what imports it.
    trace = sys.modules.get("opentelemetry.trace")
    if trace is not None:
        said = trace.get_current_span().get_span_context()
        if said.is_valid:
            record.trace_id, record.span_id = f"{said.trace_id:032x}", f"{said.span_id:016x}"
