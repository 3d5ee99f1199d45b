"""Calls to Triton over gRPC: each with a time limit, its failures in this product's words."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
from rekindle.errors import CapacityExceeded, DependencyUnavailable, InvalidInput
from tritonclient.grpc import service_pb2
from tritonclient.grpc.service_pb2_grpc import GRPCInferenceServiceStub

_log = logging.getLogger(__name__)

#: Its classes are made when it is imported; type checkers do not see them.
messages: Any = service_pb2

_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    # A server that comes back is found within seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # Another channel is another connection.
    ("grpc.use_local_subchannel_pool", 1),
    # No pings: Triton ends a connection that pings while a long call runs. Each call has its time limit instead.
)
#: How often a connection that answers nothing is replaced at most.
_RENEW_EVERY_S = 5.0

#: The reason where nothing was answered and it is worth trying again at once.
UNREACHABLE = "MODEL_SERVER_UNAVAILABLE"
#: The reason where Triton may still be doing what it was asked.
TIMEOUT = "MODEL_SERVER_TIMEOUT"


class ModelGone(Exception):
    """What a request needs is not there: the model is not loaded, or a memory region not registered."""


class Refused(Exception):
    """Triton answered with an error that is no failure of the connection."""

    def __init__(self, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{code.name}: {details}")
        self.code, self.details = code, details


@dataclass(frozen=True, slots=True, kw_only=True)
class Connection:
    """Where Triton is and how to talk to it."""

    #: host:port of its gRPC service.
    address: str
    #: PEM files; None for plain text.
    ca: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    #: `key=value` of `--grpc-restricted-protocol`, where control calls are restricted.
    access_key: str = field(default="", repr=False)
    #: Of calls that Triton answers from what it knows.
    control_timeout_s: float = 10.0
    #: Of loading a model; TensorRT builds its engine meanwhile.
    load_timeout_s: float = 300.0
    #: Of one batch.
    infer_timeout_s: float = 60.0


class TritonClient:
    """Safe to use from several threads."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._channels = [_open(connection)]
        self._stub: Any = GRPCInferenceServiceStub(self._channels[0])
        self._lock = threading.Lock()
        self._renewed = -math.inf
        key, _, value = connection.access_key.partition("=")
        self._metadata = [(f"triton-grpc-protocol-{key}", value)] if key else None

    def is_ready(self, name: str) -> bool:
        """Whether the model answers requests."""
        return self._control("ModelReady", messages.ModelReadyRequest(name=name)).ready

    def loaded(self) -> list[str]:
        """Names of all models that are ready."""
        index = self._control("RepositoryIndex", messages.RepositoryIndexRequest(ready=True))
        return [model.name for model in index.models]

    def parameters(self, name: str) -> dict[str, str]:
        """What a loaded model's configuration says in `parameters`."""
        config = self._control("ModelConfig", messages.ModelConfigRequest(name=name)).config
        return {key: value.string_value for key, value in config.parameters.items()}

    def load(self, name: str) -> None:
        """Load a model from the repository; nothing happens where it is loaded.

        InvalidInput (MODEL_NOT_LOADABLE), CapacityExceeded, DependencyUnavailable.
        """
        request = messages.RepositoryModelLoadRequest(model_name=name)
        try:
            self._call("RepositoryModelLoad", request, self.connection.load_timeout_s)
        except Refused as refused:
            _log.warning("the model server does not load %s: %s", name, refused, extra={"action": "engine.load"})
            raise _load_error(refused) from refused

    def unload(self, name: str) -> None:
        """Requests that are under way are still answered."""
        self._control("RepositoryModelUnload", messages.RepositoryModelUnloadRequest(model_name=name))

    def infer(self, request: Any, timeout_s: float) -> Any:
        """Send a batch; the answer is a future of grpc's, to be given to `answer_of`."""
        return self._stub.ModelInfer.future(request, timeout=timeout_s, metadata=self._metadata)

    def register(self, region: str, key: str, size: int) -> None:
        """Share a memory object with Triton; Refused where it cannot open it."""
        request = messages.SystemSharedMemoryRegisterRequest(name=region, key=key, offset=0, byte_size=size)
        self._control("SystemSharedMemoryRegister", request)

    def unregister(self, region: str) -> None:
        request = messages.SystemSharedMemoryUnregisterRequest(name=region)
        self._call("SystemSharedMemoryUnregister", request, min(2.0, self.connection.control_timeout_s))

    def regions(self) -> Iterable[str]:
        """Names of the memory objects that Triton shares with anybody."""
        status = self._control("SystemSharedMemoryStatus", messages.SystemSharedMemoryStatusRequest())
        return list(status.regions)

    def failure(self, error: Any, timeout_s: float) -> Exception:
        """What a failed call means; `timeout_s` is the limit that it ran under.

        Where nothing was answered in time further calls take a new connection: the machine at the other end of the
        old one may be gone, which nobody tells.
        """
        failure = _failure_of(error, timeout_s)
        if isinstance(failure, DependencyUnavailable) and failure.reason == TIMEOUT:
            self._renew()
        return failure

    def close(self) -> None:
        for channel in self._channels:
            channel.close()

    def _control(self, method: str, request: Any) -> Any:
        return self._call(method, request, self.connection.control_timeout_s)

    def _call(self, method: str, request: Any, timeout_s: float) -> Any:
        try:
            return getattr(self._stub, method)(request, timeout=timeout_s, metadata=self._metadata)
        except grpc.RpcError as error:
            raise self.failure(error, timeout_s) from error

    def _renew(self) -> None:
        """Calls that run on the old connection are left alone until there have been two newer ones."""
        with self._lock:
            if time.monotonic() - self._renewed < _RENEW_EVERY_S:
                return
            self._renewed = time.monotonic()
            self._channels.append(_open(self.connection))
            self._stub = GRPCInferenceServiceStub(self._channels[-1])
            outdated = self._channels[:-3]
            self._channels = self._channels[-3:]
        for channel in outdated:
            channel.close()


def _failure_of(error: Any, timeout_s: float) -> Exception:
    code, details = error.code(), error.details() or ""
    if "restricted" in details and "triton-grpc-protocol" in details:
        return _away("the model server (Triton) restricts what this service needs: set its access key")
    if code is grpc.StatusCode.UNAVAILABLE:
        return _away("the model server (Triton) cannot be reached: the work goes on once it is back")
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return DependencyUnavailable(
            f"the model server (Triton) did not answer within {timeout_s:.3g} s: try again later",
            reason=TIMEOUT,
            retry_after_s=5.0,
        )
    if code is grpc.StatusCode.NOT_FOUND:
        return ModelGone(details)
    return Refused(code, details)


def _away(message: str) -> DependencyUnavailable:
    return DependencyUnavailable(message, reason=UNREACHABLE, retry_after_s=1.0)


def _load_error(refused: Refused) -> Exception:
    details = refused.details.lower()
    if "out of memory" in details or "bad_alloc" in details or "failed to allocate memory" in details:
        return CapacityExceeded(
            "the model server (Triton) has no memory left for this model: give it more, or let fewer stay loaded",
            reason="MODEL_SERVER_MEMORY",
            retry_after_s=30.0,
        )
    if "poll from model repository" in details:
        return _away(
            "the model server (Triton) finds no model in its repository: check that it reads where this service "
            "writes, and can"
        )
    return InvalidInput(
        "the model server (Triton) cannot load the model: check that it was exported completely; the service's log "
        "has Triton's words",
        reason="MODEL_NOT_LOADABLE",
    )


def _open(connection: Connection) -> grpc.Channel:
    if connection.ca is None:
        return grpc.insecure_channel(connection.address, options=_CHANNEL_OPTIONS)
    credentials = grpc.ssl_channel_credentials(
        root_certificates=connection.ca.read_bytes(),
        private_key=None if connection.key is None else connection.key.read_bytes(),
        certificate_chain=None if connection.certificate is None else connection.certificate.read_bytes(),
    )
    return grpc.secure_channel(connection.address, credentials, options=_CHANNEL_OPTIONS)
