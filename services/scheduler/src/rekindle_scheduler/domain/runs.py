"""Training runs as the scheduler sees them: state, result, evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field

from rekindle_scheduler.domain.enums import Modality, RunState
from rekindle_scheduler.domain.ids import Digest, RunId


@dataclass(frozen=True, kw_only=True)
class OrganMetrics:
    """One organ of one case on the native grid; None where not defined."""

    organ_id: str
    dice: float | None
    hd95_mm: float | None = None
    volume_error_ml: float | None = None
    predicted_ml: float = 0.0


@dataclass(frozen=True, kw_only=True)
class CaseMetrics:
    """How one case came out in a run's evaluation."""

    image_digest: Digest
    case_id: str = ""
    organs: tuple[OrganMetrics, ...]


@dataclass(frozen=True, kw_only=True)
class RunPackage:
    """A model package of a finished run, for one modality."""

    modality: Modality
    package_digest: Digest


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """What a finished run has to show."""

    packages: tuple[RunPackage, ...]
    weights_digest: Digest
    candidate: tuple[CaseMetrics, ...] = ()
    current: tuple[CaseMetrics, ...] = ()
    training_check: tuple[CaseMetrics, ...] = ()
    train_seconds: float = 0.0
    epochs: int = 0
    final_loss: float = 0.0


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A run as the scheduler last saw it."""

    run_id: RunId
    state: RunState
    #: Why it is queued, was preempted or has failed, in words.
    reason: str = ""
    result: RunResult | None = None
    #: Of the project's limits that the trainer goes by; 0 for none. Asked for anew each time, so never stored.
    limits_version: int = field(default=0, compare=False, metadata={"stored": False})
