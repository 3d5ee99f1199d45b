"""Authenticator: the port that turns a call into a Principal, and its embedded side, one local user."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import unquote

from rekindle.errors import Unauthenticated
from rekindle.hosts import is_loopback_host

from rekindle_servicekit.principal import ADMIN_ROLE, Principal


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What is known of a caller before they are authenticated."""

    #: Address of the peer as gRPC writes it: ``ipv4:127.0.0.1:50312``, ``ipv6:%5B::1%5D:50312``, ``unix:/run/a.sock``.
    peer: str
    #: Names in lower case. Of a name sent twice the last value.
    metadata: Mapping[str, str | bytes] = field(default_factory=dict)
    #: Names in the verified client certificate; empty without TLS.
    certificate_names: tuple[str, ...] = ()


class Authenticator(Protocol):
    """Who calls?"""

    async def authenticate(self, caller: Caller) -> Principal:
        """The caller's principal; Unauthenticated where it cannot be told."""
        ...


class LoopbackAuthenticator:
    """One local user, for one machine: whoever can reach the loopback interface is that user."""

    def __init__(self, *, subject: str = "local", display_name: str = "Local user") -> None:
        self._principal = Principal(
            issuer="loopback", subject=subject, display_name=display_name, roles=frozenset({ADMIN_ROLE})
        )

    async def authenticate(self, caller: Caller) -> Principal:
        if not is_local_peer(caller.peer):
            raise Unauthenticated(
                "this service knows only its local user and the call came from another machine: "
                "call it on the same machine, or let its administrator set callers_file",
                reason="NOT_LOOPBACK",
            )
        return self._principal


def is_local_peer(peer: str) -> bool:
    """Whether a gRPC peer name is on this machine: a unix socket or the loopback interface."""
    kind, _, address = unquote(peer).partition(":")
    if kind == "unix":
        return True
    host = address.rpartition(":")[0]
    return kind in {"ipv4", "ipv6"} and is_loopback_host(host)
