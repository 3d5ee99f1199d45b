"""The next thing to do for a project, as values; each is one idempotent action of the reconciler."""

from __future__ import annotations

from dataclasses import dataclass

from rekindle.vocabulary import RunKind

from rekindle_scheduler.domain.enums import RoundState
from rekindle_scheduler.domain.ids import ModelVersionId, RunId


@dataclass(frozen=True, kw_only=True)
class StartRun:
    """Have the trainer start this round's run and remember it on the round."""

    round: int
    run_id: RunId
    kind: RunKind


@dataclass(frozen=True, kw_only=True)
class PollRun:
    """Ask the trainer how the run is and keep the answer, with its result, on the round."""

    round: int
    run_id: RunId


@dataclass(frozen=True, kw_only=True)
class AdvanceRound:
    """Move the round from one state to the next; nothing happens when it is no longer in `from_state`."""

    round: int
    from_state: RoundState
    to_state: RoundState


@dataclass(frozen=True, kw_only=True)
class RegisterCandidate:
    """Register the run's package for the target modality as a model version and remember it on the round."""

    round: int


@dataclass(frozen=True, kw_only=True)
class DecidePromotion:
    """Compare candidate and serving version and keep the decision on the round."""

    round: int


@dataclass(frozen=True, kw_only=True)
class Activate:
    """Move the serving pointer to a promoted candidate, compare-and-set."""

    round: int
    model_version_id: ModelVersionId
    expected_current: ModelVersionId | None


@dataclass(frozen=True, kw_only=True)
class CheckServing:
    """Judge the version that served in this round by the round's submissions and keep the verdict on it."""

    round: int


@dataclass(frozen=True, kw_only=True)
class RollBack:
    """Move the serving pointer back to the version before, compare-and-set."""

    round: int
    model_version_id: ModelVersionId
    expected_current: ModelVersionId | None


@dataclass(frozen=True, kw_only=True)
class EnqueuePredictions:
    """Write a task for every open case that has none of this version; pending ones of others are skipped."""

    model_version_id: ModelVersionId


@dataclass(frozen=True, kw_only=True)
class PredictBatch:
    """Claim the next few pending tasks of this version, the pool's first, and have them predicted."""

    model_version_id: ModelVersionId


@dataclass(frozen=True, kw_only=True)
class OpenRound:
    """Create this round, SELECTING; the project becomes (or stays) ACTIVE."""

    round: int


@dataclass(frozen=True, kw_only=True)
class OpenSelection:
    """Select the round's cases, once, and move it to ANNOTATING. The selection may be empty."""

    round: int


@dataclass(frozen=True, kw_only=True)
class CutSnapshot:
    """Freeze the labels and move the round to TRAINING; open the next round in the same transaction
    when `open_next` says so, so that later submissions have a round to count for."""

    round: int
    open_next: bool


@dataclass(frozen=True, kw_only=True)
class SkipTraining:
    """Close the round without a run, with a decision that keeps the serving version and says why."""

    round: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class CloseRound:
    """The round is over: write down what serves. Closing round 0 makes the project ACTIVE."""

    round: int


@dataclass(frozen=True, kw_only=True)
class CompleteProject:
    """Everything is labelled and every round is closed."""


@dataclass(frozen=True, kw_only=True)
class Stall:
    """A person has to look at it: set the project STALLED with this reason."""

    round: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Wait:
    """Nothing to do until a person or another service acts."""

    reason: str


Step = (
    StartRun
    | PollRun
    | AdvanceRound
    | RegisterCandidate
    | DecidePromotion
    | Activate
    | CheckServing
    | RollBack
    | EnqueuePredictions
    | PredictBatch
    | OpenRound
    | OpenSelection
    | CutSnapshot
    | SkipTraining
    | CloseRound
    | CompleteProject
    | Stall
    | Wait
)
