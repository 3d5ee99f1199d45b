"""A leased case: image and coarse label in, correction out."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from rekindle._call import new_request_id
from rekindle._services import Services
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import Organ, OrganStatusName, duration, enum_value
from rekindle.errors import InvalidInput, RekindleError
from rekindle.records import Case, Submission
from rekindle.timer import ActiveTimer, TimeSegment
from rekindle.volumes import Progress, Source, VolumeFile, collect_download, file_bytes, upload_parts


class Lease:
    """A case that is yours until the lease expires.

    As a context manager it renews itself in the background, measures reading time from the start, and is
    released when the block ends without a submission. `token()` writes it down for another process.
    """

    def __init__(self, services: Services, lease: records.Lease, organs: tuple[Organ, ...]) -> None:
        self._services = services
        self._lease = lease
        self._organs = organs
        self._stop_heartbeat = threading.Event()
        self._heartbeat: threading.Thread | None = None
        self._ended = False
        # Kept, so that a submission that is tried again is the same one.
        self._submit_request_id = new_request_id()
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
    def expires(self) -> datetime:
        return self._lease.expire_time.ToDatetime(tzinfo=UTC)

    def image(self, progress: Progress | None = None) -> VolumeFile:
        """Downloads the case's image."""
        return self._download(self._lease.case.volume_id, progress)

    def coarse_label(self, progress: Progress | None = None) -> VolumeFile | None:
        """Downloads the model's label to correct; None when there is none and the case is drawn from nothing."""
        volume_id = self._lease.case.coarse_label.mask_volume_id
        return self._download(volume_id, progress) if volume_id else None

    def renew(self, minutes: float | None = None) -> None:
        """Makes the lease last longer. Raises LeaseLost when somebody else may have the case."""
        request = scheduler.RenewLeaseRequest(
            request_id=new_request_id(),
            project_id=self._lease.project_id,
            lease_id=self.id,
            fencing_token=self.fencing_token,
        )
        if minutes is not None:
            request.duration.CopyFrom(duration(minutes * 60))
        self._lease = self._services.caller.unary(self._services.scheduler.RenewLease, request).lease

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
        self._lease = self._services.caller.unary(self._services.scheduler.ReleaseLease, request).lease
        self._end()

    def submit(
        self,
        mask: Source,
        statuses: Mapping[str, OrganStatusName] | None = None,
        *,
        time_segments: list[TimeSegment] | None = None,
        progress: Progress | None = None,
    ) -> Submission:
        """Sends the corrected mask on the image's grid, values as in the project's organs.

        `statuses` says per organ id what was done; organs left out count as "edited". `time_segments` replaces
        what the timer measured. Raises LeaseLost when the lease is gone: the label is then kept as a draft,
        named by the error's metadata. Raises InvalidInput for a mask of another geometry or with other values.
        """
        unknown = set(statuses or ()) - {organ.id for organ in self._organs}
        if unknown:
            raise InvalidInput(
                f"unknown organs {sorted(unknown)}; the project has {[organ.id for organ in self._organs]}"
            )
        receipt = self._upload_mask(file_bytes(mask), progress)
        self.timer.stop()
        segments = self.timer.segments() if time_segments is None else time_segments
        request = scheduler.SubmitRequest(
            request_id=self._submit_request_id,
            project_id=self._lease.project_id,
            lease_id=self.id,
            fencing_token=self.fencing_token,
            receipt_id=receipt.receipt_id,
            organ_states=[self._organ_state(organ, statuses or {}) for organ in self._organs],
            time_segments=[segment.to_proto() for segment in segments],
        )
        try:
            answer = self._services.caller.unary(self._services.scheduler.Submit, request)
        except InvalidInput:
            self._submit_request_id = new_request_id()  # the corrected attempt is another submission
            raise
        self._end()
        return Submission.from_proto(answer.submission)

    def token(self) -> str:
        """The lease as a text that can be written down and taken up again with `Project.resume_lease`."""
        return json.dumps(
            {
                "lease_id": self.id,
                "case_id": self._lease.case.case_id,
                "project_id": self._lease.project_id,
                "submit_request_id": self._submit_request_id,
                "segments": [
                    {
                        "kind": segment.kind,
                        "active_seconds": segment.active_seconds,
                        "start_time": segment.start_time.isoformat(),
                        "tool": segment.tool,
                    }
                    for segment in self.timer.segments()
                ],
            }
        )

    def restore(self, token: str) -> None:
        """Takes over time and submission key from a written-down token of the same lease."""
        written = json.loads(token)
        self._submit_request_id = written["submit_request_id"]
        self.timer.restore(
            [
                TimeSegment(
                    kind=item["kind"],
                    active_seconds=item["active_seconds"],
                    start_time=datetime.fromisoformat(item["start_time"]),
                    tool=item["tool"],
                )
                for item in written["segments"]
            ]
        )

    def __enter__(self) -> Self:
        self.timer.start("reading")
        self._heartbeat = threading.Thread(target=self._keep_alive, name="rekindle-lease", daemon=True)
        self._heartbeat.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._ended or self.lost is not None:
            self._end()
            return
        try:
            self.release("ended without a submission")
        except RekindleError:
            if error is None:
                raise
        finally:
            self._end()

    def _keep_alive(self) -> None:
        while True:
            held_s = (self.expires - self._lease.start_time.ToDatetime(tzinfo=UTC)).total_seconds()
            remaining_s = (self.expires - datetime.now(UTC)).total_seconds()
            # Renewed at a third of its length, so that two failures in a row still leave time.
            if self._stop_heartbeat.wait(max(0.5, min(held_s / 3, remaining_s / 2))):
                return
            try:
                self.renew()
            except RekindleError as failure:
                if (self.expires - datetime.now(UTC)).total_seconds() <= 0 or failure.reason == "LEASE_LOST":
                    self.lost = failure
                    return

    def _end(self) -> None:
        self._ended = True
        self._stop_heartbeat.set()

    def _organ_state(self, organ: Organ, statuses: Mapping[str, OrganStatusName]) -> common.OrganState:
        status = enum_value(common.OrganStatus, "ORGAN_STATUS", statuses.get(organ.id, "edited"))
        return common.OrganState(organ_id=organ.id, status=status)  # type: ignore[arg-type]

    def _upload_mask(self, data: bytes, progress: Progress | None) -> volumes.Receipt:
        case = self._lease.case
        header = volumes.UploadVolumeHeader(
            request_id=new_request_id(),
            project_id=self._lease.project_id,
            kind=common.VOLUME_KIND_MASK,
            format=common.FILE_FORMAT_NIFTI,
            image_volume_id=case.volume_id,
            coarse_mask_volume_id=case.coarse_label.mask_volume_id,
            organs=[organ.to_proto() for organ in self._organs],
        )
        services = self._services
        answer = services.caller.repeat(
            lambda: services.volumes.UploadVolume(
                upload_parts(header, data, progress), timeout=services.caller.timeout_s
            )
        )
        return answer.receipt

    def _download(self, volume_id: str, progress: Progress | None) -> VolumeFile:
        request = volumes.DownloadVolumeRequest(project_id=self._lease.project_id, volume_id=volume_id)
        stream = self._services.caller.stream(self._services.volumes.DownloadVolume, request)
        return collect_download(stream, progress)
