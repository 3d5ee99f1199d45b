"""Words and records that the client and all services share: frozen, free of grpc and protobuf.

A word of an enumeration is the API's name in lower case without its prefix; `Modality` keeps the field's spelling.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, NewType

Digest = NewType("Digest", str)

#: Rule for the ids of organs: lower-case letters, digits and underscores, a letter first, 63 characters at most.
ORGAN_ID: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
#: Metadata of a record's field: the API's 0 or "" means that the field is not set, so its default holds.
ZERO_IS_UNSET: Final = {"zero_is_unset": True}

_SHA256: Final = re.compile(r"[0-9a-f]{64}")


def is_sha256(text: str) -> bool:
    """Whether `text` is a SHA-256 in lower-case hexadecimal."""
    return _SHA256.fullmatch(text) is not None


class Modality(StrEnum):
    """How a volume was taken."""

    CT = "CT"
    MR = "MR"

    @classmethod
    def _missing_(cls, value: object) -> Modality | None:
        """Read "ct" and "mr" too, which earlier releases have stored."""
        return cls.__members__.get(value.upper()) if isinstance(value, str) else None


class OrganStatus(StrEnum):
    """What an annotator states about one organ of a mask."""

    EDITED = "edited"
    ACCEPTED = "accepted"
    ABSENT = "absent"
    OUT_OF_VIEW = "out_of_view"
    #: Nobody looked: masked from the loss and from every metric.
    NOT_REVIEWED = "not_reviewed"


class TimeKind(StrEnum):
    """What a stretch of time was spent on."""

    READING = "reading"
    EDITING = "editing"
    WAITING = "waiting"


class TimeSource(StrEnum):
    """How a stretch of time was obtained."""

    MEASURED = "measured"
    INFERRED = "inferred"
    SIMULATED = "simulated"


class ExampleSource(StrEnum):
    """Where an example comes from: the seed set or the target set."""

    SEED = "seed"
    TARGET = "target"


class Weekday(StrEnum):
    """Days in the order of ISO 8601: Monday first."""

    MONDAY = "monday"
    TUESDAY = "tuesday"
    WEDNESDAY = "wednesday"
    THURSDAY = "thursday"
    FRIDAY = "friday"
    SATURDAY = "saturday"
    SUNDAY = "sunday"


class VolumeKind(StrEnum):
    """What the voxels of a volume are: intensities or label values."""

    IMAGE = "image"
    MASK = "mask"


class FileFormat(StrEnum):
    """Formats of image and mask files."""

    NIFTI = "nifti"
    NRRD = "nrrd"
    METAIMAGE = "metaimage"
    DICOM = "dicom"
    DICOM_SEG = "dicom_seg"


class ModelRole(StrEnum):
    """What a model version serves as."""

    IGNITER = "igniter"
    SUSTAINER = "sustainer"


class RunKind(StrEnum):
    """What a training run trains."""

    IGNITER = "igniter"
    SUSTAINER = "sustainer"


class RunState(StrEnum):
    """How far a training run has come."""

    QUEUED = "queued"
    RUNNING = "running"
    PREEMPTED = "preempted"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class CodedConcept(NamedTuple):
    """A concept of a coding scheme, for example SNOMED CT ("SCT", "10200004", "Liver")."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Organ:
    """One class of a project."""

    #: Name within the project, see `ORGAN_ID`.
    id: str
    #: Value in mask files, 1 to 255.
    label_value: int
    #: Coded concept; a plain (scheme, value, meaning) becomes one.
    code: CodedConcept | None = None

    if TYPE_CHECKING:  # what may be given is wider than what is kept

        def __init__(
            self, id: str, label_value: int, code: CodedConcept | tuple[str, str, str] | None = None
        ) -> None: ...

    def __post_init__(self) -> None:
        if self.code is not None:
            object.__setattr__(self, "code", CodedConcept(*self.code))


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganState:
    """What an annotator states about one organ of a mask."""

    organ_id: str
    status: OrganStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReference:
    """Where a volume came from. Never written to logs."""

    study_instance_uid: str = ""
    series_instance_uid: str = ""
    frame_of_reference_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()
    accession_number: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganQuality:
    """What a prediction says about itself for one organ, without ground truth."""

    organ_id: str
    #: Soft Dice confidence 2 * sum(p * y) / (sum p + sum y) over the volume; None when nothing is predicted.
    soft_dice_confidence: float | None
    predicted_ml: float = 0.0
    #: In-plane contours, summed over slices.
    boundary_length_mm: float = 0.0
    #: Number of 26-connected components.
    components: int = 0
    #: Number of slices that show the organ.
    slices: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganEffort:
    """How much one organ of a correction differs from the coarse label that it started from."""

    organ_id: str
    voxels_changed: int
    #: Contour of the correction farther than 3 mm from the coarse contour (Vaassen 2020).
    added_path_length_mm: float
    #: Dice of the coarse label against the correction; None when both are empty.
    dice: float | None = None
    components_removed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TimeSegment:
    """A stretch of an annotator's time on one case; idle time is left out of `active_seconds`."""

    kind: TimeKind
    source: TimeSource = TimeSource.MEASURED
    start_time: datetime
    active_seconds: float
    #: Tool that measured it.
    tool: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingWindow:
    """When training may run, by the wall clock of a place, through changes of its summer time."""

    #: Time of day, "HH:MM".
    start: str
    #: Time of day, "HH:MM"; not after `start`: on the following day. The same as `start`: 24 hours.
    end: str
    #: IANA name: "Europe/Berlin", "UTC".
    time_zone: str
    #: Days on which it opens; empty for every day.
    days: tuple[Weekday, ...] = ()

    if TYPE_CHECKING:  # days may be given as plain words

        def __init__(self, *, start: str, end: str, time_zone: str, days: Sequence[Weekday | str] = ()) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One labelled case of a snapshot: pixels by content."""

    case_id: str
    source: ExampleSource
    modality: Modality
    #: SHA-256 of the canonical image.
    image_digest: Digest
    #: SHA-256 of the canonical mask.
    mask_digest: Digest
    organ_states: tuple[OrganState, ...] = ()

    def status_of(self, organ_id: str) -> OrganStatus:
        """The organ's status; an organ without one counts as accepted."""
        states = (state.status for state in self.organ_states if state.organ_id == organ_id)
        return next(states, OrganStatus.ACCEPTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganMetrics:
    """One organ of one case on the native grid; None where not defined."""

    organ_id: str
    dice: float | None
    #: 95th percentile of the surface distances.
    hd95_mm: float | None = None
    volume_error_ml: float | None = None
    predicted_ml: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseMetrics:
    """How one case came out in a run's evaluation, by content and by id."""

    image_digest: Digest
    case_id: str = ""
    organs: tuple[OrganMetrics, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPackage:
    """A package that a run produced for one modality."""

    modality: Modality
    package_digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Weights, packages and measurements of a run that succeeded."""

    packages: tuple[RunPackage, ...]
    weights_digest: Digest
    candidate: tuple[CaseMetrics, ...] = ()
    current: tuple[CaseMetrics, ...] = ()
    #: Metrics of the candidate on a few of its own training cases.
    training_check: tuple[CaseMetrics, ...] = ()
    train_seconds: float = 0.0
    epochs: int = 0
    #: Loss of the last step; None where the process took no step of its own.
    final_loss: float | None = None
