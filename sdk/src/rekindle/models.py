"""Model versions of a project."""

from __future__ import annotations

from dataclasses import dataclass, field

from rekindle._call import new_request_id
from rekindle._services import Services
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.convert import from_proto
from rekindle.vocabulary import OrganQuality


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """A mask that a model version predicted for a volume."""

    model_version_id: str
    mask_volume_id: str
    #: SHA-256 of the canonical mask.
    mask_digest: str
    quality: tuple[OrganQuality, ...]
    #: Minutes that correcting the mask is expected to take.
    predicted_minutes: float


@dataclass(frozen=True, kw_only=True)
class PredictionFailure:
    """Why a volume could not be predicted."""

    reason: str
    message: str


@dataclass(frozen=True, kw_only=True)
class VolumePrediction:
    """What became of one volume: a prediction or a failure."""

    volume_id: str
    prediction: Prediction | None = None
    failure: PredictionFailure | None = None


@dataclass(frozen=True, kw_only=True)
class Model:
    """An immutable version of a project's model."""

    id: str
    project_id: str
    #: "igniter" or "sustainer".
    role: str
    version: int
    package_digest: str
    weights_digest: str
    snapshot_digest: str
    active: bool
    #: It has learnt from volumes that were erased since, or began with weights that had.
    trained_on_purged: bool = False
    services: Services = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, model: inference.Model, services: Services) -> Model:
        return from_proto(model, cls, id=model.model_version_id, services=services)

    def activate(self, *, expected_current: str) -> Model:
        """Makes this version serve; with an older version, a rollback.

        `expected_current` is the id of the version that you believe serves now ("" for none).
        Raises VersionConflict when another one does.
        """
        request = inference.ActivateModelRequest(
            request_id=new_request_id(),
            project_id=self.project_id,
            model_version_id=self.id,
            expected_current=expected_current,
        )
        answer = self.services.inference.ActivateModel(request)
        return Model.from_proto(answer.model, self.services)


def selector(model_version_id: str | None) -> inference.ModelSelector:
    """One version by id, or whichever is active."""
    if model_version_id:
        return inference.ModelSelector(model_version_id=model_version_id)
    return inference.ModelSelector(active=True)
