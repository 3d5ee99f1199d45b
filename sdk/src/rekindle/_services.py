"""The stubs of the three services, bound to the caller that all handles share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import grpc

from rekindle._call import Caller
from rekindle.api.common.v1.admin_pb2_grpc import AdminServiceStub
from rekindle.api.common.v1.info_pb2_grpc import InfoServiceStub
from rekindle.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from rekindle.api.inference.v1.segmentations_pb2_grpc import SegmentationServiceStub
from rekindle.api.inference.v1.volumes_pb2_grpc import VolumeServiceStub
from rekindle.api.scheduler.v1.scheduler_pb2_grpc import SchedulerServiceStub
from rekindle.api.trainer.v1.trainer_pb2_grpc import TrainerServiceStub


class Services:
    """One channel per service; opened at once, connected at the first call."""

    def __init__(
        self, addresses: Mapping[str, str], caller: Caller, open_channel: Callable[[str], grpc.Channel]
    ) -> None:
        """`addresses` maps "scheduler", "inference" and "trainer" to what `open_channel` takes."""
        self.addresses = dict(addresses)
        self.caller = caller
        caller.addresses.update(self.addresses)
        self.channels = {name: open_channel(address) for name, address in self.addresses.items()}
        bound = {name: _bind(channel, caller) for name, channel in self.channels.items()}
        self.scheduler = SchedulerServiceStub(bound["scheduler"])
        self.volumes = VolumeServiceStub(bound["inference"])
        self.inference = InferenceServiceStub(bound["inference"])
        self.segmentations = SegmentationServiceStub(bound["inference"])
        self.trainer = TrainerServiceStub(bound["trainer"])
        #: Stubs of what every service answers, by service.
        self.admin = {name: AdminServiceStub(channel) for name, channel in bound.items()}
        self.info = {name: InfoServiceStub(channel) for name, channel in bound.items()}

    def close(self) -> None:
        """Closes the channels."""
        for channel in self.channels.values():
            channel.close()


def _bind(channel: grpc.Channel, caller: Caller) -> grpc.Channel:
    """The channel for stubs whose methods `caller` calls: with its deadline, its retries and our errors."""
    return cast("grpc.Channel", _BoundChannel(channel, caller))


class _BoundChannel:
    """What generated stubs need of a channel.

    A call with one request and one answer is retried. A call that answers many is not, and raises our errors.
    A stream of requests with one answer goes out once: its sender repeats it with a fresh iterator.
    """

    def __init__(self, channel: grpc.Channel, caller: Caller) -> None:
        self._channel, self._caller = channel, caller

    def unary_unary(self, method: str, **options: Any) -> Callable[..., Any]:
        call = self._channel.unary_unary(method, **options)
        return lambda request, timeout=None: self._caller.unary(call, request, timeout_s=timeout)

    def unary_stream(self, method: str, **options: Any) -> Callable[..., Iterator[Any]]:
        call = self._channel.unary_stream(method, **options)
        return lambda request, timeout=None: self._caller.stream(call, request, timeout_s=timeout)

    def stream_stream(self, method: str, **options: Any) -> Callable[..., Iterator[Any]]:
        call = self._channel.stream_stream(method, **options)
        return lambda requests, timeout=None: self._caller.stream(call, requests, timeout_s=timeout)

    def stream_unary(self, method: str, **options: Any) -> Callable[..., Any]:
        return self._channel.stream_unary(method, **options)
