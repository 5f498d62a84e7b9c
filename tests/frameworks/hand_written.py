"""What hand-written loops over a provider's client have in common: the tools, and what the model is told of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from oao_harness import tool


class Tools:
    """Functions as tools that pass the gate."""

    def __init__(self, functions: Sequence[Callable[..., Any]]) -> None:
        self._functions = {function.__name__: tool(function) for function in functions}

    def schemas(self) -> list[tuple[str, str, dict[str, Any]]]:
        """Name, description and parameters of each tool."""
        return [(name, str(function.__doc__), _schema(function)) for name, function in self._functions.items()]

    def call(self, name: str, arguments: Mapping[str, Any]) -> str:
        """Call one, and return what the model is told."""
        try:
            return str(self._functions[name](**arguments))
        except Exception as error:
            return f"error: {error}"


def _schema(function: Callable[..., Any]) -> dict[str, Any]:
    names = inspect.signature(function).parameters
    kinds = {name: "integer" if one.annotation in {int, "int"} else "string" for name, one in names.items()}
    return {"type": "object", "properties": {name: {"type": kind} for name, kind in kinds.items()}}
