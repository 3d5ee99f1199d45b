"""What a campaign's report says: the records behind `report.json`. All minutes are simulated minutes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: organ -> value, with the mean over organs under "mean" where the name says Dice; None where not defined
Scores = Mapping[str, float | None]


@dataclass(frozen=True, kw_only=True)
class RoundRow:
    """One round: row 0 is the igniter, row k has the cases corrected in round k."""

    round: int
    #: kind of the network that serves after the round: igniter or sustainer
    model: str
    #: name of the model version that serves after the round
    version: str
    #: whether the candidate of this round was promoted
    promoted: bool
    #: number of cases corrected in this round
    cases: int
    #: number of cases corrected in all rounds so far, without the held-out ones
    labelled_total: int
    minutes: float
    #: None when the round has no cases
    minutes_per_case: float | None
    #: held-out Dice of the version that serves after the round: organs and "mean"
    dice: Scores
    #: held-out 95th percentile Hausdorff distance of the same version, per organ
    hd95_mm: Scores
    #: held-out Dice of the network trained in this round, promoted or not; empty when none was trained
    candidate_dice: Scores
    train_seconds: float


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """What the campaign is compared with."""

    #: held-out Dice of intensity threshold and largest component: organs and "mean"
    threshold_dice: Scores
    #: all labelled cases, the held-out ones too, with the igniter's coarse labels only
    minutes_no_update: float
    #: the same cases with no coarse labels
    minutes_from_nothing: float


@dataclass(frozen=True, kw_only=True)
class Retrospective:
    """One version on the last round's cases, which it did not train on."""

    round: int
    model: str
    version: str
    cases: int
    dice: Scores
    hd95_mm: Scores


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """Minutes spent; `minutes_total` = `minutes_heldout` + the rounds' minutes."""

    minutes_total: float
    minutes_heldout: float
    minutes_per_case_first: float
    minutes_per_case_last: float
    #: number of labelled cases with the held-out ones
    cases: int


@dataclass(frozen=True, kw_only=True)
class CaseDetail:
    """One labelled case."""

    case: str
    #: round in which it was corrected; None for held-out cases
    round: int | None
    heldout: bool
    #: model version whose coarse label the annotator started from
    version: str
    minutes: float
    reading_minutes: float
    editing_minutes: float
    #: what the ordering expected when it chose the case; None where it had no say
    predicted_minutes: float | None
    #: Dice of the coarse label against the corrected one: organs and "mean"
    dice: Scores


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """A candidate that was not promoted, and why."""

    round: int
    model: str
    reason: str
    candidate_dice: Scores


@dataclass(frozen=True, kw_only=True)
class TimeModelCost:
    """The whole campaign costed under one model of the annotator's time."""

    name: str
    description: str
    minutes_total: float
    minutes_no_update: float
    minutes_from_nothing: float

    @property
    def saving(self) -> float:
        """Share of the minutes saved against the igniter's labels only."""
        return 1.0 - self.minutes_total / self.minutes_no_update if self.minutes_no_update else 0.0


@dataclass(frozen=True, kw_only=True)
class Report:
    """A finished campaign. Raises ValueError when its numbers contradict each other."""

    organs: tuple[str, ...]
    strategy: str
    seed: int
    preset: str
    #: where the volumes came from, in words or as a path
    data: str
    baseline: Baseline
    rounds: tuple[RoundRow, ...]
    retrospective: tuple[Retrospective, ...]
    ledger: Ledger
    #: extra to what the figures need: per case, per time model, per refused candidate
    cases_detail: tuple[CaseDetail, ...] = ()
    time_models: tuple[TimeModelCost, ...] = ()
    refused: tuple[Refusal, ...] = ()
    recipe: str = ""
    #: wall-clock of the whole campaign
    campaign_seconds: float | None = None
    #: remarks for the reader, such as what the seed set consists of
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.rounds or self.rounds[0].round != 0 or self.rounds[0].cases != 0:
            raise ValueError("a report starts with row 0: the igniter, with no cases")
        spent = self.ledger.minutes_heldout + sum(row.minutes for row in self.rounds)
        if not math.isclose(spent, self.ledger.minutes_total, rel_tol=1e-6, abs_tol=1e-6):
            raise ValueError(
                f"the ledger's total of {self.ledger.minutes_total} minutes is not the sum of the "
                f"held-out cases and the rounds, {spent}"
            )
        for row in self.rounds:
            missing = {*self.organs, "mean"} - set(row.dice)
            if missing:
                raise ValueError(f"round {row.round} has no Dice for {', '.join(sorted(missing))}")

    @property
    def saving(self) -> float:
        """Share of the simulated minutes saved against the igniter's labels only."""
        return 1.0 - self.ledger.minutes_total / self.baseline.minutes_no_update

    @property
    def saving_from_nothing(self) -> float:
        """Share of the simulated minutes saved against drawing every contour."""
        return 1.0 - self.ledger.minutes_total / self.baseline.minutes_from_nothing

    @property
    def heldout_cases(self) -> int:
        """Number of held-out cases."""
        return self.ledger.cases - self.rounds[-1].labelled_total

    def to_dict(self) -> dict[str, Any]:
        """The content of `report.json`: plain dicts, lists, numbers and None (NaN becomes None)."""
        return {key: _plain(value) for key, value in asdict(self).items()}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
