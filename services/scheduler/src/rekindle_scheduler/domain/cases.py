"""A case of the target set and its coarse label."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rekindle.vocabulary import Digest, OrganQuality

from rekindle_scheduler.domain.enums import CaseMark, CaseState
from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, SubmissionId, VolumeId


@dataclass(frozen=True, kw_only=True)
class CoarseLabel:
    """A model version's prediction for a case, shown to the annotator to correct."""

    mask_volume_id: VolumeId
    mask_digest: Digest
    model_version_id: ModelVersionId
    quality: tuple[OrganQuality, ...] = ()
    predicted_minutes: float


@dataclass(frozen=True, kw_only=True)
class Case:
    """One volume of the target set."""

    case_id: CaseId
    project_id: ProjectId
    volume_id: VolumeId
    #: Digest of the canonical image.
    image_digest: Digest
    #: Key that joins the cases of one patient; empty makes the case a group of its own.
    group_key: str = ""
    #: Place in the order of registration, from 1.
    sequence: int
    state: CaseState = CaseState.REGISTERED
    mark: CaseMark = CaseMark.NONE
    held_out: bool = False
    #: Round that selected it, 0 when none has.
    round: int = 0
    #: Place in that round's selection, from 0.
    rank: int = 0
    coarse_label: CoarseLabel | None = None
    #: Submission that counts; None while unlabelled.
    submission_id: SubmissionId | None = None
    #: Submission that waits for a reviewer; a correction where the case is labelled.
    pending_submission_id: SubmissionId | None = None
    #: Newest fencing token of the case; 0 before the first lease.
    fencing_token: int = 0
    #: Whether a live lease holds it; so it is with a labelled case while its label is corrected.
    is_held: bool = False
    register_time: datetime
