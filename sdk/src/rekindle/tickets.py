"""Tickets: leases as text, to go on with them in another process or another tool."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError

from rekindle._deprecated import warn_of_old_name
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.errors import InvalidInput
from rekindle.timer import TimeSegment


@dataclass(frozen=True, kw_only=True)
class Ticket:
    """What a ticket holds."""

    lease: records.Lease
    #: Length of the lease that each renewal asks for.
    held_s: float
    segments: list[TimeSegment]


def write_ticket(lease: records.Lease, held_s: float, segments: Sequence[TimeSegment]) -> str:
    """The lease and its time as a text."""
    written = MessageToDict(lease, preserving_proto_field_name=True)
    times = [segment.to_dict() for segment in segments]
    return json.dumps({"lease": written, "held_s": held_s, "segments": times}, indent=2)


def read_ticket(text: str) -> Ticket:
    """Reads what `Lease.ticket` wrote. Raises InvalidInput for any other text."""
    try:
        written = json.loads(text)
        return Ticket(
            lease=ParseDict(written["lease"], records.Lease(), ignore_unknown_fields=True),
            held_s=float(written["held_s"]),
            segments=[TimeSegment.from_dict(item) for item in written["segments"]],
        )
    except (ValueError, KeyError, TypeError, AttributeError, ParseError) as failure:
        raise InvalidInput("this is not a ticket of a lease: give the text that Lease.ticket wrote") from failure


_RENAMED = {"WrittenLease": "Ticket", "read_token": "read_ticket", "write_token": "write_ticket"}


def __getattr__(name: str) -> Any:
    """Names of earlier releases, which still work and warn."""
    if name not in _RENAMED:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    warn_of_old_name(f"rekindle.tickets.{name}", f"rekindle.tickets.{_RENAMED[name]}")
    return globals()[_RENAMED[name]]
