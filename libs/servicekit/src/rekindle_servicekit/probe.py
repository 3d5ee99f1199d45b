"""``python -m rekindle_servicekit.probe [HOST:PORT]``: asks a health port; exit code 0 while it says SERVING.

For containers, whose images have neither curl nor a shell to rely on. Without an address it asks the one that
this container's own setting ``REKINDLE_<SERVICE>_HEALTH_ADDRESS`` names.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

TIMEOUT_S = 3.0
_SETTING = re.compile(r"REKINDLE_[A-Z]+_HEALTH_ADDRESS")


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where the service serves; 1 where it does not, or cannot be asked; 2 without an address."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    address = given[0] if given else _own_address(os.environ)
    if len(given) > 1 or not address or ":" not in address:
        print("usage: python -m rekindle_servicekit.probe [HOST:PORT]", file=sys.stderr)
        return 2
    status = ask(_reachable(address))
    if status != "SERVING":
        print(f"{address}: {status}", file=sys.stderr)
        return 1
    return 0


def ask(address: str) -> str:
    """What health says of the whole server, or the gRPC status where there is no answer."""
    with grpc.insecure_channel(address) as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=TIMEOUT_S)
        except grpc.RpcError as failure:
            return failure.code().name if isinstance(failure, grpc.Call) else "UNKNOWN"
    return health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)


def _own_address(environment: Mapping[str, str]) -> str:
    found = [value for name, value in environment.items() if _SETTING.fullmatch(name) and value]
    return found[0] if len(found) == 1 else ""


def _reachable(address: str) -> str:
    """An address to listen on everywhere is asked on this machine."""
    host, _, port = address.rpartition(":")
    return f"127.0.0.1:{port}" if host in ("0.0.0.0", "[::]", "*", "") else address


if __name__ == "__main__":
    sys.exit(main())
