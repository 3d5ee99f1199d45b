"""The files of a leased case: its image, the label to correct, slices of both; fetched ahead or when asked for."""

from __future__ import annotations

from concurrent.futures import CancelledError, Executor, Future

from rekindle._call import Progress
from rekindle._services import Services
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.errors import NotFound, RekindleError
from rekindle.formats import FormatName
from rekindle.records import Case
from rekindle.slices import SliceRank, SliceStack, rank_slices, read_slices
from rekindle.volumes import VolumeFile, download


class LeaseFiles:
    """The part of a lease's handle that brings files."""

    def __init__(self, services: Services, lease: records.Lease) -> None:
        self._services = services
        self._lease = lease
        self._ahead: dict[str, Future[VolumeFile]] = {}

    @property
    def case(self) -> Case:
        return Case.from_proto(self._lease.case)

    def image(self, progress: Progress | None = None, *, format: FormatName = "nifti") -> VolumeFile:
        """The case's image: fetched ahead, or downloaded now."""
        return self._fetch(self._lease.case.volume_id, progress, format)

    def coarse_label(self, progress: Progress | None = None, *, format: FormatName = "nifti") -> VolumeFile | None:
        """The model's label to correct; None if the case has none and is drawn from nothing."""
        volume_id = self._lease.case.coarse_label.mask_volume_id
        return self._fetch(volume_id, progress, format) if volume_id else None

    def standing_label(self, progress: Progress | None = None, *, format: FormatName = "nifti") -> VolumeFile | None:
        """The label that counts, where this lease is to correct it; the correction is measured against it."""
        volume_id = self._standing_mask()
        return self._fetch(volume_id, progress, format) if volume_id else None

    def prefetch(self, pool: Executor) -> None:
        """Fetches image and coarse label in the background; `image` and `coarse_label` then wait for that."""
        for volume_id in (self._lease.case.volume_id, self._lease.case.coarse_label.mask_volume_id):
            if volume_id and volume_id not in self._ahead:
                self._ahead[volume_id] = pool.submit(download, self._services, self._lease.project_id, volume_id)

    def forget_prefetched(self) -> None:
        """Drops the files that were fetched ahead."""
        self._ahead.clear()

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

    def _fetch(self, volume_id: str, progress: Progress | None, format: FormatName) -> VolumeFile:
        ahead = self._ahead.get(volume_id) if format == "nifti" else None
        if ahead is not None:
            try:
                return ahead.result()
            except (RekindleError, CancelledError):
                self._ahead.pop(volume_id, None)  # what failed ahead is tried once more, in the open
        return download(self._services, self._lease.project_id, volume_id, progress, format=format)

    def _standing_mask(self) -> str:
        """The mask of the label that is to be corrected; empty for a lease of an open case."""
        case = self._lease.case
        if not self._lease.revises or not case.submission_id:
            return ""
        request = scheduler.ListSubmissionsRequest(project_id=self._lease.project_id, case_id=case.case_id)
        page = self._services.scheduler.ListSubmissions(request)
        masks = {item.submission_id: item.mask_volume_id for item in page.submissions}
        return masks.get(case.submission_id, "")
