"""Numbers as a person reads them: durations, counts, money."""

from __future__ import annotations

__all__ = ["ago", "count", "dollars", "duration", "plural"]


def duration(seconds: float) -> str:
    """Return a duration with three digits and its unit: `84 us`, `3.1 ms`, `1.20 s`, `2 min 05 s`, `3 h 12 min`."""
    # Each bound is where rounding would give what the next unit says better: no `1000 ms`, no `60.00 s`.
    if seconds < 0.0009995:
        return f"{seconds * 1e6:.0f} us"
    if seconds < 0.9995:
        milliseconds = seconds * 1e3
        return f"{milliseconds:.1f} ms" if milliseconds < 9.95 else f"{milliseconds:.0f} ms"
    if seconds < 59.995:
        return f"{seconds:.2f} s".replace(".00 ", " ")
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s" if rest else f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def count(number: int) -> str:
    """Return a number with its thousands apart."""
    return f"{number:,}"


def plural(number: int, noun: str) -> str:
    """Return a number and its noun: `1 step`, `1,204 tokens`."""
    return f"{count(number)} {noun}" if number == 1 else f"{count(number)} {noun}s"


def ago(seconds: float) -> str:
    """Return how long ago something was: `now`, `40 s ago`, `3 min ago`, `5 h ago`, `12 d ago`."""
    if seconds < 1:
        return "now"
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit} ago"
    return f"{int(seconds)} s ago"


def dollars(amount: float) -> str:
    """Return an amount of US dollars: `0.0042 USD`, `1.20 USD`."""
    return f"{amount:.2f} USD" if amount >= 1 else f"{amount:.3g} USD" if amount else "0 USD"
