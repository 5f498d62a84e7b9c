"""What is known of models and tools beside their calls: prices and traits, asked once for each name."""

from __future__ import annotations

import math

import pluggy

from oao_harness.errors import ConfigError
from oao_hookspecs import ModelCall, Price, ToolTraits

__all__ = ["Catalog"]


class Catalog:
    """Answers from the plugins `oao_price` and `oao_describe_tool`, kept for each name.

    Args:
        manager: Checked.
    """

    __slots__ = ("_hook", "_prices", "_traits", "describes")

    def __init__(self, manager: pluggy.PluginManager) -> None:
        self._hook = manager.hook
        self.describes = bool(manager.hook.oao_describe_tool.get_hookimpls())
        """True where some plugin declares what tools do."""
        self._prices: dict[str, Price | None] = {}
        self._traits: dict[str, ToolTraits | None] = {}

    def price(self, call: ModelCall) -> Price | None:
        """Return what a model costs, or None where nobody knows.

        Raises:
            ConfigError: A plugin answered something that is no price.
        """
        if call.name not in self._prices:
            found: object = self._hook.oao_price(call=call)
            if found is not None and not isinstance(found, Price):
                raise ConfigError(f"oao_price({call.name!r}) returned {found!r:.100}, which is no Price")
            for amount in (found.input_per_million, found.output_per_million) if found is not None else ():
                if not 0 <= amount < math.inf:
                    raise ConfigError(f"oao_price({call.name!r}) returned {found!r:.100}; prices are >= 0")
            self._prices[call.name] = found
        return self._prices[call.name]

    def traits(self, name: str) -> ToolTraits | None:
        """Return what is declared about a tool, or None.

        Raises:
            ConfigError: A plugin answered something else.
        """
        if name not in self._traits:
            found: object = self._hook.oao_describe_tool(name=name)
            if found is not None and not isinstance(found, ToolTraits):
                raise ConfigError(f"oao_describe_tool({name!r}) returned {found!r:.100}, which is no ToolTraits")
            self._traits[name] = found
        return self._traits[name]
