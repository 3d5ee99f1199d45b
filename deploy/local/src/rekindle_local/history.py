"""What a campaign did, told by content alone: to be compared with the same campaign on other servers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rekindle.errors import InternalError, InvalidInput, NotFound

from rekindle_local.campaign import Campaign

#: Beside the report.
FILE = "history.json"


def history_of(campaign: Campaign, options: Mapping[str, Any]) -> dict[str, Any]:
    """Rounds, snapshots, packages and coarse labels by digest, cases by the name of their file.

    Nothing in it depends on ids or clocks. `options` says which campaign it was.
    """
    project = campaign.project
    models = {model.id: model for model in project.models()}
    names = {case_id: pair.name for case_id, pair in campaign.pairs.items()}
    package = {"": None, **{model.id: model.package_digest for model in models.values()}}
    rounds = [
        {
            "number": item.number,
            "cases": sorted(names[case_id] for case_id in item.selected_case_ids),
            "labelled": item.labelled_total,
            "candidate": package[item.candidate_model_version_id],
            "snapshot": _snapshot(item.candidate_model_version_id, models),
            "promoted": item.promoted,
            "serving": package[item.serving_model_version_id],
        }
        for item in project.rounds()
    ]
    coarse = {
        names[case.case_id]: {"model": package[case.model_version_id], "mask": _mask_digest(campaign, case)}
        for case in campaign.labelled
    }
    return {"options": dict(options), "rounds": rounds, "coarse_labels": coarse}


def _snapshot(version: str, models: Mapping[str, Any]) -> str | None:
    return models[version].snapshot_digest if version else None


def _mask_digest(campaign: Campaign, case: Any) -> str | None:
    """Digest of the coarse label that a case was corrected from; None if it was drawn from nothing."""
    if not case.model_version_id:
        return None
    volume_id = next(item.volume_id for item in campaign.project.cases() if item.id == case.case_id)
    for answer in campaign.project.predict([volume_id], model_version_id=case.model_version_id):
        if answer.prediction:
            return answer.prediction.mask_digest
        raise InternalError(f"a coarse label cannot be found again: {answer.failure and answer.failure.message}")
    raise InternalError("a coarse label cannot be found again")


def write_history(history: Mapping[str, Any], folder: Path) -> None:
    (folder / FILE).write_text(json.dumps(history, indent=1, sort_keys=True) + "\n")


def read_history(folder: Path) -> dict[str, Any]:
    """NotFound, InvalidInput."""
    path = folder / FILE
    if not path.exists():
        raise NotFound(f"{folder} holds no {FILE}: run the campaign to compare with first")
    try:
        return json.loads(path.read_text())
    except ValueError:
        raise InvalidInput(f"{path} is no history of a campaign") from None


def differences(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """In words, what two campaigns did otherwise; nothing where they did the same."""
    if one["options"] != other["options"]:
        return [f"they are different campaigns: {one['options']} and {other['options']}"]
    found: list[str] = []
    if len(one["rounds"]) != len(other["rounds"]):
        found.append(f"{len(one['rounds'])} rounds and {len(other['rounds'])}")
    for first, second in zip(one["rounds"], other["rounds"], strict=False):
        keys = [key for key in first if first[key] != second[key]]
        if keys:
            found.append(f"round {first['number']}: {', '.join(keys)}")
    labels, others = one["coarse_labels"], other["coarse_labels"]
    changed = sorted(name for name in labels.keys() | others.keys() if labels.get(name) != others.get(name))
    if changed:
        found.append(f"coarse labels of {', '.join(changed)}")
    return found
