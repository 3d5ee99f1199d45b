"""What a caller's roles allow within a project, beyond the calls themselves."""

from __future__ import annotations

from rekindle_servicekit.permissions import Permission, permissions_of
from rekindle_servicekit.principal import Principal


def may_review(principal: Principal) -> bool:
    """Whether the caller judges what others handed in."""
    return Permission.REVIEW in permissions_of(principal.roles)
