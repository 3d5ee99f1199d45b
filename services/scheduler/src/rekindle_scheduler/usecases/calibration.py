"""Real minutes against predicted ones, from the labels so far."""

from __future__ import annotations

from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.minutes import active_minutes, calibration_factor
from rekindle_scheduler.ports import UnitOfWork


def minutes_factor(uow: UnitOfWork, project_id: ProjectId) -> float:
    """Real minutes per predicted minute so far.

    Corrections of labels are left out: their minutes are not those of correcting a coarse label.
    """
    labels = uow.predictions.labels(project_id)
    pairs: list[tuple[float, float]] = []
    for submission in uow.submissions.counting(project_id):
        version = submission.coarse_model_version_id
        is_first = submission.supersedes_submission_id is None
        label = labels.get((submission.case_id, version)) if version is not None and is_first else None
        if label is not None:
            pairs.append((label.predicted_minutes, active_minutes(submission.time_segments)))
    return calibration_factor(pairs)
