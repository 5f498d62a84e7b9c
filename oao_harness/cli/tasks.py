"""The task of a run, as TASK or as `--input JSON`."""

from __future__ import annotations

import json

from oao_harness.errors import UsageError

__all__ = ["task_of"]


def task_of(task: str | None, task_json: str | None) -> object:
    """Return the task that a user gave in one of the two ways.

    Raises:
        UsageError: It was given in both, or is not JSON.
    """
    if task_json is None:
        return task
    if task is not None:
        raise UsageError("the task is given twice, as TASK and as --input; leave one of them out")
    try:
        return json.loads(task_json)
    except ValueError as error:
        raise UsageError(
            f'--input {task_json!r:.60} is not JSON: {error}; write for example --input \'{{"question": "Why?"}}\''
        ) from error
