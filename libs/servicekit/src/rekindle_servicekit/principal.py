"""Principal: who calls."""

from __future__ import annotations

from dataclasses import dataclass

#: The role that may do everything; on one machine the local user has it.
ADMIN_ROLE = "admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A caller as the identity provider knows them; `issuer` and `subject` together never change."""

    issuer: str
    subject: str
    #: Name for people to read; it decides nothing.
    display_name: str
    roles: frozenset[str] = frozenset()
