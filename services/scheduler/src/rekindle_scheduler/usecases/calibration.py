"""Real minutes against predicted ones, from the labels so far."""

from __future__ import annotations

from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.minutes import active_minutes, calibration_factor
from rekindle_scheduler.state import UnitOfWork


def minutes_factor(uow: UnitOfWork, project_id: ProjectId) -> float:
    """Real minutes per predicted minute so far.

    Corrections of labels are left out: their minutes are not those of correcting a coarse label.
    """
    corrected = uow.predictions.corrected(project_id)
    return calibration_factor((label.predicted_minutes, active_minutes(segments)) for label, segments in corrected)
