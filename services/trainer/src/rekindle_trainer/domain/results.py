"""RunResult: what a run ended with, read from the object that its process wrote last."""

from __future__ import annotations

import json
from typing import Any

from rekindle.vocabulary import CaseMetrics, Digest, Modality, OrganMetrics, RunPackage, RunResult, is_sha256

from rekindle_trainer.domain.spec import RunSpec


class BadResult(Exception):
    """The process left a result that cannot be used; the message says why."""


def parse_result(data: bytes, spec: RunSpec) -> RunResult:
    """The result of a run with this spec; BadResult where it is malformed or belongs to another snapshot."""
    try:
        raw = json.loads(data)
        result = _result(raw)
        snapshot_digest = raw["snapshot_digest"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadResult(f"the result cannot be read ({type(error).__name__})") from None
    if snapshot_digest != spec.snapshot_digest():
        raise BadResult("the result belongs to another snapshot")
    digests = [result.weights_digest, *(package.package_digest for package in result.packages)]
    if not all(is_sha256(digest) for digest in digests):
        raise BadResult("the result names objects by something that is no SHA-256 digest")
    if spec.modality not in {package.modality for package in result.packages}:
        raise BadResult(f"the result has no package for {spec.modality}, the target's modality")
    return result


def _result(raw: dict[str, Any]) -> RunResult:
    final_loss = raw["final_loss"]
    return RunResult(
        weights_digest=Digest(str(raw["weights_digest"])),
        packages=tuple(
            RunPackage(modality=Modality(item["modality"]), package_digest=Digest(str(item["package_digest"])))
            for item in raw["packages"]
        ),
        candidate=_cases(raw["evaluation"]["candidate"]),
        current=_cases(raw["evaluation"]["current"]),
        training_check=_cases(raw["training_check"]),
        train_seconds=float(raw["train_seconds"]),
        epochs=int(raw["epochs"]),
        final_loss=None if final_loss is None else float(final_loss),
    )


def _cases(raw: list[dict[str, Any]]) -> tuple[CaseMetrics, ...]:
    return tuple(
        CaseMetrics(
            image_digest=Digest(str(item["image_digest"])),
            case_id=str(item["case_id"]),
            organs=tuple(_organ(organ_id, values) for organ_id, values in item["organs"].items()),
        )
        for item in raw
    )


def _organ(organ_id: str, values: dict[str, Any]) -> OrganMetrics:
    def optional(key: str) -> float | None:
        return None if values[key] is None else float(values[key])

    return OrganMetrics(
        organ_id=organ_id,
        dice=optional("dice"),
        hd95_mm=optional("hd95_mm"),
        volume_error_ml=optional("volume_error_ml"),
        predicted_ml=optional("predicted_ml") or 0.0,
    )
