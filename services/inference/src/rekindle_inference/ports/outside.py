"""What lies outside: objects, an engine, readers and writers of files."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rekindle.vocabulary import FileFormat, Modality, ModelRole, Organ, SourceReference, VolumeKind
from rekindle_imaging.package import Manifest
from rekindle_imaging.volume import Volume
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.records import Failure, ModelVersion, ProjectId, VolumeRecord


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
class MaskTarget:
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
class MaskProvenance:
    """How a mask came about."""

    #: Whether a person drew or changed it.
    is_corrected: bool
    #: The model version whose mask it is, or that it was corrected from; None where it was drawn from nothing.
    model: ModelVersion | None
    created_at: datetime


class Reader(Protocol):
    """Reads foreign files without letting them harm the service."""

    def read(
        self,
        path: Path,
        kind: VolumeKind,
        format: FileFormat,
        cancellation: Cancellation,
        *,
        onto: MaskTarget | None = None,
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
        origin: MaskProvenance,
        folder: Path,
        cancellation: Cancellation,
    ) -> Path:
        """A complete file in `folder`, the same bytes for the same arguments; InvalidInput says what is missing."""
        ...
