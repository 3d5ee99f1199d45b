"""One batch on its way: the request, through shared memory or the socket, and its logits."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray
from rekindle.errors import DependencyUnavailable
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.adapters.triton.client import ModelGone, Refused, TritonClient, messages
from rekindle_inference.adapters.triton.memory import Region, SharedMemory, describe, float_bytes

_log = logging.getLogger(__name__)
#: How soon a caller that has gone is noticed.
_POLL_S = 0.05


@dataclass(slots=True, kw_only=True)
class Pending:
    """A batch that Triton was given."""

    future: Any
    #: (N, K, H, W) of the logits.
    shape: tuple[int, int, int, int]
    region: Region | None
    #: Bytes from the region's beginning to the logits.
    offset: int
    timeout_s: float
    began: float


class Batches:
    """Sends batches and takes their answers."""

    def __init__(self, client: TritonClient, memory: SharedMemory | None) -> None:
        self._client = client
        self._memory = memory

    @property
    def shares_memory(self) -> bool:
        return self._memory is not None

    def send(self, name: str, images: NDArray[np.float32], n_classes: int, cancellation: Cancellation) -> Pending:
        """`images` (N, C, H, W) to the model `name`; returns at once. DependencyUnavailable."""
        count, _, rows, columns = images.shape
        shape = (count, n_classes, rows, columns)
        request = messages.ModelInferRequest(model_name=name)
        image = request.inputs.add(name="image", datatype="FP32", shape=images.shape)
        logits = request.outputs.add(name="logits")
        region = self._region(float_bytes(images.shape) + float_bytes(shape))
        offset = float_bytes(images.shape)
        if region is None:
            request.raw_input_contents.append(np.ascontiguousarray(images).tobytes())
        else:
            region.view(0, images.shape)[...] = images
            describe(image, region, 0, offset)
            describe(logits, region, offset, float_bytes(shape))
        timeout_s = self._client.connection.infer_timeout_s
        left = cancellation.time_remaining_s()
        timeout_s = timeout_s if left is None else min(timeout_s, max(left, 0.001))
        future = self._client.infer(request, timeout_s)
        return Pending(
            future=future, shape=shape, region=region, offset=offset, timeout_s=timeout_s, began=time.monotonic()
        )

    def receive(self, pending: Pending, cancellation: Cancellation) -> NDArray[np.float32]:
        """The logits; ModelGone, Refused, DependencyUnavailable, Cancelled, DeadlineExceeded."""
        try:
            response = self._wait(pending, cancellation)
            logits = _logits(response, pending)
        except BaseException:
            self.drop(pending)
            raise
        if pending.region is not None and self._memory is not None:
            self._memory.give_back(pending.region)
            pending.region = None
        return logits

    def drop(self, pending: Pending) -> None:
        """Nobody wants the answer. Its region is not used again: Triton may still write to it."""
        pending.future.cancel()
        region, pending.region = pending.region, None
        if region is not None and self._memory is not None:
            self._memory.discard(region)

    def renew(self) -> None:
        """Triton may have started anew and know no region: let new ones be made."""
        if self._memory is not None:
            self._memory.clear()

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()

    def _wait(self, pending: Pending, cancellation: Cancellation) -> Any:
        while True:
            try:
                return pending.future.result(timeout=_POLL_S)
            except grpc.FutureTimeoutError:
                cancellation.raise_if_set()
            except (grpc.RpcError, grpc.FutureCancelledError) as error:
                cancellation.raise_if_set()
                raise self._client.failure(error, pending.timeout_s) from error

    def _region(self, size: int) -> Region | None:
        """None where memory cannot be shared, which is then not tried again."""
        memory = self._memory
        if memory is None:
            return None
        try:
            return memory.take(size)
        except DependencyUnavailable:
            raise
        except (OSError, Refused, ModelGone) as error:
            self._memory = None
            memory.close()
            _log.warning(
                "no shared memory with the model server (%s): batches travel through the socket", type(error).__name__,
                extra={"action": "engine.memory"},
            )  # fmt: skip
            return None


def _logits(response: Any, pending: Pending) -> NDArray[np.float32]:
    output = response.outputs[0] if len(response.outputs) == 1 else None
    told = None if output is None else (output.name, output.datatype, tuple(output.shape))
    if told != ("logits", "FP32", pending.shape):
        raise Refused(grpc.StatusCode.INTERNAL, f"the model answers {told} instead of logits {pending.shape}")
    if pending.region is not None:
        return pending.region.view(pending.offset, pending.shape).copy()
    return np.frombuffer(response.raw_output_contents[0], np.float32).reshape(pending.shape)
