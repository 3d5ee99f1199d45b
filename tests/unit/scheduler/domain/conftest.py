"""Builders of records with everything filled in that a test does not speak of."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from rekindle.vocabulary import (
    CaseMetrics,
    Modality,
    OrganEffort,
    OrganMetrics,
    OrganQuality,
    OrganState,
    OrganStatus,
    TimeKind,
    TimeSegment,
    TimeSource,
)
from rekindle_scheduler.domain.cases import Case, CoarseLabel
from rekindle_scheduler.domain.enums import CaseState, ProjectState, RoundState
from rekindle_scheduler.domain.policy import Policy
from rekindle_scheduler.domain.records import Lease, Project, Round, Submission

NOON = datetime(2026, 3, 2, 12, 0, tzinfo=UTC)
PROJECT_ID = "6f9619ff-8b86-4d01-b42d-00cf4fc964ff"


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def make_project(**changes: Any) -> Project:
    values: dict[str, Any] = {
        "project_id": PROJECT_ID,
        "display_name": "abdomen",
        "organs": (),
        "target_modality": Modality.CT,
        "policy": Policy(),
        "state": ProjectState.ACTIVE,
        "create_time": NOON,
    }
    return Project(**(values | changes))


def make_coarse(minutes: float, confidences: tuple[float | None, ...] = ()) -> CoarseLabel:
    return CoarseLabel(
        mask_volume_id="mask",
        mask_digest=sha("mask"),
        model_version_id="v1",
        predicted_minutes=minutes,
        quality=tuple(OrganQuality(organ_id=f"organ{i}", soft_dice_confidence=c) for i, c in enumerate(confidences)),
    )


def make_case(sequence: int, minutes: float | None = 5.0, **changes: Any) -> Case:
    values: dict[str, Any] = {
        "case_id": f"case{sequence}",
        "project_id": PROJECT_ID,
        "volume_id": f"volume{sequence}",
        "image_digest": sha(f"image{sequence}"),
        "sequence": sequence,
        "state": CaseState.READY if minutes is not None else CaseState.REGISTERED,
        "coarse_label": make_coarse(minutes) if minutes is not None else None,
        "register_time": NOON,
    }
    return Case(**(values | changes))


def make_lease(**changes: Any) -> Lease:
    values: dict[str, Any] = {
        "lease_id": "lease1",
        "project_id": PROJECT_ID,
        "case_id": "case1",
        "fencing_token": 1,
        "annotator_id": "ann",
        "start_time": NOON,
        "expire_time": NOON + timedelta(hours=4),
        "round": 1,
    }
    return Lease(**(values | changes))


def make_round(number: int, state: RoundState, **changes: Any) -> Round:
    values: dict[str, Any] = {
        "project_id": PROJECT_ID,
        "number": number,
        "state": state,
        "start_time": NOON,
    }
    return Round(**(values | changes))


def make_segment(
    start_minute: float, seconds: float, source: TimeSource = TimeSource.MEASURED, **changes: Any
) -> TimeSegment:
    values: dict[str, Any] = {
        "kind": TimeKind.EDITING,
        "source": source,
        "start_time": NOON + timedelta(minutes=start_minute),
        "active_seconds": seconds,
    }
    return TimeSegment(**(values | changes))


def make_submission(case_id: str = "case1", dice: dict[str, float | None] | None = None, **changes: Any) -> Submission:
    organs = dice or {}
    values: dict[str, Any] = {
        "submission_id": f"submission-{case_id}",
        "project_id": PROJECT_ID,
        "case_id": case_id,
        "round": 1,
        "annotator_id": "ann",
        "mask_volume_id": "mask",
        "mask_digest": sha(f"mask-{case_id}"),
        "receipt_id": "receipt",
        "organ_states": tuple(OrganState(organ_id=o, status=OrganStatus.EDITED) for o in organs),
        "effort": tuple(
            OrganEffort(organ_id=o, voxels_changed=1, added_path_length_mm=1.0, dice=d) for o, d in organs.items()
        ),
        "create_time": NOON,
    }
    return Submission(**(values | changes))


def make_metrics(image: str, **organs: float | None) -> CaseMetrics:
    """Dice per organ; 0 means that nothing was predicted, None that nothing was there either."""
    return CaseMetrics(
        image_digest=sha(image),
        organs=tuple(OrganMetrics(organ_id=o, dice=d, predicted_ml=100.0 if d else 0.0) for o, d in organs.items()),
    )


@pytest.fixture(scope="session")
def make() -> SimpleNamespace:
    """All builders under one name."""
    builders: dict[str, Callable[..., Any] | datetime | str] = {
        "project": make_project,
        "coarse": make_coarse,
        "case": make_case,
        "lease": make_lease,
        "round": make_round,
        "segment": make_segment,
        "submission": make_submission,
        "metrics": make_metrics,
        "sha": sha,
        "noon": NOON,
        "project_id": PROJECT_ID,
    }
    return SimpleNamespace(**builders)
