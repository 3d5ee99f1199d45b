"""The service's own database."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rekindle_servicekit.principal import Principal

from rekindle_inference.domain.abstention import QualityLimit
from rekindle_inference.domain.records import (
    ModelRole,
    ModelVersion,
    ModelVersionId,
    Prediction,
    ProjectId,
    Receipt,
    ReceiptId,
    VolumeId,
    VolumeRecord,
)
from rekindle_inference.domain.slices import SliceRanks
from rekindle_inference.domain.uploads import Part, UploadId, UploadRecord, UploadState
from rekindle_inference.ports.results import ResultReads, ResultWrites, SegmentationReads, SegmentationWrites


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A mutation's identity: who sent it, under which id, and what was in it."""

    principal: Principal
    method: str
    request_id: str
    #: SHA-256 of the request, to tell a retry from another request under the same id.
    digest: str


class UploadReads(Protocol):
    """What is known of uploads in pieces."""

    def upload(self, project_id: ProjectId, upload_id: UploadId) -> UploadRecord | None: ...

    def upload_part(self, upload_id: UploadId, offset: int) -> Part | None: ...

    def upload_parts(self, upload_id: UploadId) -> list[Part]:
        """In the order of their offsets."""
        ...

    def open_uploads(self, project_id: ProjectId, now: datetime) -> int: ...

    def open_upload_bytes(self, now: datetime) -> int:
        """What those of all projects have announced."""
        ...

    def uploads_to_clean(self, now: datetime, *, limit: int, after: UploadRecord | None = None) -> list[UploadRecord]:
        """Those that have expired by now, of any project and state, and whose objects may still be there.

        In the order in which they expired, those behind `after`.
        """
        ...

    def uploads_to_forget(
        self, before: datetime, *, limit: int, after: UploadRecord | None = None
    ) -> list[UploadRecord]:
        """Those that were cleaned and expired before a moment; in the same order."""
        ...


class UploadWrites(UploadReads, Protocol):
    def add_upload(self, upload: UploadRecord) -> None: ...

    def renew_upload(self, upload_id: UploadId, expires_at: datetime) -> None: ...

    def add_upload_part(self, upload: UploadRecord, part: Part, expires_at: datetime) -> bool:
        """The next part of an open upload; False where it has moved on or ended since `upload` was read."""
        ...

    def restart_upload(self, upload_id: UploadId) -> None:
        """Forget the parts of an open upload."""
        ...

    def end_upload(
        self,
        upload_id: UploadId,
        state: UploadState,
        *,
        volume_id: VolumeId | None = None,
        refusal: tuple[str, str] | None = None,
    ) -> bool:
        """Its header and parts are forgotten; False where it is not open any more."""
        ...

    def upload_cleaned(self, upload_id: UploadId) -> None: ...

    def forget_uploads(self, upload_ids: Collection[UploadId]) -> None: ...


class Reads(UploadReads, Protocol):
    """One consistent state of everything; None where something does not exist in that project."""

    @property
    def now(self) -> datetime:
        """The moment by the database's clock, so that all processes agree on what has expired."""
        ...

    def answer_to(self, request: Request) -> str | None:
        """What the request was answered with before; AlreadyExists where its id was another request's."""
        ...

    def volume(self, project_id: ProjectId, volume_id: VolumeId) -> VolumeRecord | None: ...

    def volumes(self, project_id: ProjectId, ids: Iterable[VolumeId]) -> dict[VolumeId, VolumeRecord]: ...

    def is_purged(self, project_id: ProjectId, volume_id: VolumeId) -> bool:
        """Whether there was such a volume and it was erased."""
        ...

    def receipt(self, project_id: ProjectId, receipt_id: ReceiptId) -> Receipt | None: ...

    def receipt_of(self, project_id: ProjectId, mask_volume_id: VolumeId) -> Receipt | None: ...

    def model(self, project_id: ProjectId, model_version_id: ModelVersionId) -> ModelVersion | None: ...

    def model_of(self, project_id: ProjectId, role: ModelRole, package_digest: str) -> ModelVersion | None: ...

    def active_model(self, project_id: ProjectId) -> ModelVersion | None: ...

    def models(self, project_id: ProjectId, *, limit: int, before_version: int | None) -> list[ModelVersion]:
        """Newest first."""
        ...

    def next_version(self, project_id: ProjectId) -> int: ...

    def prediction(self, model_version_id: ModelVersionId, image: VolumeId) -> Prediction | None: ...

    def model_of_mask(self, project_id: ProjectId, mask: VolumeId) -> ModelVersion | None:
        """The model version that predicted a mask."""
        ...

    def find_volumes(
        self, project_id: ProjectId, criteria: Mapping[str, str], *, limit: int, after: tuple[datetime, str] | None
    ) -> list[VolumeRecord]:
        """Volumes whose source reference has all of `criteria` (kind -> value), newest first.

        `after` is the moment and the id behind which the list goes on.
        """
        ...

    def slice_ranks(self, project_id: ProjectId, mask: VolumeId) -> SliceRanks | None: ...

    def quality_limits(self, project_id: ProjectId) -> list[QualityLimit]:
        """By organ."""
        ...

    @property
    def segmentations(self) -> SegmentationReads: ...

    @property
    def results(self) -> ResultReads: ...


class Writes(Reads, UploadWrites, Protocol):
    """A transaction: all of it or nothing."""

    @property
    def segmentations(self) -> SegmentationWrites: ...

    @property
    def results(self) -> ResultWrites: ...

    def set_quality_limits(self, project_id: ProjectId, limits: Iterable[QualityLimit]) -> None:
        """These, and no others."""
        ...

    def answer(self, request: Request, answer: str) -> None:
        """Remember the answer together with what this transaction does."""
        ...

    def add_volume(self, volume: VolumeRecord) -> None: ...

    def hold(self, digests: Iterable[str]) -> None:
        """Nobody else takes in or erases these bytes before this transaction ends. Once, with all of them."""
        ...

    def is_free(self, digest: str, *, original: bool = False) -> bool:
        """Whether no volume of any project has it as its canonical or original digest; of bytes that are held."""
        ...

    def add_receipt(self, receipt: Receipt) -> None: ...

    def add_model(self, model: ModelVersion) -> None: ...

    def has_learnt_from_purged(self, project_id: ProjectId, snapshot_digest: str, initial_weights_digest: str) -> bool:
        """Whether the snapshot held volumes that were erased, or a marked version had these weights."""
        ...

    def move_pointer(self, project_id: ProjectId, *, expected: ModelVersionId | None, to: ModelVersionId) -> bool:
        """Compare and set; False where the pointer was not on `expected` (None: nowhere)."""
        ...

    def add_prediction(self, prediction: Prediction) -> None: ...

    def add_slice_ranks(self, ranks: SliceRanks) -> None: ...


class State(Protocol):
    """The service's own database."""

    def read(self) -> AbstractContextManager[Reads]: ...

    def write(self) -> AbstractContextManager[Writes]:
        """DependencyUnavailable where another writer got in between: the caller may try again."""
        ...
