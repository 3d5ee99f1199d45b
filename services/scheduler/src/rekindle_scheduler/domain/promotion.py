"""Whether a candidate serves, per organ: by held-out cases, or prequentially while those are too few."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Final

from rekindle.vocabulary import CaseMetrics, OrganMetrics, OrganStatus, RunResult

from rekindle_scheduler.domain.enums import DecisionBasis
from rekindle_scheduler.domain.ids import ModelVersionId
from rekindle_scheduler.domain.policy import PromotionPolicy
from rekindle_scheduler.domain.records import OrganComparison, PromotionDecision, RollBackDecision, Submission
from rekindle_scheduler.domain.text import counted

#: Number of cases per organ below which no version is taken out of service.
MIN_ROLL_BACK_CASES: Final = 3


def decide_promotion(
    policy: PromotionPolicy,
    *,
    organs: Sequence[str],
    current: ModelVersionId | None,
    result: RunResult | None,
    prequential: Iterable[Submission] = (),
) -> PromotionDecision:
    """The decision on a finished run's candidate.

    `current` is what serves, None before the first version; `result` the run's, None for an imported one.
    `prequential` are the accepted submissions that started from coarse labels of `current`.
    """
    if current is None or result is None:
        return PromotionDecision(
            promoted=True,
            reason="the first model: there is none to compare it with",
            basis=DecisionBasis.FIRST,
        )
    pairs = _paired(result.candidate, result.current)
    if len(pairs) >= policy.min_held_out_cases:
        return _by_held_out(policy.margin_dice, organs, pairs)
    return _by_prequential(policy, organs, result.training_check, list(prequential), len(pairs))


def decide_roll_back(
    policy: PromotionPolicy,
    *,
    organs: Sequence[str],
    predecessor: ModelVersionId | None,
    served: Iterable[Submission],
    before: Iterable[Submission],
) -> RollBackDecision:
    """Whether a version promoted on prequential Dice gives way to its predecessor after a round of service.

    `served` are the accepted submissions that started from its coarse labels, `before` those that started
    from the predecessor's. Dice of coarse label against submission, per organ, from three cases each on.
    """
    now_dice, before_dice = coarse_dice(served), coarse_dice(before)
    compared: list[_Organ] = []
    for organ_id in organs:
        now, then = now_dice.get(organ_id, []), before_dice.get(organ_id, [])
        if min(len(now), len(then)) >= MIN_ROLL_BACK_CASES:
            compared.append(_Organ(organ_id, fmean(now), fmean(then), len(now)))
    worse = [organ for organ in compared if organ.falls_below(policy.margin_dice)]
    comparisons = tuple(organ.comparison() for organ in compared)
    if predecessor is None or not worse:
        reason = _sentence(compared) or "too few cases to judge the version that serves"
        return RollBackDecision(roll_back=False, reason=reason, organs=comparisons)
    reason = "; ".join(
        f"{organ.change()} in coarse labels as corrected ({counted(organ.cases, 'case')}): "
        f"worse than the margin of {policy.margin_dice:g}"
        for organ in worse
    )
    return RollBackDecision(roll_back=True, reason=reason, to_model_version_id=predecessor, organs=comparisons)


def coarse_dice(submissions: Iterable[Submission]) -> dict[str, list[float]]:
    """Dice of the coarse label against the correction by organ, of the organs that were reviewed."""
    values: defaultdict[str, list[float]] = defaultdict(list)
    for submission in submissions:
        skipped = {s.organ_id for s in submission.organ_states if s.status == OrganStatus.NOT_REVIEWED}
        for effort in submission.effort:
            if effort.dice is not None and effort.organ_id not in skipped:
                values[effort.organ_id].append(effort.dice)
    return dict(values)


@dataclass(frozen=True)
class _Organ:
    """One organ's two means, None where no case defines them."""

    organ_id: str
    candidate: float | None
    current: float | None
    cases: int

    def falls_below(self, margin: float) -> bool:
        if self.candidate is None or self.current is None:
            return False
        # A fall of exactly the margin is allowed; floats must not decide that.
        return self.candidate < self.current - margin - 1e-9

    def change(self) -> str:
        return f"{self.organ_id} {_figure(self.current)} -> {_figure(self.candidate)}"

    def comparison(self) -> OrganComparison:
        return OrganComparison(
            organ_id=self.organ_id,
            candidate_dice=self.candidate,
            current_dice=self.current,
            cases=self.cases,
        )


_Pair = tuple[CaseMetrics, CaseMetrics]


def _by_held_out(margin: float, organs: Sequence[str], pairs: Sequence[_Pair]) -> PromotionDecision:
    compared = [_compare(organ_id, pairs) for organ_id in organs]
    faults: list[str] = []
    for organ in compared:
        if organ.falls_below(margin):
            where = f"on {counted(organ.cases, 'held-out case')}"
            faults.append(f"{organ.change()} {where}: worse than the margin of {margin:g}")
        lost, cases = _lost_cases(organ.organ_id, pairs)
        if 2 * lost > cases:
            faults.append(f"{organ.organ_id} is lost altogether in {lost} of {cases} held-out cases")
    comparisons = tuple(organ.comparison() for organ in compared)
    if faults:
        return _decision(False, "; ".join(faults), DecisionBasis.HELD_OUT, comparisons)
    reason = f"not worse on {counted(len(pairs), 'held-out case')}: {_sentence(compared) or 'no organ to compare'}"
    return _decision(True, reason, DecisionBasis.HELD_OUT, comparisons)


def _by_prequential(
    policy: PromotionPolicy,
    organs: Sequence[str],
    training_check: Sequence[CaseMetrics],
    prequential: Sequence[Submission],
    held_out: int,
) -> PromotionDecision:
    """A candidate that does not even fit its training cases as well as the coarse labels has collapsed."""
    served = coarse_dice(prequential)
    compared: list[_Organ] = []
    faults: list[str] = []
    for organ_id in organs:
        fitted = [m.dice for m in _of_organ(organ_id, training_check) if m.dice is not None]
        corrected = served.get(organ_id, [])
        organ = _Organ(organ_id, _mean(fitted), _mean(corrected), len(corrected))
        compared.append(organ)
        if organ.falls_below(policy.margin_dice):
            faults.append(
                f"{organ_id} {_figure(organ.candidate)} on its own training cases, "
                f"below the {_figure(organ.current)} of the coarse labels: "
                f"worse than the margin of {policy.margin_dice:g}"
            )
        lost = sum(_is_lost(m) for m in _of_organ(organ_id, training_check))
        if 2 * lost > len(fitted):
            faults.append(f"{organ_id} is lost altogether in {lost} of {len(fitted)} training cases")
    comparisons = tuple(organ.comparison() for organ in compared)
    few = f"{held_out} held-out cases are labelled, {policy.min_held_out_cases} are needed to judge by them"
    if faults:
        return _decision(False, f"{'; '.join(faults)} ({few})", DecisionBasis.PREQUENTIAL, comparisons)
    reason = f"{few}, so judged on its training cases: {_sentence(compared) or 'no organ to compare'}"
    return _decision(True, reason, DecisionBasis.PREQUENTIAL, comparisons)


def _decision(
    promoted: bool, reason: str, basis: DecisionBasis, organs: tuple[OrganComparison, ...]
) -> PromotionDecision:
    return PromotionDecision(promoted=promoted, reason=reason, basis=basis, organs=organs)


def _paired(candidate: Iterable[CaseMetrics], current: Iterable[CaseMetrics]) -> list[_Pair]:
    served = {metrics.image_digest: metrics for metrics in current}
    return [(m, served[m.image_digest]) for m in candidate if m.image_digest in served]


def _compare(organ_id: str, pairs: Sequence[_Pair]) -> _Organ:
    """Means over the cases where both Dice are defined."""
    both = [
        (new.dice, old.dice)
        for new, old in _organ_pairs(organ_id, pairs)
        if new.dice is not None and old.dice is not None
    ]
    return _Organ(organ_id, _mean([new for new, _ in both]), _mean([old for _, old in both]), len(both))


def _lost_cases(organ_id: str, pairs: Sequence[_Pair]) -> tuple[int, int]:
    """Of the cases where the current version finds the organ, how many the candidate leaves empty."""
    cases = [new for new, old in _organ_pairs(organ_id, pairs) if old.dice]
    return sum(_is_lost(new) for new in cases), len(cases)


def _is_lost(metrics: OrganMetrics) -> bool:
    """Nothing is predicted though the organ is there: with an empty truth too, Dice would be undefined."""
    return metrics.dice is not None and metrics.predicted_ml <= 0.0


def _organ_pairs(organ_id: str, pairs: Sequence[_Pair]) -> list[tuple[OrganMetrics, OrganMetrics]]:
    return [
        (new, old)
        for first, second in pairs
        for new in _of_organ(organ_id, [first])
        for old in _of_organ(organ_id, [second])
    ]


def _of_organ(organ_id: str, cases: Iterable[CaseMetrics]) -> list[OrganMetrics]:
    return [metrics for case in cases for metrics in case.organs if metrics.organ_id == organ_id]


def _sentence(organs: Iterable[_Organ]) -> str:
    return ", ".join(organ.change() for organ in organs if organ.candidate is not None)


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _figure(dice: float | None) -> str:
    return "not measured" if dice is None else f"{dice:.2f}"
