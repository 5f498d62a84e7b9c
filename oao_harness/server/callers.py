"""Who asks: an id, a tenant, and what they may do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from oao_hookspecs import Principal

__all__ = ["LOCAL", "PERMISSIONS", "ROLES", "Caller", "Permission", "permissions_of"]

Permission: TypeAlias = Literal["read", "run", "approve", "admin"]
PERMISSIONS: Final[tuple[Permission, ...]] = ("read", "run", "approve", "admin")

ROLES: Final[Mapping[str, frozenset[Permission]]] = {
    "viewer": frozenset({"read"}),
    "operator": frozenset({"read", "run"}),
    "approver": frozenset({"read", "approve"}),
    "admin": frozenset(PERMISSIONS),
}
"""What the roles that the server knows may do. Any other role means something to policies and approvals alone."""


def permissions_of(roles: Iterable[str]) -> frozenset[Permission]:
    """Return what somebody with these roles may do; nothing for roles that the server does not know."""
    return frozenset[Permission]().union(*(ROLES.get(role, frozenset[Permission]()) for role in roles))


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Somebody who is known to the server."""

    id: str
    roles: tuple[str, ...] = ()
    tenant: str = ""
    """Whose runs it sees; empty for all."""
    permissions: frozenset[Permission] = frozenset()

    @classmethod
    def of(cls, id: str, roles: Iterable[str], tenant: str = "") -> Caller:
        """Return a caller who may do what its roles say."""
        known = tuple(roles)
        return cls(id=id, roles=known, tenant=tenant, permissions=permissions_of(known))

    def may(self, permission: Permission) -> bool:
        """Return True where the caller has a permission."""
        return permission in self.permissions

    @property
    def principal(self) -> Principal:
        """Who a run of the caller acts for."""
        return Principal(id=self.id, roles=self.roles, tenant=self.tenant)


LOCAL: Final = Caller(id="local", permissions=frozenset(PERMISSIONS))
"""Whoever reaches a server that only this machine reaches."""
