"""Which failures are transient, and how long to wait before the next try."""

from __future__ import annotations

from typing import Final

from oao_hookspecs import Call, Retry, ToolCall

__all__ = ["delay_before_retry", "is_transient"]

# Source: HTTP semantics (RFC 9110) and the retry lists of the OpenAI and Anthropic clients.
_TRANSIENT_STATUS: Final = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
# By name, because a client library must not be imported to ask what it raised.
_TRANSIENT_NAMES: Final = frozenset(
    {"APIConnectionError", "APITimeoutError", "ConnectTimeout", "ReadTimeout", "ServiceUnavailable", "TransportError"}
)


def is_transient(error: BaseException) -> bool:
    """Return True where the same call may succeed a moment later: a lost connection, a timeout, a busy server."""
    if isinstance(error, ConnectionError | TimeoutError):
        return True
    for attribute in ("status_code", "status", "code", "http_status"):
        status = getattr(error, attribute, None)
        if isinstance(status, int) and status in _TRANSIENT_STATUS:
            return True
    return any(cls.__name__ in _TRANSIENT_NAMES for cls in type(error).__mro__)


def delay_before_retry(
    retry: Retry | None, call: Call, error: BaseException, attempt: int, left_s: float | None
) -> float | None:
    """Return the seconds to wait before another try, or None where there must be none.

    Args:
        retry: The run's retry settings.
        call: What failed; a tool whose effect is `once` is never repeated.
        error: Why it failed.
        attempt: The try that failed, from 1.
        left_s: Seconds until the run's deadline; None without one.
    """
    if retry is None or attempt > retry.max_retries or not is_transient(error):
        return None
    if isinstance(call, ToolCall) and call.effect == "once":
        return None
    delay = retry.initial_delay_s * retry.backoff_factor ** (attempt - 1)
    return None if left_s is not None and delay >= left_s else delay
