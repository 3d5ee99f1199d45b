"""Who calls, on one machine."""

from __future__ import annotations

import asyncio

import pytest
from rekindle.errors import Unauthenticated
from rekindle.hosts import is_loopback_host
from rekindle_servicekit import context
from rekindle_servicekit.identity import Caller, LoopbackAuthenticator
from rekindle_servicekit.principal import Principal


@pytest.mark.parametrize(
    "peer",
    [
        "ipv4:127.0.0.1:50312",
        "ipv4:127.8.9.1:1",
        "ipv6:%5B::1%5D:50312",
        "ipv6:[::ffff:127.0.0.1]:9",
        "unix:",
        "unix:/a",
    ],
)
def test_local_peers_are_the_local_user(peer: str) -> None:
    """Whoever calls over loopback or a unix socket is the one local user."""
    found = asyncio.run(LoopbackAuthenticator().authenticate(Caller(peer=peer)))
    expected = Principal(issuer="loopback", subject="local", display_name="Local user", roles=frozenset({"admin"}))
    assert expected == found


@pytest.mark.parametrize(
    "peer",
    [
        *("ipv4:10.0.0.1:50312", "ipv6:%5Bfe80::1%5D:1", "ipv6:[::ffff:10.0.0.1]:9", "ipv4:0.0.0.0:1"),
        *("dns:localhost:1", "", "ipv4:", "ipv4:nonsense:1", "unixes:/a", "127.0.0.1:1"),
    ],
)
def test_other_peers_are_refused(peer: str) -> None:
    """Every other peer, and what is no peer name at all, is Unauthenticated."""
    with pytest.raises(Unauthenticated) as caught:
        asyncio.run(LoopbackAuthenticator().authenticate(Caller(peer=peer)))
    assert "NOT_LOOPBACK" == caught.value.reason


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("[::1]", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("[::]", False),
        ("", False),
        ("example.org", False),
        ("localhost.example", False),
    ],
)
def test_loopback_hosts(host: str, expected: bool) -> None:
    """Only names and addresses that no other machine can reach count as loopback."""
    assert expected is is_loopback_host(host)


def test_principal_of_context() -> None:
    """Inside its context the principal is there; outside, asking for it is Unauthenticated."""
    someone = Principal(issuer="i", subject="s", display_name="S")
    with context.bind(principal=someone):
        assert someone == context.principal()
    with pytest.raises(Unauthenticated):
        context.principal()
