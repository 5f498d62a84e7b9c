"""The interface of plugins that are a single file: the seed's `PluginInterface`. See `loader`."""

from __future__ import annotations

from abc import ABC, abstractmethod

__all__ = ["PluginInterface"]


class PluginInterface(ABC):
    """A plugin in a file of its own, which `PluginLoader.load` activates.

    Its methods may be hooks of oao too, marked with `@oao_hookspecs.hookimpl`; they are asked by each `Orchestrator`
    that is made while it is active, and may decide: the program that loads it has named it.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """What it is called; no two active plugins have the same name."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Its version, as PEP 440 writes them."""

    @abstractmethod
    def activate(self) -> None:
        """Register what it brings. Called once per loading; an error means that it is not loaded."""

    @abstractmethod
    def deactivate(self) -> None:
        """Give back what it holds. What it has registered with `PolicyRegistry` is withdrawn for it."""
