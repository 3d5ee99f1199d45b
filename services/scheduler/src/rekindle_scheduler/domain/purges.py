"""Erasing a patient: the record, what is still to be done, and what becomes of snapshots."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import NewType

from rekindle.vocabulary import Digest, Example, ExampleSource, RunState

from rekindle_scheduler.domain.enums import DecisionBasis, RoundState
from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, VolumeId
from rekindle_scheduler.domain.promotion import PromotionDecision
from rekindle_scheduler.domain.records import Round, Snapshot
from rekindle_scheduler.domain.snapshot import snapshot_digest

PurgeId = NewType("PurgeId", str)


class PurgeState(StrEnum):
    ERASING = "erasing"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class PurgeWork:
    """What the steps that are left need to know; forgotten at the end, as digests are the patient's."""

    volume_ids: tuple[VolumeId, ...]
    #: Digests that inference has no volume of any more; None before it was asked.
    erased_digests: tuple[Digest, ...] | None = None
    #: Snapshots that have learnt from them, as the trainer says; None before it was asked.
    snapshot_digests: tuple[Digest, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Purge:
    """The erasure of the cases of one patient."""

    purge_id: PurgeId
    project_id: ProjectId
    state: PurgeState = PurgeState.ERASING
    #: Reason in the words of the caller.
    reason: str
    case_ids: tuple[CaseId, ...]
    submissions: int
    volumes: int = 0
    objects: int = 0
    marked_model_version_ids: tuple[ModelVersionId, ...] = ()
    #: Reason why it has not ended yet.
    waiting_for: str = ""
    request_time: datetime
    end_time: datetime | None = None
    #: Work that is left; None once it is done.
    work: PurgeWork | None = None


def without(snapshot: Snapshot, case_ids: Collection[CaseId], image_digests: Collection[Digest]) -> Snapshot:
    """The snapshot without these cases, and without their images under whatever other case or seed they come."""

    def stays(example: Example) -> bool:
        return example.case_id not in case_ids and example.image_digest not in image_digests

    training = tuple(example for example in snapshot.training if stays(example))
    heldout = tuple(example for example in snapshot.heldout if stays(example))
    return Snapshot(digest=snapshot_digest(training, heldout), training=training, heldout=heldout)


def begin_again(round: Round, snapshot: Snapshot) -> Round:
    """A round whose run trains on what was erased: another run on the rest, or none where no label is left."""
    again = replace(round, snapshot_digest=snapshot.digest, reason="")
    if round.run is not None:
        again = replace(again, run=None, run_retries=round.run_retries + 1)
    if any(example.source == ExampleSource.TARGET for example in snapshot.training):
        return again
    nothing = PromotionDecision(
        promoted=False, reason="the labels of the round were erased", basis=DecisionBasis.PREQUENTIAL
    )
    return replace(again, decision=nothing)


def is_training(round: Round) -> bool:
    """Whether its labels are yet to be learnt from, by a run that has not succeeded."""
    return round.state == RoundState.TRAINING and (round.run is None or round.run.state != RunState.SUCCEEDED)
