"""The agent of `oao demo fleet`: it brings parcels, and writes down every stop that it really made."""

from __future__ import annotations

import os
import time
from typing import Final

from oao_harness import current_call, tool

__all__ = ["EFFECTS", "STOPS", "courier"]

EFFECTS: Final = "OAO_DEMO_EFFECTS"
"""Environment variable: the file that each body of a tool adds a line to, its idempotency key and its process."""
STOPS: Final = 8
_DRIVE_S: Final = 0.3


@tool(effect="idempotent")
def deliver(parcel: str, stop: int) -> str:
    """Bring a parcel to its next stop."""
    call = current_call()
    key = "" if call is None else call.idempotency_key
    # One write of a few bytes at the end of a file: whole, whoever else writes.
    file = os.open(os.environ[EFFECTS], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, f"{key} {os.getpid()}\n".encode())
    finally:
        os.close(file)
    time.sleep(_DRIVE_S)
    return f"{parcel} passed stop {stop}"


def courier(task: str) -> str:
    """Bring a parcel through all stops."""
    for stop in range(1, STOPS + 1):
        deliver(task, stop)
    return f"{task} delivered"
