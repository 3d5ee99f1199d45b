"""What the use cases need of the outside: state, objects, an engine, a reader and a writer of files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray
from rekindle_imaging.volume import Volume
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.abstention import QualityLimit
from rekindle_inference.domain.manifest import Manifest
from rekindle_inference.domain.records import (
    Failure,
    FileFormat,
    Modality,
    ModelRole,
    ModelVersion,
    ModelVersionId,
    Organ,
    Prediction,
    ProjectId,
    Receipt,
    ReceiptId,
    SourceReference,
    VolumeId,
    VolumeKind,
    VolumeRecord,
)
from rekindle_inference.domain.results import Result, ResultId
from rekindle_inference.domain.segmentations import Priority, Segmentation, SegmentationId, SegmentationState
from rekindle_inference.domain.slices import SliceRanks
from rekindle_inference.domain.uploads import Part, UploadId, UploadRecord, UploadState


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

    def uploads_to_clean(self, now: datetime, *, limit: int) -> list[UploadRecord]:
        """Those that have expired by now, of any project and state, and whose objects may still be there."""
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

    def forget_uploads(self, before: datetime) -> int:
        """Remove those that were cleaned and expired before a moment; how many that were."""
        ...


class Reads(UploadReads, Protocol):
    """One consistent state of everything; None where something does not exist in that project."""

    def answer_to(self, request: Request) -> str | None:
        """What the request was answered with before; AlreadyExists where its id was another request's."""
        ...

    def volume(self, project_id: ProjectId, volume_id: VolumeId) -> VolumeRecord | None: ...

    def volumes(self, project_id: ProjectId, ids: Iterable[VolumeId]) -> dict[VolumeId, VolumeRecord]: ...

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
        self, project_id: ProjectId, criteria: Mapping[str, str], *, limit: int, after: VolumeId | None
    ) -> list[VolumeRecord]:
        """Volumes whose source reference has all of `criteria` (kind -> value), newest first."""
        ...

    def slice_ranks(self, project_id: ProjectId, mask: VolumeId) -> SliceRanks | None: ...

    def quality_limits(self, project_id: ProjectId) -> list[QualityLimit]:
        """By organ."""
        ...

    @property
    def segmentations(self) -> SegmentationReads: ...

    @property
    def results(self) -> ResultReads: ...


class SegmentationReads(Protocol):
    """Durable segmentations, to be looked at."""

    def get(self, project_id: ProjectId, segmentation_id: SegmentationId) -> Segmentation | None: ...

    def page(
        self,
        project_id: ProjectId,
        *,
        states: frozenset[SegmentationState],
        volume_id: VolumeId | None,
        before: Segmentation | None,
        limit: int,
    ) -> list[Segmentation]:
        """Newest first, older than `before`; no states means all."""
        ...

    def positions(self, ids: Iterable[SegmentationId]) -> dict[SegmentationId, int]:
        """Place among the queued of the same priority, from 1; without those that are not queued."""
        ...

    def queued(self, project_id: ProjectId, priority: Priority) -> int: ...


class SegmentationWrites(SegmentationReads, Protocol):
    """Durable segmentations, to be changed."""

    def add(self, segmentation: Segmentation) -> None: ...

    def lock(self, segmentation_id: SegmentationId) -> Segmentation | None:
        """As it is now; nobody else changes it before this transaction ends."""
        ...

    def update(self, segmentation: Segmentation) -> None: ...

    def lock_next(self, priorities: Iterable[Priority]) -> Segmentation | None:
        """The first that may be taken up: queued, or left behind by a worker that is gone. Locked, or passed over."""
        ...

    def lock_expired(self, limit: int) -> list[Segmentation]:
        """Those that nobody works on and whose time to live is over."""
        ...

    def keep(self, segmentation_id: SegmentationId, claim: str, until: datetime, progress: tuple[int, int]) -> bool:
        """Extend a claim and note (slices done, in all); False where the claim is no longer the one that holds."""
        ...


class ResultReads(Protocol):
    """The feed of results."""

    def get(self, project_id: ProjectId, result_id: ResultId) -> Result | None: ...

    def of_image(self, project_id: ProjectId, image: VolumeId, *, before: int | None, limit: int) -> list[Result]:
        """Newest first, with cursors below `before`."""
        ...

    def after(self, project_id: ProjectId, cursor: int, *, limit: int) -> list[Result]:
        """In the order of cursors."""
        ...

    def head(self, project_id: ProjectId, image: VolumeId) -> Result | None:
        """The newest word on an image."""
        ...

    def newest_of_submission(self, project_id: ProjectId, submission_id: str) -> Result | None: ...


class ResultWrites(ResultReads, Protocol):
    """The feed of results, to be added to."""

    def lock_feed(self, project_id: ProjectId) -> None:
        """Let nobody else add to the project's feed before this transaction has ended, so that none comes late."""
        ...

    def next_cursor(self, project_id: ProjectId) -> int:
        """Of a feed that is locked."""
        ...

    def add(self, result: Result) -> None: ...


class Writes(Reads, UploadWrites, Protocol):
    """A transaction: all of it or nothing."""

    @property
    def segmentations(self) -> SegmentationWrites: ...

    @property
    def results(self) -> ResultWrites: ...

    def set_quality_limits(self, project_id: ProjectId, limits: Iterable[QualityLimit]) -> None:
        """These, and no others."""
        ...

    @property
    def now(self) -> datetime: ...

    def answer(self, request: Request, answer: str) -> None:
        """Remember the answer together with what this transaction does."""
        ...

    def add_volume(self, volume: VolumeRecord) -> None: ...

    def add_receipt(self, receipt: Receipt) -> None: ...

    def add_model(self, model: ModelVersion) -> None: ...

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """What a package serves as: a version of a project."""

    project_id: ProjectId
    role: ModelRole
    version: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Package:
    """A graph in the object store and what it says of itself."""

    digest: str
    manifest: Manifest
    #: For engines that give each version a name; None for a package that is no version.
    serving: Serving | None = None


class Engine(Protocol):
    """Runs packages' graphs. Safe to use from several threads."""

    @property
    def batch_size(self) -> int:
        """Images that it likes to be given at a time."""
        ...

    def check(self, package: Package, model: bytes) -> None:
        """Make a package ready whose model was not served before.

        InvalidInput where the graph is not what the manifest says, could reach outside its file, or does not load.
        """
        ...

    def load(self, package: Package) -> None:
        """Make it ready, so that the first batch need not wait; nothing happens where it is ready.

        NotFound, IntegrityError, InvalidInput (MODEL_NOT_LOADABLE), DependencyUnavailable, CapacityExceeded.
        """
        ...

    def hold(self, package: Package) -> AbstractContextManager[None]:
        """It is not unloaded meanwhile: for a volume from its first slice to its last."""
        ...

    def predict(self, package: Package, images: NDArray[np.float32], cancellation: Cancellation) -> NDArray[np.float32]:
        """Logits (N, K, H, W) of images (N, C, H, W); the same for the same input.

        NotFound (package), InvalidInput (MODEL_NOT_LOADABLE, MODEL_FAILED), Cancelled, DeadlineExceeded,
        DependencyUnavailable (try again).
        """
        ...

    def keep(self, project_id: ProjectId, packages: Sequence[Package]) -> None:
        """These of a project's packages are served, or are what a rollback needs; others may be unloaded."""
        ...

    def forget(self, package: Package) -> None:
        """Free what is held for a package; it is loaded again when it is needed."""
        ...

    def close(self) -> None:
        """Once nothing is predicted any more."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Parsed:
    """A foreign file that has been read."""

    #: The canonical form.
    data: bytes
    #: What the file says of itself; None where its format cannot say it.
    modality: Modality | None = None
    source: SourceReference = field(default_factory=SourceReference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Onto:
    """What a mask that is no full grid is laid onto: its image, and what its segments may be."""

    image: VolumeRecord
    organs: tuple[Organ, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoundSeries:
    """One series of a DICOM archive."""

    #: "" where the files do not say it.
    series_instance_uid: str
    #: The DICOM modality as the files say it.
    modality: str
    #: (offset, size) of its files in the archive.
    files: tuple[tuple[int, int], ...]
    #: Why it is known already to be no volume.
    failure: Failure | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationSource:
    """The DICOM files that a mask's image came from."""

    #: A tar archive, or one DICOM file.
    path: Path
    #: Which series of it.
    series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """How a mask came about."""

    #: Whether a person drew or changed it.
    is_corrected: bool
    #: The model version whose mask it is, or that it was corrected from; None where it was drawn from nothing.
    model: ModelVersion | None
    created_at: datetime


class Reader(Protocol):
    """Reads foreign files without letting them harm the service."""

    def read(
        self, path: Path, kind: VolumeKind, format: FileFormat, cancellation: Cancellation, *, onto: Onto | None = None
    ) -> Parsed:
        """What is in a file; InvalidInput says what is wrong with it. `onto` is needed for a DICOM SEG."""
        ...

    def take_apart(self, path: Path, cancellation: Cancellation) -> list[FoundSeries]:
        """The series of a DICOM archive, in the order of their first files; InvalidInput for the archive itself."""
        ...

    def read_series(self, path: Path, series: FoundSeries, cancellation: Cancellation) -> Parsed:
        """Like `read`, of one series of a DICOM archive."""
        ...


class Writer(Protocol):
    """Writes volumes as files for clients."""

    def write(self, volume: Volume, format: FileFormat, folder: Path) -> Path:
        """A complete file in `folder`, the same bytes for the same volume."""
        ...


class Segmentations(Protocol):
    """Writes masks as DICOM SEG."""

    def write(
        self,
        source: SegmentationSource,
        mask: Volume,
        organs: tuple[Organ, ...],
        origin: Origin,
        folder: Path,
        cancellation: Cancellation,
    ) -> Path:
        """A complete file in `folder`, the same bytes for the same arguments; InvalidInput says what is missing."""
        ...


class Objects(Protocol):
    """What is used of `rekindle_servicekit.objects.Objects`."""

    def put(self, key: str, data: bytes) -> None: ...

    def put_file(self, key: str, path: Path) -> None: ...

    def get(self, key: str) -> bytes: ...

    def open(self, key: str) -> BinaryIO: ...

    def exists(self, key: str) -> bool: ...

    def size(self, key: str) -> int: ...

    def list(self, prefix: str = "") -> Iterator[str]: ...

    def delete(self, key: str) -> None: ...

    def presign_put(self, key: str, expires_s: float) -> str | None: ...
