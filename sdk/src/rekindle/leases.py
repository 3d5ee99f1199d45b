"""A leased case: image and coarse label in, correction out."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from google.protobuf.json_format import MessageToDict, ParseDict, ParseError
from google.protobuf.timestamp_pb2 import Timestamp

from rekindle._call import content_request_id, new_request_id
from rekindle._services import Services
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import Organ, OrganStatusName, duration, enum_value
from rekindle.errors import InvalidInput, LeaseLost, NotFound, RekindleError
from rekindle.records import Case, Submission
from rekindle.slices import SliceRank, SliceStack, rank_slices, read_slices
from rekindle.timer import ActiveTimer, TimeSegment
from rekindle.volumes import Progress, Source, VolumeFile, download, file_bytes, upload

DAY_S = 86_400.0


class Lease:
    """A case that is yours until the lease expires.

    As a context manager it renews itself in the background, measures reading time from the start, and is
    released when the block ends without a submission. `token()` writes it down for another process.
    """

    def __init__(
        self, services: Services, lease: records.Lease, organs: tuple[Organ, ...], *, fresh: bool = True
    ) -> None:
        self._services = services
        self._lease = lease
        self._organs = organs
        # Held as long again with every renewal; the service's clock and this one need not agree.
        held_s = (_moment(lease.expire_time) - _moment(lease.start_time)).total_seconds()
        # One that was renewed before spans more than it was asked for; a day is enough between heartbeats.
        self._held_s = max(1.0, held_s if fresh else min(held_s, DAY_S))
        self._fresh = fresh
        self._renewed_at = time.monotonic()
        self._stop_heartbeat = threading.Event()
        self._heartbeat: threading.Thread | None = None
        self._ended = False
        #: Set by the heartbeat when the lease could not be renewed.
        self.lost: RekindleError | None = None
        self.timer = ActiveTimer()

    @property
    def id(self) -> str:
        return self._lease.lease_id

    @property
    def fencing_token(self) -> int:
        return self._lease.fencing_token

    @property
    def case(self) -> Case:
        return Case.from_proto(self._lease.case)

    @property
    def round(self) -> int:
        return self._lease.round

    @property
    def started(self) -> datetime:
        return _moment(self._lease.start_time)

    @property
    def expires(self) -> datetime:
        return _moment(self._lease.expire_time)

    def image(self, progress: Progress | None = None) -> VolumeFile:
        """Downloads the case's image."""
        return download(self._services, self._lease.project_id, self._lease.case.volume_id, progress)

    def coarse_label(self, progress: Progress | None = None) -> VolumeFile | None:
        """Downloads the model's label to correct; None when there is none and one draws from nothing."""
        volume_id = self._lease.case.coarse_label.mask_volume_id
        if not volume_id:
            return None
        return download(self._services, self._lease.project_id, volume_id, progress)

    def read_slices(self, first_slice: int = 0, slice_count: int = 0, *, level: int = 0) -> SliceStack:
        """Voxels of some of the image's slices; see `Project.read_slices`."""
        case = self._lease.case
        return read_slices(self._services, self._lease.project_id, case.volume_id, first_slice, slice_count, level)

    def ranked_slices(self, *, organ: str | None = None, limit: int = 0) -> list[SliceRank]:
        """The slices to look at first: where most of the coarse label is expected to be wrong.

        Empty where there is no coarse label, or nothing is known of its slices.
        """
        mask_volume_id = self._lease.case.coarse_label.mask_volume_id
        if not mask_volume_id:
            return []
        try:
            return rank_slices(self._services, self._lease.project_id, mask_volume_id, organ, limit)
        except NotFound as error:
            if error.reason != "NO_PREDICTION":
                raise
            return []

    def renew(self, minutes: float | None = None) -> None:
        """Makes the lease last longer, from now on. Raises LeaseLost when somebody else may have the case."""
        if minutes is not None:
            self._held_s = minutes * 60
        request = scheduler.RenewLeaseRequest(
            request_id=new_request_id(),
            project_id=self._lease.project_id,
            lease_id=self.id,
            fencing_token=self.fencing_token,
            duration=duration(self._held_s),
        )
        asked_at = time.monotonic()
        renewed = self._services.caller.unary(self._services.scheduler.RenewLease, request).lease
        # The coarse label that is being corrected stays the one that was shown, whatever is newer by now.
        renewed.case.CopyFrom(self._lease.case)
        self._lease = renewed
        self._renewed_at, self._fresh = asked_at, True

    def release(self, reason: str = "") -> None:
        """Gives the case back unlabelled. The time measured so far goes to the ledger all the same."""
        self.timer.stop()
        request = scheduler.ReleaseLeaseRequest(
            request_id=new_request_id(),
            project_id=self._lease.project_id,
            lease_id=self.id,
            fencing_token=self.fencing_token,
            reason=reason,
            time_segments=[segment.to_proto() for segment in self.timer.segments()],
        )
        with self._ending():
            self._lease = self._services.caller.unary(self._services.scheduler.ReleaseLease, request).lease

    def submit(
        self,
        mask: Source,
        statuses: Mapping[str, OrganStatusName] | None = None,
        *,
        time_segments: list[TimeSegment] | None = None,
        progress: Progress | None = None,
    ) -> Submission:
        """Sends the corrected mask on the image's grid, values as in the project's organs.

        `statuses` says per organ id what was done; organs left out count as "edited". `time_segments`
        replaces what the timer measured. Submitting the same again, after a failure of the network or in
        another process, is one submission. Raises LeaseLost when the lease is gone: the label is then kept as
        a draft, named by the error's metadata. Raises InvalidInput for a mask of another geometry or with
        other values.
        """
        unknown = set(statuses or ()) - {organ.id for organ in self._organs}
        if unknown:
            raise InvalidInput(
                f"unknown organs {sorted(unknown)}; the project has {[organ.id for organ in self._organs]}"
            )
        organ_states = [self._organ_state(organ, statuses or {}) for organ in self._organs]
        receipt = self._upload_mask(file_bytes(mask), progress)
        self.timer.stop()
        segments = self.timer.segments() if time_segments is None else time_segments
        request = scheduler.SubmitRequest(
            project_id=self._lease.project_id,
            lease_id=self.id,
            fencing_token=self.fencing_token,
            receipt_id=receipt.receipt_id,
            organ_states=organ_states,
            time_segments=[segment.to_proto() for segment in segments],
        )
        request.request_id = content_request_id(request)
        with self._ending():
            answer = self._services.caller.unary(self._services.scheduler.Submit, request)
        return Submission.from_proto(answer.submission)

    def token(self) -> str:
        """The lease as a text that can be written down and taken up again with `Project.resume_lease`."""
        lease = MessageToDict(self._lease, preserving_proto_field_name=True)
        segments = [segment.to_dict() for segment in self.timer.segments()]
        return json.dumps({"lease": lease, "held_s": self._held_s, "segments": segments}, indent=2)

    def restore(self, token: str) -> None:
        """Takes over the time that a written-down token of the same lease holds."""
        written = read_token(token)
        self._held_s = written.held_s
        self._lease.case.CopyFrom(written.lease.case)
        self.timer.restore(written.segments)

    def __enter__(self) -> Self:
        self.timer.start("reading")
        self._heartbeat = threading.Thread(target=self._keep_alive, name="rekindle-lease", daemon=True)
        self._heartbeat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended:
            return
        lost = self.lost
        if lost is not None:
            self._end()
            if error is None:
                raise lost
            return
        try:
            self.release("ended without a submission")
        except RekindleError:
            if error is None:
                raise
        finally:
            self._end()

    def _keep_alive(self) -> None:
        # A third of its length, so that two failures in a row still leave time.
        pause_s = self._held_s / 3 if self._fresh else 0.0
        while not self._stop_heartbeat.wait(pause_s):
            try:
                self.renew()
                pause_s = self._held_s / 3
            except RekindleError as failure:
                if self._stop_heartbeat.is_set():
                    return  # it ended by a submission or a release meanwhile
                run_out = time.monotonic() - self._renewed_at >= self._held_s
                if isinstance(failure, LeaseLost) or run_out:
                    self.lost = _as_lost(failure)
                    return
                pause_s = self._held_s / 6

    @contextmanager
    def _ending(self) -> Generator[None]:
        """Around the call that ends the lease, whether by success or because it is gone already."""
        try:
            yield
        except LeaseLost:
            self._end()
            raise
        self._end()

    def _end(self) -> None:
        self._ended = True
        self._stop_heartbeat.set()

    def _organ_state(self, organ: Organ, statuses: Mapping[str, OrganStatusName]) -> common.OrganState:
        status = enum_value(common.OrganStatus, "ORGAN_STATUS", statuses.get(organ.id, "edited"))
        return common.OrganState(organ_id=organ.id, status=status)  # type: ignore[arg-type]

    def _upload_mask(self, data: bytes, progress: Progress | None) -> volumes.Receipt:
        case = self._lease.case
        header = volumes.UploadVolumeHeader(
            project_id=self._lease.project_id,
            kind=common.VOLUME_KIND_MASK,
            format=common.FILE_FORMAT_NIFTI,
            image_volume_id=case.volume_id,
            coarse_mask_volume_id=case.coarse_label.mask_volume_id,
            organs=[organ.to_proto() for organ in self._organs],
        )
        return upload(self._services, header, data, progress, occasion=self.id).receipt


@dataclass(frozen=True, kw_only=True)
class WrittenLease:
    """What a token holds."""

    lease: records.Lease
    held_s: float
    segments: list[TimeSegment]


def read_token(token: str) -> WrittenLease:
    """Reads what `Lease.token` wrote. Raises InvalidInput for any other text."""
    try:
        written = json.loads(token)
        return WrittenLease(
            lease=ParseDict(written["lease"], records.Lease(), ignore_unknown_fields=True),
            held_s=float(written["held_s"]),
            segments=[TimeSegment.from_dict(item) for item in written["segments"]],
        )
    except (ValueError, KeyError, TypeError, ParseError) as failure:
        raise InvalidInput("this is no written-down lease: give the text that Lease.token wrote") from failure


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


def _as_lost(failure: RekindleError) -> LeaseLost:
    if isinstance(failure, LeaseLost):
        return failure
    return LeaseLost(f"the lease could not be renewed before it ran out: {failure.message}")
