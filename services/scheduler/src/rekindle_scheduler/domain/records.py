"""What the scheduler keeps: projects, cases, leases, submissions, rounds, the ledger; frozen records."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

from rekindle.vocabulary import (
    Digest,
    Example,
    Modality,
    Organ,
    OrganEffort,
    OrganState,
    RunResult,
    RunState,
    TimeSegment,
)

from rekindle_scheduler.domain.enums import (
    DecisionBasis,
    LeaseState,
    PredictionState,
    ProjectState,
    ReviewState,
    RoundState,
)
from rekindle_scheduler.domain.ids import (
    AnnotatorId,
    CaseId,
    LeaseId,
    ModelVersionId,
    ProjectId,
    ReceiptId,
    RunId,
    SeedCaseId,
    SessionId,
    SubmissionId,
    VolumeId,
)
from rekindle_scheduler.domain.policy import Policy


@dataclass(frozen=True, kw_only=True)
class Project:
    """One transfer from a seed set to a target set."""

    project_id: ProjectId
    display_name: str
    organs: tuple[Organ, ...]
    target_modality: Modality
    policy: Policy
    #: Number of the policy; grows with every update.
    policy_version: int = 1
    state: ProjectState = ProjectState.DRAFT
    state_reason: str = ""
    registration_open: bool = True
    create_time: datetime
    #: Model version that serves; None before the first activation.
    active_model_version_id: ModelVersionId | None = None


@dataclass(frozen=True, kw_only=True)
class SeedCase:
    """One labelled public volume."""

    seed_case_id: SeedCaseId
    project_id: ProjectId
    modality: Modality
    image_volume_id: VolumeId
    mask_volume_id: VolumeId
    receipt_id: ReceiptId
    image_digest: Digest
    mask_digest: Digest
    organ_states: tuple[OrganState, ...]


@dataclass(frozen=True, kw_only=True)
class Lease:
    """A case held by one annotator until it expires."""

    lease_id: LeaseId
    project_id: ProjectId
    case_id: CaseId
    fencing_token: int
    annotator_id: AnnotatorId
    start_time: datetime
    expire_time: datetime
    state: LeaseState = LeaseState.LIVE
    round: int
    #: Model version of the coarse label that was shown; None where there was none.
    coarse_model_version_id: ModelVersionId | None = None
    #: Moment of its submission, release or loss; None while it lives.
    end_time: datetime | None = None
    #: Session that it belongs to; None where it was leased by itself.
    session_id: SessionId | None = None
    #: Tool that holds it, by the name that it gave.
    tool: str = ""
    #: Label that it is to correct; None for a case that was open.
    revises_submission_id: SubmissionId | None = None


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One corrected label as an annotator sent it. What was sent never changes; what became of it does."""

    submission_id: SubmissionId
    project_id: ProjectId
    case_id: CaseId
    round: int
    annotator_id: AnnotatorId
    lease_id: LeaseId | None = None
    mask_volume_id: VolumeId
    mask_digest: Digest
    receipt_id: ReceiptId
    organ_states: tuple[OrganState, ...]
    #: Time on it under its lease, that of drafts too.
    time_segments: tuple[TimeSegment, ...] = ()
    #: Differences from the coarse label, or from the label that it was corrected from.
    effort: tuple[OrganEffort, ...] = ()
    coarse_model_version_id: ModelVersionId | None = None
    create_time: datetime
    revision: int = 1
    supersedes_submission_id: SubmissionId | None = None
    review_state: ReviewState = ReviewState.ACCEPTED
    held_out: bool = False
    reviewed_by: AnnotatorId | None = None
    review_time: datetime | None = None
    review_comment: str = ""
    withdraw_time: datetime | None = None
    withdraw_reason: str = ""
    #: Label whose mask it was corrected from, where that was not a coarse label.
    started_from_submission_id: SubmissionId | None = None
    #: First round whose snapshot holds it, 0 for none.
    snapshot_round: int = 0


@dataclass(frozen=True, kw_only=True)
class OrganComparison:
    """Mean Dice of one organ under candidate and current; None where no case defines it."""

    organ_id: str
    candidate_dice: float | None
    current_dice: float | None
    cases: int


@dataclass(frozen=True, kw_only=True)
class PromotionDecision:
    """Whether a candidate serves, and why, in words."""

    promoted: bool
    reason: str
    basis: DecisionBasis
    organs: tuple[OrganComparison, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RollBackDecision:
    """Whether the version that served in a round gives way to the one before it."""

    roll_back: bool
    reason: str
    #: Model version that serves after the roll-back.
    to_model_version_id: ModelVersionId | None = None
    organs: tuple[OrganComparison, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A run as the scheduler last saw it."""

    run_id: RunId
    state: RunState
    #: Reason why it is queued, was preempted or has failed, in words.
    reason: str = ""
    result: RunResult | None = None
    #: Version of the limits that the trainer goes by; 0 for none. Read with each poll, so never stored.
    limits_version: int = field(default=0, compare=False, metadata={"stored": False})


@dataclass(frozen=True, kw_only=True)
class Round:
    """select, annotate, train, promote, predict. Round 0 is the igniter's."""

    project_id: ProjectId
    number: int
    state: RoundState
    selected_case_ids: tuple[CaseId, ...] = ()
    #: Number of cases with a label that counts for this round.
    labelled_cases: int = 0
    labelled_total: int = 0
    #: Training run; None before it is started, and after RetryProject.
    run: TrainingRun | None = None
    #: Number of runs that were given up; part of the run's id.
    run_retries: int = 0
    snapshot_digest: Digest | None = None
    candidate_model_version_id: ModelVersionId | None = None
    decision: PromotionDecision | None = None
    #: Decision whether the version that served here keeps serving; made before training, at most once.
    serving_check: RollBackDecision | None = None
    #: Model version that served while its cases were annotated; set when it opens.
    opening_model_version_id: ModelVersionId | None = None
    #: Model version that serves after the round.
    serving_model_version_id: ModelVersionId | None = None
    #: Whether a person asked to train now.
    train_requested: bool = False
    start_time: datetime
    end_time: datetime | None = None
    #: Reason why it waits or failed, in words.
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One time segment of a lease: sent with its label, with a draft, or when it was given up."""

    project_id: ProjectId
    case_id: CaseId
    annotator_id: AnnotatorId
    round: int
    held_out: bool
    coarse_model_version_id: ModelVersionId | None
    segment: TimeSegment
    #: Label that the time went into; None before there is one, and where none came.
    submission_id: SubmissionId | None = None
    #: Lease, where the time was sent before the label, or without one.
    lease_id: LeaseId | None = None


@dataclass(frozen=True, kw_only=True)
class RoundMinutes:
    """Minutes of one round; the held-out cases are a phase of their own."""

    round: int
    cases: int
    minutes: float
    held_out_cases: int
    held_out_minutes: float


@dataclass(frozen=True, kw_only=True)
class LedgerSummary:
    """Minutes of a project by round and by how they were obtained."""

    minutes_total: float
    minutes_held_out: float
    rounds: tuple[RoundMinutes, ...]
    minutes_measured: float
    minutes_inferred: float
    minutes_simulated: float


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """The frozen labels of one run."""

    digest: Digest
    training: tuple[Example, ...]
    heldout: tuple[Example, ...]


@dataclass(frozen=True, kw_only=True)
class PredictionTask:
    """One case to be predicted by one model version."""

    project_id: ProjectId
    case_id: CaseId
    model_version_id: ModelVersionId
    #: Order of work, from 0; the policy's candidate pool comes first.
    rank: int
    #: Whether the next round waits for it.
    in_pool: bool
    state: PredictionState = PredictionState.PENDING
    attempts: int = 0
    #: Reason why it failed, in words.
    reason: str = ""
