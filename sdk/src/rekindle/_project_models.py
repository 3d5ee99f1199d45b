"""A project's model versions, predictions and training runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rekindle._call import new_request_id
from rekindle._project_base import ProjectBase
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.config import TrainingWindow
from rekindle.convert import from_proto, number_of, to_proto
from rekindle.models import Model, VolumePrediction, selector
from rekindle.runs import Run, TrainingLimits
from rekindle.volumes import CHUNK_BYTES


class ProjectModels(ProjectBase):
    """The part of a project's handle that deals with models and runs."""

    def models(self) -> list[Model]:
        """Model versions, newest first."""
        pages = self._pages(self._services.inference.ListModels, inference.ListModelsRequest)
        return [Model.from_proto(model, self._services) for page in pages for model in page.models]

    def model(self, model_version_id: str | None = None) -> Model:
        """One version by id; without an id the one that serves. Raises ModelNotReady when none does."""
        request = inference.GetModelRequest(project_id=self.id, model=selector(model_version_id))
        answer = self._services.inference.GetModel(request)
        return Model.from_proto(answer.model, self._services)

    def import_model(self, manifest: bytes, onnx: bytes, *, role: str = "igniter") -> Model:
        """Uploads a package (manifest.json and one self-contained ONNX file) and registers it."""
        package = self._upload_package(manifest, onnx)
        request = inference.RegisterModelRequest(
            request_id=new_request_id(),
            project_id=self.id,
            role=number_of(inference.ModelRole, role),
            package_digest=package,
            organs=self._project.organs,
        )
        answer = self._services.inference.RegisterModel(request, timeout=300)
        return Model.from_proto(answer.model, self._services)

    def predict(self, volume_ids: Iterable[str], *, model_version_id: str | None = None) -> Iterator[VolumePrediction]:
        """Predicts uploaded volumes with one version; one answer per volume as each is done."""
        request = inference.PredictVolumesRequest(
            project_id=self.id, model=selector(model_version_id), volume_ids=volume_ids
        )
        answers = self._services.inference.PredictVolumes(request, timeout=3600)
        return (from_proto(answer, VolumePrediction) for answer in answers)

    def runs(self) -> list[Run]:
        """Training runs, newest first."""
        pages = self._pages(self._services.trainer.ListRuns, trainer.ListRunsRequest)
        return [Run(self._services, run) for page in pages for run in page.runs]

    def run(self, run_id: str) -> Run:
        request = trainer.GetRunRequest(project_id=self.id, run_id=run_id, without_examples=True)
        return Run(self._services, self._services.trainer.GetRun(request).run)

    def start_run(self, run_id: str, spec: trainer.RunSpec) -> Run:
        """Starts a run outside the rounds, from a frozen snapshot."""
        request = trainer.StartRunRequest(
            request_id=new_request_id(), project_id=self.id, run_id=run_id, spec=spec, without_examples=True
        )
        return Run(self._services, self._services.trainer.StartRun(request).run)

    def training_limits(self) -> TrainingLimits:
        """When the project may train and how much, by the trainer, and what it has spent."""
        answer = self._get(self._services.trainer.GetTrainingLimits, trainer.GetTrainingLimitsRequest)
        return TrainingLimits.from_proto(answer)

    def set_training_limits(
        self, version: int, *, window: TrainingWindow | None = None, gpu_seconds_budget: float = 0.0
    ) -> None:
        """Limits a trainer that no scheduler drives; a scheduler does this by the policy, and with its versions.

        A version that is not above the newest changes nothing.
        """
        limits = trainer.TrainingLimits(
            version=version,
            window=None if window is None else to_proto(window, common.TrainingWindow),
            gpu_seconds_budget=gpu_seconds_budget,
        )
        request = trainer.SetTrainingLimitsRequest(request_id=new_request_id(), project_id=self.id, limits=limits)
        self._services.trainer.SetTrainingLimits(request)

    def _upload_package(self, manifest: bytes, onnx: bytes) -> str:
        def parts() -> Iterator[inference.UploadPackageRequest]:
            header = inference.UploadPackageHeader(project_id=self.id, manifest=manifest)
            yield inference.UploadPackageRequest(header=header)
            for start in range(0, len(onnx), CHUNK_BYTES):
                yield inference.UploadPackageRequest(chunk=onnx[start : start + CHUNK_BYTES])

        caller = self._services.caller
        answer = caller.repeat(
            lambda: self._services.inference.UploadPackage(parts(), timeout=caller.transfer_timeout_s(len(onnx)))
        )
        return answer.package_digest
