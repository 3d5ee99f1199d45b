"""Which addresses no other machine can reach."""

from __future__ import annotations

import ipaddress


def is_loopback_host(host: str) -> bool:
    """Whether `host` (a name or an address, in brackets or not) can only be reached from this machine."""
    if host.lower() == "localhost":
        return True
    try:
        address = ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


def is_local_address(address: str) -> bool:
    """The same of ``host:port`` and ``unix:path``."""
    return address.startswith("unix:") or is_loopback_host(address.rpartition(":")[0])
