"""The other services, as far as the scheduler needs them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from rekindle.vocabulary import Digest, Example, Modality, Organ, RunKind, TrainingWindow

from rekindle_scheduler.domain.cases import CoarseLabel
from rekindle_scheduler.domain.ids import ModelVersionId, ProjectId, ReceiptId, RunId, VolumeId
from rekindle_scheduler.domain.outbox import PublishRequest
from rekindle_scheduler.domain.records import TrainingRun
from rekindle_scheduler.domain.volumes import Receipt, Volume


@dataclass(frozen=True, kw_only=True)
class ModelVersion:
    """A registered model version."""

    model_version_id: ModelVersionId
    package_digest: Digest
    weights_digest: Digest | None
    organs: tuple[Organ, ...]
    modality: Modality


@dataclass(frozen=True, kw_only=True)
class PredictionOutcome:
    """What came of one volume: a coarse label, or why there is none."""

    volume_id: VolumeId
    coarse_label: CoarseLabel | None
    failure: str = ""


@dataclass(frozen=True, kw_only=True)
class RunLimits:
    """When a project may train and how much, by one version of its policy."""

    version: int
    window: TrainingWindow | None
    gpu_seconds_budget: float


@dataclass(frozen=True, kw_only=True)
class RunRequest:
    """A training run to be started, all of it decided beforehand."""

    run_id: RunId
    project_id: ProjectId
    kind: RunKind
    preset: str
    recipe: str
    seed: int
    modality: Modality
    organs: tuple[Organ, ...]
    training: tuple[Example, ...]
    heldout: tuple[Example, ...] = ()
    initial_weights: Digest | None = None
    current_package: Digest | None = None
    #: Whether coarse labels keep the largest component per organ, or all of them.
    largest_component: bool = True
    limits: RunLimits


@dataclass(frozen=True, kw_only=True)
class PurgedVolumes:
    """What inference has erased and marked."""

    volumes: int
    objects: int
    #: Canonical digests that no volume has any more.
    erased_digests: tuple[Digest, ...]
    marked: tuple[ModelVersionId, ...]


class Inference(Protocol):
    """The inference service. DependencyUnavailable where it is away; its own errors otherwise."""

    def volumes(self, project_id: ProjectId, volume_ids: Sequence[VolumeId]) -> list[Volume]: ...

    def receipt(self, project_id: ProjectId, receipt_id: ReceiptId) -> Receipt: ...

    def model(self, project_id: ProjectId, model_version_id: ModelVersionId) -> ModelVersion: ...

    def active_model(self, project_id: ProjectId) -> ModelVersion | None: ...

    def register_model(
        self,
        project_id: ProjectId,
        organs: Sequence[Organ],
        kind: RunKind,
        package: Digest,
        *,
        request_id: str,
    ) -> ModelVersion: ...

    def activate_model(
        self,
        project_id: ProjectId,
        model_version_id: ModelVersionId,
        *,
        expected_current: ModelVersionId | None,
        request_id: str,
    ) -> None: ...

    def predict(
        self, project_id: ProjectId, model_version_id: ModelVersionId, volume_ids: Sequence[VolumeId]
    ) -> Iterator[PredictionOutcome]: ...

    def publish(self, project_id: ProjectId, request: PublishRequest) -> None:
        """Add a label to the feed of results, or take it back; once, however often it is called."""

    def purge(
        self,
        project_id: ProjectId,
        *,
        volume_ids: Sequence[VolumeId] = (),
        snapshot_digests: Sequence[Digest] = (),
        forget_digests: Sequence[Digest] = (),
        request_id: str,
    ) -> PurgedVolumes:
        """Erase images and their masks; mark the model versions that were trained on the snapshots."""
        ...


class Trainer(Protocol):
    """The trainer service. DependencyUnavailable where it is away; its own errors otherwise."""

    def start_run(self, request: RunRequest) -> TrainingRun: ...

    def run(self, project_id: ProjectId, run_id: RunId) -> TrainingRun: ...

    def purge(self, project_id: ProjectId, digests: Sequence[Digest], *, request_id: str) -> tuple[Digest, ...]:
        """Strike digests out of the project's runs; the snapshots that have learnt from what they named."""
        ...

    def limit(self, project_id: ProjectId, limits: RunLimits) -> None:
        """For all runs of the project, those under way too."""
        ...
