"""What a server tells of itself: name, version, capabilities, limits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import grpc
from google.protobuf.timestamp_pb2 import Timestamp
from rekindle.api.common.v1 import info_pb2 as pb
from rekindle.api.common.v1 import info_pb2_grpc

from rekindle_servicekit.server import MAX_MESSAGE_BYTES, Server

API_VERSION = "v1"
INFO_SERVICE: str = pb.DESCRIPTOR.services_by_name["InfoService"].full_name


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFacts:
    """What is known of a server once its settings are read."""

    #: "scheduler", "inference" or "trainer".
    service: str
    #: Words for what this server can do beyond its version's common ground.
    capabilities: frozenset[str] = frozenset()
    #: Largest values taken, by name; units at the end.
    limits: Mapping[str, int] = field(default_factory=dict)
    #: Empty where none is set.
    installation_id: str = ""


def database_capabilities(url: str) -> frozenset[str]:
    """The word for the kind of database behind a URL."""
    return frozenset({"postgresql" if url.startswith("postgres") else "sqlite"})


def software_version(service: str) -> str:
    """Of the service's distribution; what a source tree that is not installed has is unknown."""
    try:
        return version(f"rekindle-{service}")
    except PackageNotFoundError:
        return "0.0.0+unknown"


def serve_info(server: Server, facts: ServerFacts) -> None:
    """Let `server` answer InfoService with these facts. Before it starts."""
    server.add(INFO_SERVICE, InfoServicer(facts), info_pb2_grpc.add_InfoServiceServicer_to_server)


class InfoServicer(info_pb2_grpc.InfoServiceServicer):
    """InfoService."""

    def __init__(self, facts: ServerFacts, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._facts = facts
        self._clock = clock

    async def GetServerInfo(  # noqa: N802 - named as in the proto
        self, request: pb.GetServerInfoRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> pb.GetServerInfoResponse:
        facts = self._facts
        now = Timestamp()
        now.FromDatetime(self._clock())
        info = pb.ServerInfo(
            service=facts.service,
            version=software_version(facts.service),
            api_version=API_VERSION,
            capabilities=sorted(facts.capabilities),
            limits={"max_message_bytes": MAX_MESSAGE_BYTES, **facts.limits},
            installation_id=facts.installation_id,
            server_time=now,
        )
        return pb.GetServerInfoResponse(info=info)
