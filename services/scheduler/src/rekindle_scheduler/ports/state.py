"""The scheduler's state: a unit of work, and what it holds of each noun."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Protocol

from rekindle_servicekit.principal import Principal

from rekindle_scheduler.domain.events import Event, RoundEvent
from rekindle_scheduler.domain.ids import (
    AnnotatorId,
    CaseId,
    ModelVersionId,
    ProjectId,
    SubmissionId,
    VolumeId,
)
from rekindle_scheduler.domain.reconcile import CaseTally, PredictionTally, RoundHead
from rekindle_scheduler.domain.records import (
    Case,
    CoarseLabel,
    PredictionTask,
    Project,
    Round,
    SeedCase,
    Snapshot,
    TimeSegment,
)
from rekindle_scheduler.domain.words import CaseMark, CaseState
from rekindle_scheduler.ports.annotation import Drafts, Leases, Ledger, Sessions, Submissions
from rekindle_scheduler.ports.publications import Publications
from rekindle_scheduler.ports.purges import Purges
from rekindle_scheduler.ports.services import Volume


@dataclass(frozen=True, kw_only=True)
class CaseCounts:
    """How many cases of a project are where."""

    seed: int = 0
    registered: int = 0
    predicted: int = 0
    leased: int = 0
    labelled: int = 0
    held_out: int = 0
    held_out_labelled: int = 0
    in_review: int = 0


@dataclass(frozen=True, kw_only=True)
class CaseFilter:
    """Which cases a list shows; the defaults show all."""

    states: frozenset[CaseState] = frozenset()
    held_out: bool | None = None
    round: int = 0


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All projects at a glance."""

    cases: Mapping[CaseState, int]
    #: When the oldest case that is READY was registered; None where none is.
    oldest_ready: datetime | None
    #: Live leases.
    leases: int
    #: Newest round of each running project, of at most `MAX_OVERVIEW_PROJECTS`.
    rounds: Mapping[ProjectId, int]


#: Each makes a series of its own where rounds are watched.
MAX_OVERVIEW_PROJECTS: Final = 200


class Requests(Protocol):
    """Mutations already answered, with their responses."""

    def remember(self, principal: Principal, method: str, request_id: str, request_digest: str) -> bytes | None: ...

    def store(
        self, principal: Principal, method: str, request_id: str, request_digest: str, response: bytes
    ) -> None: ...


class Annotators(Protocol):
    """Callers as annotators: one id per issuer and subject."""

    def find(self, principal: Principal) -> AnnotatorId | None: ...

    def find_or_add(self, principal: Principal) -> AnnotatorId: ...


class Projects(Protocol):
    """Projects. `get` raises NotFound."""

    def add(self, project: Project) -> None: ...

    def get(self, project_id: ProjectId) -> Project: ...

    def lock(self, project_id: ProjectId) -> Project:
        """As `get`; nobody else changes the project before this transaction ends."""
        ...

    def page(self, *, after: int, limit: int) -> list[tuple[int, Project]]: ...

    def running(self) -> list[ProjectId]:
        """The projects that may have a next step."""
        ...

    def update(self, project: Project) -> None: ...


class SeedCases(Protocol):
    """The seed set."""

    def add(self, seed_case: SeedCase) -> None: ...

    def of_image(self, project_id: ProjectId, image_volume_id: VolumeId) -> SeedCase | None: ...

    def all(self, project_id: ProjectId) -> list[SeedCase]: ...

    def page(self, project_id: ProjectId, *, after: int, limit: int) -> list[tuple[int, SeedCase]]: ...


class Cases(Protocol):
    """The target set. States are as of the transaction's moment; `get` raises NotFound."""

    def add(self, project_id: ProjectId, volume: Volume, group_key: str, *, held_out: bool) -> Case: ...

    def of_volumes(self, project_id: ProjectId, volume_ids: Iterable[VolumeId]) -> dict[VolumeId, Case]: ...

    def get(self, project_id: ProjectId, case_id: CaseId) -> Case: ...

    def lock(self, project_id: ProjectId, case_id: CaseId) -> Case:
        """As `get`, and nobody else changes the case before this transaction ends; NotFound (PURGED) too."""
        ...

    def all(self, project_id: ProjectId) -> list[Case]:
        """Without those that were erased."""
        ...

    def of_group(self, project_id: ProjectId, group_key: str) -> list[Case]:
        """The cases of one patient, without those that were erased."""
        ...

    def page(
        self, project_id: ProjectId, which: CaseFilter, *, ranked: bool, after: tuple[int, int], limit: int
    ) -> list[tuple[tuple[int, int], Case]]: ...

    def next_in_round(self, project_id: ProjectId, round: int) -> Case | None:
        """The first case of the round's selection that is free, locked."""
        ...

    def without_task(self, project_id: ProjectId, version: ModelVersionId) -> Iterator[Case]:
        """The open, free cases, without those in review, that this version is not asked to predict yet.

        Read as they are asked for, some at a time.
        """
        ...

    def unlabelled(self, project_id: ProjectId) -> Iterator[Case]:
        """Those without a label that counts, as registered, read as they are asked for."""
        ...

    def labelled(self, project_id: ProjectId) -> list[Case]: ...

    def held_out(self, project_id: ProjectId) -> list[Case]:
        """Labelled or not."""
        ...

    def set_held_out(self, case_ids: Iterable[CaseId]) -> None: ...

    def set_mark(self, case_id: CaseId, mark: CaseMark) -> None: ...

    def set_round(self, case_ids: Sequence[CaseId], round: int) -> None: ...

    def set_ordering(self, case_ids: Sequence[CaseId], *, first: int) -> None:
        """Keep the places in the policy's ordering, from `first` on, for ranked lists."""
        ...

    def set_coarse_label(self, case_id: CaseId, label: CoarseLabel) -> None: ...

    def show_labels_of(self, project_id: ProjectId, version: ModelVersionId) -> None:
        """Where this version has predicted a case that is not labelled, its coarse label is the one to show."""
        ...

    def set_submission(self, case_id: CaseId, submission_id: SubmissionId | None) -> None: ...

    def set_pending(self, case_id: CaseId, submission_id: SubmissionId | None) -> None:
        """The submission that waits for a reviewer."""
        ...


class Rounds(Protocol):
    """Rounds. `get` raises NotFound."""

    def add(self, round: Round) -> None: ...

    def get(self, project_id: ProjectId, number: int) -> Round: ...

    def newest(self, project_id: ProjectId) -> Round | None: ...

    def head(self, project_id: ProjectId) -> RoundHead | None:
        """The newest one's number and state; however many rounds and labels there are, it costs one row."""
        ...

    def all(self, project_id: ProjectId) -> list[Round]: ...

    def page(self, project_id: ProjectId, *, after: int, limit: int | None) -> list[Round]: ...

    def update(self, round: Round) -> None:
        """Compare-and-set. VersionConflict where somebody else has changed it since this unit of work read it."""
        ...

    def add_snapshot(self, project_id: ProjectId, round: int, snapshot: Snapshot) -> None: ...

    def snapshot(self, project_id: ProjectId, round: int) -> Snapshot | None: ...


class Predictions(Protocol):
    """One row per case and model version."""

    def enqueue(self, tasks: Sequence[PredictionTask]) -> None:
        """For cases that have no task of the version, or one that was skipped; others keep theirs."""
        ...

    def claim(
        self, project_id: ProjectId, model_version_id: ModelVersionId, *, limit: int, until: datetime
    ) -> list[PredictionTask]: ...

    def extend(self, tasks: Iterable[PredictionTask], until: datetime) -> None:
        """Keep them claimed for longer."""
        ...

    def release(self, tasks: Iterable[PredictionTask], *, were_tried: bool) -> None:
        """Let others claim what was not finished; what was not tried is as if it had not been claimed."""
        ...

    def finish(self, task: PredictionTask, label: CoarseLabel | None) -> None: ...

    def skip_others(self, project_id: ProjectId, model_version_id: ModelVersionId) -> int:
        """Skip what is pending of other versions; how many that were."""
        ...

    def retry_failed(self, project_id: ProjectId) -> int:
        """Make what failed pending again; how many that were."""
        ...

    def label_of_mask(self, case_id: CaseId, mask_volume_id: VolumeId) -> CoarseLabel | None:
        """The coarse label of the case, of whatever version, that this mask is."""
        ...

    def corrected(self, project_id: ProjectId) -> list[tuple[CoarseLabel, tuple[TimeSegment, ...]]]:
        """Coarse labels that were corrected to a case's first label, where that counts, with the time that it took."""
        ...

    def labels(self, project_id: ProjectId) -> dict[tuple[CaseId, ModelVersionId], CoarseLabel]: ...


class Tallies(Protocol):
    """Counts, each in one statement."""

    def counts(self, project_id: ProjectId) -> CaseCounts: ...

    def cases(self, project_id: ProjectId, round: int) -> CaseTally:
        """Of the round that works."""
        ...

    def has_open(self, project_id: ProjectId) -> bool:
        """Whether any case is open; does not count them."""
        ...

    def open_in_round(self, project_id: ProjectId, round: int) -> int:
        """Selected in this round and still open; looks at no other case."""
        ...

    def predictions(self, project_id: ProjectId, version: ModelVersionId | None) -> PredictionTally:
        """Of the version that serves."""
        ...

    def overview(self) -> Overview:
        """Of all projects."""
        ...


class Events(Protocol):
    """A project's history, under growing cursors."""

    def add(self, event: Event) -> None: ...

    def after(self, project_id: ProjectId, cursor: int, *, limit: int) -> list[RoundEvent]: ...


class UnitOfWork(Protocol):
    """One transaction on the scheduler's state."""

    @property
    def now(self) -> datetime: ...

    @property
    def requests(self) -> Requests: ...

    @property
    def annotators(self) -> Annotators: ...

    @property
    def projects(self) -> Projects: ...

    @property
    def seed_cases(self) -> SeedCases: ...

    @property
    def cases(self) -> Cases: ...

    @property
    def leases(self) -> Leases: ...

    @property
    def submissions(self) -> Submissions: ...

    @property
    def publications(self) -> Publications: ...

    @property
    def drafts(self) -> Drafts: ...

    @property
    def sessions(self) -> Sessions: ...

    @property
    def rounds(self) -> Rounds: ...

    @property
    def predictions(self) -> Predictions: ...

    @property
    def purges(self) -> Purges: ...

    @property
    def tallies(self) -> Tallies: ...

    @property
    def ledger(self) -> Ledger: ...

    @property
    def events(self) -> Events: ...


class Store(Protocol):
    """The scheduler's state. Units of work commit at the end and roll back on an exception."""

    def write(self) -> AbstractContextManager[UnitOfWork]: ...

    def read(self) -> AbstractContextManager[UnitOfWork]: ...

    def wipe(self) -> None:
        """Leave no trace of what was removed in the files of an embedded database."""
        ...
