"""Version, capabilities and limits of the servers, and whether they are new enough for this client."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from rekindle._services import Services
from rekindle.api.common.v1 import info_pb2 as pb
from rekindle.convert import from_proto
from rekindle.errors import NotFound, Unsupported

#: Oldest server version that knows every call of this client.
NEEDED_VERSION: Final = "0.1.0"
#: Version of servers that cannot tell their version.
_SILENT_VERSION: Final = "0.0.0"


@dataclass(frozen=True, kw_only=True)
class ServerInfo:
    """One server."""

    #: "scheduler", "inference" or "trainer".
    service: str
    #: host:port, as this client calls it.
    address: str
    version: str
    #: "v1"; empty for a server that is too old to tell.
    api_version: str = ""
    #: Abilities beyond those of every server of its version, as in "postgresql".
    capabilities: frozenset[str] = frozenset()
    #: Largest values taken, by name with the unit at its end; 0 for no limit.
    limits: Mapping[str, int]
    #: Id of the installation; empty if none is set.
    installation_id: str = ""
    server_time: datetime | None = None

    @property
    def is_too_old(self) -> bool:
        """Whether this client calls things that the server does not know."""
        return _numbers(self.version) < _numbers(NEEDED_VERSION)


class InfoCalls:
    """The part of the client that asks servers about themselves."""

    _services: Services
    _warned: set[str]

    def server_info(self) -> dict[str, ServerInfo]:
        """Every server by its service. Warns once of each that is older than this client needs."""
        return {name: self.server_info_of(name) for name in self._services.addresses}

    def server_info_of(self, service: str) -> ServerInfo:
        """One server; NotFound for a service that there is not. A server too old to answer has version 0.0.0."""
        stub = self._services.info.get(service)
        if stub is None:
            raise NotFound(f"there is no service {service!r}: ask for one of {', '.join(self._services.info)}")
        address = self._services.addresses[service]
        try:
            answer = stub.GetServerInfo(pb.GetServerInfoRequest())
            capabilities = frozenset(answer.info.capabilities)
            info = from_proto(answer.info, ServerInfo, address=address, capabilities=capabilities)
        except Unsupported:
            info = ServerInfo(service=service, address=address, version=_SILENT_VERSION, limits={})
        if info.is_too_old and service not in self._warned:
            self._warned.add(service)
            warnings.warn(
                f"the {service} service at {address} has version {info.version} and this client needs "
                f"{NEEDED_VERSION} or newer: some calls will fail until it is brought up to date",
                UserWarning,
                stacklevel=2,
            )
        return info


def _numbers(version: str) -> tuple[int, ...]:
    """ "0.12.1.dev0" as (0, 12, 1); pre-releases count as their release."""
    numbers = [int(number) for number in re.findall(r"\d+", version)[:3]]
    return (*numbers, 0, 0, 0)[:3]
