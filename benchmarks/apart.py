"""A process in which contenders are measured: reads orders from its standard input, answers with one line of JSON each.

What contenders print goes nowhere. What is imported before the first round is left alone by the garbage collector, as
in a program that has been up for a while.

    python -m benchmarks.apart < orders
"""

from __future__ import annotations

import gc
import json
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module

from benchmarks.timing import Measure


def main() -> None:
    """Answer until there are no more orders."""
    # What a contender has started, a server or workers, is ended by its context managers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    made: dict[str, Measure] = {}
    for line in sys.stdin:
        answers.write(json.dumps(_answer(made, line)) + "\n")
        answers.flush()


def _answer(made: dict[str, Measure], line: str) -> dict[str, object]:
    order = json.loads(line)
    try:
        if line not in made:
            module, _, function = order["make"].partition(":")
            make: Callable[..., Measure] = getattr(import_module(module), function)
            made[line] = make(**order["options"])
            if order["warm"]:
                made[line]()
            gc.collect()
            gc.freeze()
        gc.collect()
        return {"figures": made[line]()}
    except ModuleNotFoundError as error:
        return {"missing": str(error.name)}
    except SystemExit:
        raise
    except BaseException as error:  # noqa: BLE001 - told to who asked, who says it in the table
        return {"error": f"{type(error).__name__}: {error}"[:300]}


if __name__ == "__main__":
    main()
