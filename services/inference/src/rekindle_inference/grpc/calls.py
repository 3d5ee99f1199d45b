"""What the servicers of this service share."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

import grpc
from rekindle_servicekit import context as ambient
from rekindle_servicekit.idempotency import RequestKey

#: Entries of a page: results carry the instances of their image, which may be thousands.
DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 200

Context = grpc.aio.ServicerContext[Any, Any]


class Folders(Protocol):
    """Where files of one call lie, and no longer than it lasts."""

    def folder(self) -> AbstractContextManager[Path]: ...


def make_request(method: str, request_id: str, message: Any) -> RequestKey:
    """The identity of a mutation; the digest tells a retry from another request under the same id."""
    return RequestKey.of(ambient.principal(), method, request_id, message.SerializeToString(deterministic=True))
