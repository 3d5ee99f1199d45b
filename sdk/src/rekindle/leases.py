"""A leased case: image and coarse label in, correction out."""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from google.protobuf.timestamp_pb2 import Timestamp

from rekindle._call import Progress, content_request_id, new_request_id
from rekindle._deprecated import warn_of_old_name
from rekindle._lease_files import LeaseFiles
from rekindle._services import Services
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.scheduler.v1 import annotation_pb2 as annotation
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import Organ, OrganStatusName
from rekindle.convert import duration, number_of, to_proto
from rekindle.drafts import Draft
from rekindle.errors import InvalidInput, LeaseLost, NotFound, RekindleError
from rekindle.records import Submission
from rekindle.tickets import Ticket, read_ticket, write_ticket
from rekindle.timer import ActiveTimer, TimeSegment
from rekindle.volumes import Payload, Source, payload, upload

DAY_S = 86_400.0


class Lease(LeaseFiles):
    """A case that is yours until the lease expires.

    As a context manager it renews itself in the background, measures reading time from the start, and is released
    when the block ends without a submission. `ticket()` writes it down for another process.
    """

    def __init__(
        self, services: Services, lease: records.Lease, organs: tuple[Organ, ...], *, fresh: bool = True
    ) -> None:
        super().__init__(services, lease)
        self._organs = organs
        self._held_s = _span_s(lease, fresh)
        self._fresh = fresh
        self._renewed_at = time.monotonic()
        self._stop_heartbeat = threading.Event()
        self._heartbeat: threading.Thread | None = None
        self._ended = False
        #: Reason why the heartbeat could not renew the lease; None while it can.
        self.lost: RekindleError | None = None
        self.timer = ActiveTimer()

    @property
    def id(self) -> str:
        return self._lease.lease_id

    @property
    def fencing_token(self) -> int:
        return self._lease.fencing_token

    @property
    def round(self) -> int:
        return self._lease.round

    @property
    def tool(self) -> str:
        """The tool that holds it, as it named itself."""
        return self._lease.tool

    @property
    def session_id(self) -> str:
        """Id of the session that it belongs to; empty for a lease without a session."""
        return self._lease.session_id

    @property
    def revises(self) -> bool:
        """Whether the lease corrects the label of a labelled case; that label counts until the correction does."""
        return self._lease.revises

    @property
    def started(self) -> datetime:
        return _moment(self._lease.start_time)

    @property
    def expires(self) -> datetime:
        return _moment(self._lease.expire_time)

    def renew(self, minutes: float | None = None) -> None:
        """Makes the lease last longer, counted from now. Raises LeaseLost when another annotator may have the case."""
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
        renewed = self._services.scheduler.RenewLease(request).lease
        self._go_on(renewed)
        self._renewed_at, self._fresh = asked_at, True

    def release(self, reason: str = "") -> None:
        """Releases the case without a label. The time measured so far still goes to the ledger."""
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
            self._lease = self._services.scheduler.ReleaseLease(request).lease

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
        self._check_organs(statuses or {})
        organ_states = [self._organ_state(organ, statuses or {}) for organ in self._organs]
        receipt = self._upload_mask(payload(mask, is_mask=True), progress)
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
            answer = self._services.scheduler.Submit(request)
        return Submission.from_proto(answer.submission)

    def save_draft(
        self,
        mask: Source,
        statuses: Mapping[str, OrganStatusName] | None = None,
        *,
        note: str = "",
        extend: bool = False,
        time_segments: list[TimeSegment] | None = None,
        progress: Progress | None = None,
    ) -> Draft:
        """Keeps unfinished work at the service and books the time so far. Each save replaces the one before.

        `statuses` may leave organs out. `extend` renews the lease too. Raises LeaseLost when the lease is gone; the
        draft is kept all the same, and the metadata of the error has its draft_id.
        """
        self._check_organs(statuses or {})
        receipt = self._upload_mask(payload(mask, is_mask=True), progress)
        segments = self.timer.cut() if time_segments is None else time_segments
        request = annotation.SaveDraftRequest(
            request_id=new_request_id(),
            project_id=self._lease.project_id,
            lease_id=self.id,
            fencing_token=self.fencing_token,
            receipt_id=receipt.receipt_id,
            organ_states=[self._organ_state(organ, statuses) for organ in self._organs if organ.id in statuses]
            if statuses
            else [],
            time_segments=[segment.to_proto() for segment in segments],
            note=note,
            extend_lease=extend,
        )
        answer = self._services.scheduler.SaveDraft(request)
        self._go_on(answer.lease)
        return Draft.from_proto(answer.draft, self._services)

    def draft(self) -> Draft | None:
        """Your newest draft of this case, or None."""
        request = annotation.GetDraftRequest(project_id=self._lease.project_id, case_id=self._lease.case.case_id)
        try:
            answer = self._services.scheduler.GetDraft(request)
        except NotFound as error:
            if error.reason != "DRAFT_NOT_FOUND":
                raise
            return None
        return Draft.from_proto(answer.draft, self._services)

    def resume(self, tool: str = "") -> Draft | None:
        """Makes this process the holder of the lease; the tool that held it before can no longer write.

        The timer resumes from the booked time. Returns the newest draft. Raises LeaseLost when the lease has ended
        or another annotator has taken the case.
        """
        request = annotation.TakeUpLeaseRequest(
            request_id=new_request_id(), project_id=self._lease.project_id, lease_id=self.id, tool=tool
        )
        answer = self._services.scheduler.TakeUpLease(request)
        self._go_on(answer.lease)
        self._held_s, self._renewed_at = _span_s(answer.lease, False), time.monotonic()
        self.timer.restore([TimeSegment.from_proto(item) for item in answer.time_segments])
        return Draft.from_proto(answer.draft, self._services) if answer.HasField("draft") else None

    def ticket(self) -> str:
        """The lease and its time as a text, for `Client.resume` in another tool or after a restart."""
        return write_ticket(self._lease, self._held_s, self.timer.segments())

    def restore_time(self, ticket: Ticket) -> None:
        """Takes over the time, and the case as it was shown, of a ticket of this lease."""
        self._held_s = ticket.held_s
        self._lease.case.CopyFrom(ticket.lease.case)
        self.timer.restore(ticket.segments)

    def take_up(self, tool: str = "") -> Draft | None:
        """Deprecated name of `resume`."""
        warn_of_old_name("Lease.take_up", "Lease.resume")
        return self.resume(tool)

    def token(self) -> str:
        """Deprecated name of `ticket`."""
        warn_of_old_name("Lease.token", "Lease.ticket")
        return self.ticket()

    def restore(self, token: str) -> None:
        """Deprecated: `Project.resume` and `Client.resume` restore a ticket's time."""
        warn_of_old_name("Lease.restore", "Project.resume")
        self.restore_time(read_ticket(token))

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
        # The pause is a third of the length, so that two failures in a row still leave time.
        pause_s = self._held_s / 3 if self._fresh else 0.0
        while not self._stop_heartbeat.wait(pause_s):
            try:
                self.renew()
                pause_s = self._held_s / 3
            except RekindleError as failure:
                if self._stop_heartbeat.is_set():
                    return  # a submission or a release has ended it meanwhile
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

    def _go_on(self, lease: records.Lease) -> None:
        """The lease as the service has it now."""
        # The lease keeps the coarse label that was shown, also when the service has a newer one.
        if self._lease.case.case_id:
            lease.case.CopyFrom(self._lease.case)
        self._lease = lease

    def _check_organs(self, statuses: Mapping[str, OrganStatusName]) -> None:
        known = [organ.id for organ in self._organs]
        unknown = set(statuses) - set(known)
        if unknown:
            raise InvalidInput(f"unknown organs {sorted(unknown)}; the project has {known}")

    def _organ_state(self, organ: Organ, statuses: Mapping[str, OrganStatusName]) -> common.OrganState:
        status = number_of(common.OrganStatus, statuses.get(organ.id, "edited"))
        return common.OrganState(organ_id=organ.id, status=status)  # type: ignore[arg-type]

    def _upload_mask(self, mask: Payload, progress: Progress | None) -> volumes.Receipt:
        case = self._lease.case
        header = volumes.UploadVolumeHeader(
            project_id=self._lease.project_id,
            kind=common.VOLUME_KIND_MASK,
            format=mask.format_value,
            image_volume_id=case.volume_id,
            coarse_mask_volume_id=self._standing_mask() or case.coarse_label.mask_volume_id,
            organs=[to_proto(organ, common.Organ) for organ in self._organs],
        )
        return upload(self._services, header, mask.data, progress, occasion=self.id).receipt


def _span_s(lease: records.Lease, fresh: bool) -> float:
    """Seconds that each renewal asks for; the service's clock and this one need not agree."""
    held_s = (_moment(lease.expire_time) - _moment(lease.start_time)).total_seconds()
    # A renewed lease spans more than was asked for; a day is enough between heartbeats.
    return max(1.0, held_s if fresh else min(held_s, DAY_S))


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)


def _as_lost(failure: RekindleError) -> LeaseLost:
    if isinstance(failure, LeaseLost):
        return failure
    return LeaseLost(f"the lease could not be renewed before it ran out: {failure.message}")
