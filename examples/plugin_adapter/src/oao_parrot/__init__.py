"""Drives the agents of Parrot, and governs their calls."""

from oao_parrot.adapter import ParrotAdapter

__all__ = ["ParrotAdapter"]
