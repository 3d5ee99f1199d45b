"""From a finished campaign to its report: every version on the held-out cases, every minute accounted for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from rekindle.errors import InternalError
from rekindle.models import Model
from rekindle.projects import Project
from rekindle.records import Round
from rekindle_imaging.volume import Volume
from rekindle_trainer.process.evaluation import organ_metrics

from rekindle_local.annotator import ORGANS, TIME_MODELS, Annotator
from rekindle_local.baseline import ThresholdBaseline
from rekindle_local.campaign import Campaign, Labelled, Plan, label_of
from rekindle_local.dataset import DataSet
from rekindle_local.files import read_image, read_label
from rekindle_local.report.model import (
    Baseline,
    CaseDetail,
    Ledger,
    Refusal,
    Report,
    Retrospective,
    RoundRow,
    TimeModelCost,
)
from rekindle_local.report.slices import CaseFigure, Figures

Scores = dict[str, float | None]


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of what is defined; None when nothing is."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


class Masks:
    """Predictions of any version for any labelled case, asked for once and then kept."""

    def __init__(self, campaign: Campaign) -> None:
        self._project = campaign.project
        self._volume_ids = {case.id: case.volume_id for case in campaign.project.cases()}
        self._known: dict[tuple[str, str], Volume] = {}

    def get(self, version: str, cases: Sequence[Labelled]) -> dict[str, Volume]:
        """Label volume by case id. Raises InternalError when a case could not be predicted."""
        missing = [case.case_id for case in cases if (version, case.case_id) not in self._known]
        by_volume = {self._volume_ids[case_id]: case_id for case_id in missing}
        for answer in self._project.predict(by_volume, model_version_id=version) if by_volume else ():
            if answer.prediction is None:
                raise InternalError(f"a case could not be predicted: {answer.failure and answer.failure.message}")
            mask = label_of(self._project.download(answer.prediction.mask_volume_id))
            self._known[version, by_volume[answer.volume_id]] = mask
        return {case.case_id: self._known[version, case.case_id] for case in cases}


class Measured:
    """Dice and HD95 of versions on labelled cases, on the native grid."""

    def __init__(self, masks: Masks, truths: Mapping[str, Volume]) -> None:
        self._masks, self._truths = masks, truths

    def scores(self, version: str, cases: Sequence[Labelled]) -> tuple[Scores, Scores]:
        """(Dice per organ and "mean", HD95 in mm per organ), each the mean over the cases."""
        dice: dict[str, list[float | None]] = {organ: [] for organ in ORGANS}
        hd95: dict[str, list[float | None]] = {organ: [] for organ in ORGANS}
        for case_id, mask in self._masks.get(version, cases).items():
            truth = self._truths[case_id]
            for organ, value in ORGANS.items():
                measured = organ_metrics(mask.voxels == value, truth.voxels == value, truth.geometry)
                dice[organ].append(measured["dice"])
                hd95[organ].append(measured["hd95_mm"])
        means = {organ: mean(values) for organ, values in dice.items()}
        return {**means, "mean": mean(means.values())}, {organ: mean(values) for organ, values in hd95.items()}


def report_of(
    campaign: Campaign,
    data: DataSet,
    plan: Plan,
    *,
    description: str,
    campaign_seconds: float,
    notes: tuple[str, ...],
) -> tuple[Report, Figures]:
    """The report of a complete campaign, and the slices that its figure shows."""
    project = campaign.project
    truths = {case.case_id: read_label(case.pair.label) for case in campaign.labelled}
    masks = Masks(campaign)
    measured = Measured(masks, truths)
    models = {model.id: model for model in project.models()}
    rounds = [item for item in project.rounds() if item.number == 0 or item.run_id]
    held_out = [case for case in campaign.labelled if case.held_out]
    rows = [_row(project, item, campaign, models, measured, held_out) for item in rounds]
    igniter = rounds[0].serving_model_version_id
    costs = [_cost(model, campaign, plan.seed, masks, truths, igniter) for model in TIME_MODELS]
    report = Report(
        organs=tuple(ORGANS),
        strategy=plan.strategy,
        seed=plan.seed,
        preset=plan.preset,
        recipe=plan.recipe,
        data=description,
        baseline=Baseline(
            threshold_dice=_threshold_dice(data, held_out),
            minutes_no_update=costs[0].minutes_no_update,
            minutes_from_nothing=costs[0].minutes_from_nothing,
        ),
        rounds=tuple(rows),
        retrospective=_retrospective(rounds, campaign, models, measured),
        ledger=_ledger(project, rows, campaign),
        cases_detail=tuple(_case_detail(case, models, masks, truths) for case in campaign.labelled),
        time_models=tuple(costs),
        refused=tuple(_refusals(rounds, rows, models)),
        campaign_seconds=campaign_seconds,
        notes=notes,
    )
    return report, _figures(rounds, campaign, models, masks, truths, held_out)


def _row(
    project: Project,
    item: Round,
    campaign: Campaign,
    models: Mapping[str, Model],
    measured: Measured,
    held_out: Sequence[Labelled],
) -> RoundRow:
    cases = [case for case in campaign.labelled if case.round == item.number and not case.held_out]
    before = [case for case in campaign.labelled if case.round <= item.number and not case.held_out]
    minutes = sum(case.minutes.total for case in cases)
    serving = models[item.serving_model_version_id]
    dice, hd95 = measured.scores(serving.id, held_out)
    candidate: Scores = {}
    if item.candidate_model_version_id:
        candidate, _ = measured.scores(item.candidate_model_version_id, held_out)
    return RoundRow(
        round=item.number,
        model=serving.role,
        version=version_name(serving),
        promoted=bool(item.promoted),
        cases=len(cases),
        labelled_total=len(before),
        minutes=minutes,
        minutes_per_case=minutes / len(cases) if cases else None,
        dice=dice,
        hd95_mm=hd95,
        candidate_dice=candidate,
        train_seconds=project.run(item.run_id).train_seconds if item.run_id else 0.0,
    )


def version_name(model: Model) -> str:
    """How a version is called in the report."""
    return f"{model.role} v{model.version}"


def _retrospective(
    rounds: Sequence[Round], campaign: Campaign, models: Mapping[str, Model], measured: Measured
) -> tuple[Retrospective, ...]:
    """Every version that did not train on them, on the last round's cases: the paper's test set."""
    trained = [item for item in rounds if item.number > 0]
    if not trained:
        return ()
    last = trained[-1].number
    cases = [case for case in campaign.labelled if case.round == last and not case.held_out]
    rows: list[Retrospective] = []
    for item in rounds:
        version = item.candidate_model_version_id or item.serving_model_version_id
        if item.number < last and cases:
            dice, hd95 = measured.scores(version, cases)
            rows.append(
                Retrospective(
                    round=item.number,
                    model=models[version].role,
                    version=version_name(models[version]),
                    cases=len(cases),
                    dice=dice,
                    hd95_mm=hd95,
                )
            )
    return tuple(rows)


def _ledger(project: Project, rows: Sequence[RoundRow], campaign: Campaign) -> Ledger:
    """Totals from the scheduler's ledger, which must agree with what the annotator spent."""
    ledger = project.report().ledger
    spent = sum(case.minutes.total for case in campaign.labelled)
    if abs(ledger.minutes_total - spent) > 1e-3 * max(spent, 1.0):
        raise InternalError(f"the ledger has {ledger.minutes_total:.3f} minutes, the annotator spent {spent:.3f}")
    per_case = [row.minutes_per_case for row in rows if row.minutes_per_case is not None]
    held_out = sum(case.minutes.total for case in campaign.labelled if case.held_out)
    return Ledger(
        minutes_total=held_out + sum(row.minutes for row in rows),
        minutes_heldout=held_out,
        minutes_per_case_first=per_case[0] if per_case else 0.0,
        minutes_per_case_last=per_case[-1] if per_case else 0.0,
        cases=len(campaign.labelled),
    )


def _case_detail(case: Labelled, models: Mapping[str, Model], masks: Masks, truths: Mapping[str, Volume]) -> CaseDetail:
    truth = truths[case.case_id]
    coarse = masks.get(case.model_version_id, [case])[case.case_id]
    dice = {
        organ: organ_metrics(coarse.voxels == value, truth.voxels == value, truth.geometry)["dice"]
        for organ, value in ORGANS.items()
    }
    return CaseDetail(
        case=case.pair.name,
        round=None if case.held_out else case.round,
        heldout=case.held_out,
        version=version_name(models[case.model_version_id]),
        minutes=case.minutes.total,
        reading_minutes=case.minutes.reading_s / 60,
        editing_minutes=sum(case.minutes.editing_s.values()) / 60,
        predicted_minutes=None if case.held_out else case.predicted_minutes,
        dice={**dice, "mean": mean(dice.values())},
    )


def _cost(
    time_model: object,
    campaign: Campaign,
    seed: int,
    masks: Masks,
    truths: Mapping[str, Volume],
    igniter: str,
) -> TimeModelCost:
    """The whole campaign under one model of the annotator's time, and the same campaign without updates."""
    annotator = replace(Annotator(seed), model=time_model)  # type: ignore[arg-type]
    model = annotator.model
    total = no_update = from_nothing = 0.0
    first = masks.get(igniter, campaign.labelled)
    for case in campaign.labelled:
        truth, key = truths[case.case_id], case.pair.name
        used = masks.get(case.model_version_id, [case])[case.case_id]
        total += annotator.minutes(used, truth, key).total
        no_update += annotator.minutes(first[case.case_id], truth, key).total
        from_nothing += annotator.minutes(None, truth, key).total
    return TimeModelCost(
        name=model.name,
        description=model.describe(),
        minutes_total=total,
        minutes_no_update=no_update,
        minutes_from_nothing=from_nothing,
    )


def _threshold_dice(data: DataSet, held_out: Sequence[Labelled]) -> Scores:
    seeds = [(read_image(pair.image), read_label(pair.label)) for pair in data.seed_ct]
    baseline = ThresholdBaseline.fit(seeds, ORGANS)
    return baseline.score((read_image(case.pair.image), read_label(case.pair.label)) for case in held_out)


def _refusals(rounds: Sequence[Round], rows: Sequence[RoundRow], models: Mapping[str, Model]) -> Iterable[Refusal]:
    for item, row in zip(rounds, rows, strict=True):
        if item.promoted is False and item.candidate_model_version_id:
            candidate = models[item.candidate_model_version_id]
            yield Refusal(
                round=item.number,
                model=version_name(candidate),
                reason=item.decision_reason,
                candidate_dice=row.candidate_dice,
            )


def _figures(
    rounds: Sequence[Round],
    campaign: Campaign,
    models: Mapping[str, Model],
    masks: Masks,
    truths: Mapping[str, Volume],
    held_out: Sequence[Labelled],
) -> Figures:
    """Up to three held-out cases under what served after up to four rounds, first and last among them."""
    shown = list(rounds) if len(rounds) <= 4 else [rounds[0], rounds[1], rounds[len(rounds) // 2], rounds[-1]]
    cases = []
    for case in (held_out or campaign.labelled)[:3]:
        predictions = {
            f"after round {item.number}: {version_name(models[item.serving_model_version_id])}": masks.get(
                item.serving_model_version_id, [case]
            )[case.case_id]
            for item in shown
        }
        cases.append(
            CaseFigure(
                case=case.pair.name,
                image=read_image(case.pair.image),
                truth=truths[case.case_id],
                predictions=predictions,
            )
        )
    return Figures(organs=ORGANS, cases=cases)
