"""RunResult: what a run ended with, read from the object that its process wrote last."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

from rekindle_trainer.domain.spec import RunSpec

_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadResult(Exception):
    """The process left a result that cannot be used; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganMetrics:
    """One organ of one case on the native grid; None where not defined."""

    organ_id: str
    dice: float | None
    hd95_mm: float | None
    volume_error_ml: float | None
    predicted_ml: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseMetrics:
    """One case, by content and by id."""

    image_digest: str
    case_id: str
    organs: tuple[OrganMetrics, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPackage:
    """A package that the run produced for one modality."""

    modality: str
    package_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """Weights, packages and measurements of a run that succeeded."""

    weights_digest: str
    packages: tuple[RunPackage, ...]
    candidate: tuple[CaseMetrics, ...]
    current: tuple[CaseMetrics, ...]
    #: The candidate on a few of its own training cases.
    training_check: tuple[CaseMetrics, ...]
    train_seconds: float
    epochs: int
    #: None where the process took no step of its own.
    final_loss: float | None

    def object_keys(self) -> list[str]:
        """Objects that must be there before the result may be believed."""
        packages = [
            f"packages/{package.package_digest}/{name}"
            for package in self.packages
            for name in ("manifest.json", "model.onnx")
        ]
        return [f"weights/{self.weights_digest}", *packages]


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
    if not all(_DIGEST.fullmatch(digest) for digest in digests):
        raise BadResult("the result names objects by something that is no SHA-256 digest")
    if spec.modality not in {package.modality for package in result.packages}:
        raise BadResult(f"the result has no package for {spec.modality}, the target's modality")
    return result


def _result(raw: dict[str, Any]) -> RunResult:
    final_loss = raw["final_loss"]
    return RunResult(
        weights_digest=str(raw["weights_digest"]),
        packages=tuple(
            RunPackage(modality=str(item["modality"]), package_digest=str(item["package_digest"]))
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
            image_digest=str(item["image_digest"]),
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
