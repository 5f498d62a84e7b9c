"""What an agent may pay out in one run, and at which hours."""

from oao_spend_guard.policy import SpendGuard

__all__ = ["SpendGuard"]
