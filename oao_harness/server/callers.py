"""Who asks: an id, a tenant, and what they may do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from oao_hookspecs import Principal

__all__ = ["LOCAL", "PERMISSIONS", "Caller", "Permission"]

Permission: TypeAlias = Literal["read", "run", "approve", "admin"]
PERMISSIONS: Final[tuple[Permission, ...]] = ("read", "run", "approve", "admin")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who is known to the server."""

    id: str
    roles: tuple[str, ...] = ()
    tenant: str = ""
    """Whose runs it sees; empty for all."""
    permissions: frozenset[Permission] = frozenset()

    def may(self, permission: Permission) -> bool:
        """Return True where the caller has a permission."""
        return permission in self.permissions

    @property
    def principal(self) -> Principal:
        """Who a run of the caller acts for."""
        return Principal(id=self.id, roles=self.roles, tenant=self.tenant)


LOCAL: Final = Caller(id="local", permissions=frozenset(PERMISSIONS))
"""Whoever reaches a server that only this machine reaches."""
