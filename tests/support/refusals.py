"""What a call over gRPC is refused with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from rekindle.errors import RekindleError
from rekindle.status import error_from_rpc


def refused(call: Callable[[], Any]) -> RekindleError:
    """The error of a call that must fail."""
    return refused_with(call)[1]


def refused_with(call: Callable[[], Any]) -> tuple[grpc.StatusCode, RekindleError]:
    """The same, with its status."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), error_from_rpc(caught.value)
