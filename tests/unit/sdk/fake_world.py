"""What the fake services know, how they record calls, and how a test makes them fail."""

from __future__ import annotations

import functools
import hashlib
import inspect
import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import grpc
from click.testing import Result
from google.protobuf.timestamp_pb2 import Timestamp
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.client import Client
from rekindle.errors import LeaseLost, NotFound, RekindleError
from rekindle.status import DETAILS_KEY, status_code, status_details, status_message

#: `rekindle` with arguments, run in this process.
Command: TypeAlias = Callable[..., Result]
#: Makes a client that sends files in the given way.
Connect: TypeAlias = Callable[..., Client]


def stamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


class World:
    """State shared by the fakes; everything a test asks about is a public attribute."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        #: (method, request or first message), in the order of arrival.
        self.calls: list[tuple[str, Any]] = []
        #: Method to the errors or status codes that its next calls answer.
        self.failures: dict[str, list[Any]] = defaultdict(list)
        self.lease_s = 3600.0
        self.projects: dict[str, records.Project] = {}
        self.seeds: list[records.SeedCase] = []
        self.cases: dict[str, records.Case] = {}
        self.leases: dict[str, records.Lease] = {}
        self.submissions: list[records.Submission] = []
        self.rounds: list[records.Round] = []
        self.events: list[records.RoundEvent] = []
        self.released: list[Any] = []
        self.volumes: dict[str, tuple[volumes.Volume, bytes]] = {}
        self.uploads: dict[str, volumes.UploadVolumeResponse] = {}
        self.pieces: dict[str, tuple[volumes.UploadVolumeHeader, bytearray]] = {}
        self.receipts: dict[str, volumes.Receipt] = {}
        self.slice_ranks: dict[str, list[volumes.SliceRank]] = {}
        self.models: dict[str, inference.Model] = {}
        #: The last model file that arrived.
        self.onnx = b""
        self.runs: dict[str, trainer.Run] = {}
        self.metrics: list[trainer.Metric] = []

    def requests(self, method: str) -> list[Any]:
        with self.lock:
            return [request for name, request in self.calls if name == method]

    def project(self, project_id: str) -> records.Project:
        if project_id not in self.projects:
            raise NotFound(f"there is no project {project_id!r}")
        return self.projects[project_id]

    def add_volume(self, volume: volumes.Volume, data: bytes) -> volumes.Volume:
        volume.volume_id = f"volume-{len(self.volumes) + 1}"
        volume.original_digest = hashlib.sha256(data).hexdigest()
        self.volumes[volume.volume_id] = (volume, data)
        return volume

    def give_coarse_label(self, case_id: str, data: bytes, minutes: float = 6.5) -> None:
        """Makes a registered case ready, with `data` as the draft's file."""
        case = self.cases[case_id]
        mask = self.add_volume(volumes.Volume(kind=common.VOLUME_KIND_MASK), data)
        case.coarse_label.mask_volume_id = mask.volume_id
        case.coarse_label.model_version_id = "model-1"
        case.coarse_label.predicted_minutes = minutes
        case.state = records.CASE_STATE_READY

    def new_lease(self, case: records.Case) -> records.Lease:
        now = datetime.now(UTC)
        case.state = records.CASE_STATE_LEASED
        lease = records.Lease(
            lease_id=f"lease-{len(self.leases) + 1}",
            project_id=case.project_id,
            case=case,
            fencing_token=len(self.leases) + 1,
            start_time=stamp(now),
            expire_time=stamp(now + timedelta(seconds=self.lease_s)),
            state=records.LEASE_STATE_LIVE,
            round=1,
        )
        self.leases[lease.lease_id] = lease
        return lease

    def live_lease(self, lease_id: str, fencing_token: int) -> records.Lease:
        lease = self.leases[lease_id]
        if lease.state != records.LEASE_STATE_LIVE or lease.fencing_token != fencing_token:
            raise LeaseLost("the lease has ended: lease the case again")
        return lease


def served(servicer: type[Any]) -> type[Any]:
    """Class decorator: records every call, answers planned failures, and turns errors into statuses."""
    for name, method in list(vars(servicer).items()):
        if name[0].isupper() and callable(method):
            setattr(servicer, name, _served(name, method))
    return servicer


def _served(name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def begin(servicer: Any, request: Any, context: grpc.ServicerContext) -> Any:
        world: World = servicer.world
        if not hasattr(request, "DESCRIPTOR"):
            first = next(request)
            recorded, request = first, _again(first, request)
        else:
            recorded = request
        with world.lock:
            world.calls.append((name, recorded))
            failure = world.failures[name].pop(0) if world.failures[name] else None
        if isinstance(failure, RekindleError):
            abort(context, failure)
        elif failure is not None:
            context.abort(failure, "planned")
        return request

    @functools.wraps(method)
    def unary(servicer: Any, request: Any, context: grpc.ServicerContext) -> Any:
        request = begin(servicer, request, context)
        try:
            with servicer.world.lock:
                return method(servicer, request, context)
        except RekindleError as error:
            abort(context, error)

    @functools.wraps(method)
    def stream(servicer: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        request = begin(servicer, request, context)
        try:
            yield from method(servicer, request, context)
        except RekindleError as error:
            abort(context, error)

    return stream if inspect.isgeneratorfunction(method) else unary


def _again(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def abort(context: grpc.ServicerContext, error: RekindleError) -> None:
    context.set_trailing_metadata(((DETAILS_KEY, status_details(error)),))
    context.abort(status_code(error), status_message(error))
