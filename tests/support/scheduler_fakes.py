"""Inference and trainer services for tests of the scheduler: real gRPC servers with the contracts kept, no pixels."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
from rekindle.api.common.v1 import common_pb2
from rekindle.api.inference.v1 import (
    inference_pb2,
    inference_pb2_grpc,
    segmentations_pb2,
    segmentations_pb2_grpc,
    volumes_pb2,
    volumes_pb2_grpc,
)
from rekindle.api.trainer.v1 import trainer_pb2, trainer_pb2_grpc
from rekindle.errors import (
    AlreadyExists,
    DependencyUnavailable,
    ModelNotReady,
    NotFound,
    RekindleError,
    VersionConflict,
)
from rekindle.status import DETAILS_KEY, status_code, status_details


def sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


class FakeService:
    """What both fakes share: a server on a free port, calls counted, and faults on request."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.calls: Counter[str] = Counter()
        #: Method -> how many of its next calls fail as a service that is away does.
        self.away: Counter[str] = Counter()
        self.server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{self.port}"

    def start(self) -> None:
        self.server.start()

    def stop(self) -> None:
        self.server.stop(0).wait()

    def enter(self, method: str, context: grpc.ServicerContext) -> None:
        with self.lock:
            self.calls[method] += 1
            is_away = self.away[method] > 0
            self.away[method] -= is_away
        if is_away:
            self.refuse(context, DependencyUnavailable("away for a moment"))

    @staticmethod
    def refuse(context: grpc.ServicerContext, error: RekindleError) -> None:
        context.set_trailing_metadata([(DETAILS_KEY, status_details(error))])
        context.abort(status_code(error), error.message)


class FakeInference(
    FakeService,
    inference_pb2_grpc.InferenceServiceServicer,
    volumes_pb2_grpc.VolumeServiceServicer,
    segmentations_pb2_grpc.SegmentationServiceServicer,
):
    """Volumes, receipts, models and predictions of one or more projects."""

    def __init__(self) -> None:
        super().__init__()
        self.volumes: dict[tuple[str, str], volumes_pb2.Volume] = {}
        self.receipts: dict[tuple[str, str], volumes_pb2.Receipt] = {}
        self.models: dict[str, inference_pb2.Model] = {}
        self.active: dict[str, str] = {}
        #: Snapshots whose models are marked.
        self.taught: set[str] = set()
        #: Volumes that no model can predict.
        self.unpredictable: set[str] = set()
        #: Called with each volume before it is predicted.
        self.before_prediction: Callable[[str], None] = lambda volume_id: None
        #: Results by their request id, in the order in which they came.
        self.published: dict[str, segmentations_pb2.PublishResultRequest] = {}
        segmentations_pb2_grpc.add_SegmentationServiceServicer_to_server(self, self.server)
        inference_pb2_grpc.add_InferenceServiceServicer_to_server(self, self.server)
        volumes_pb2_grpc.add_VolumeServiceServicer_to_server(self, self.server)

    def add_image(self, project_id: str, name: str, modality: int = common_pb2.MODALITY_CT) -> str:
        """An image whose content is its name; its volume id."""
        volume_id = f"volume-{sha256(project_id + name)[:12]}"
        self.volumes[project_id, volume_id] = volumes_pb2.Volume(
            volume_id=volume_id,
            project_id=project_id,
            kind=common_pb2.VOLUME_KIND_IMAGE,
            canonical_digest=sha256(f"image {name}"),
            modality=modality,  # type: ignore[arg-type]
        )
        return volume_id

    def add_mask(
        self,
        project_id: str,
        image_id: str,
        *,
        coarse_id: str = "",
        voxels: dict[str, int] | None = None,
        dice: float = 0.8,
    ) -> volumes_pb2.Receipt:
        """A mask on the image, with its receipt."""
        found = {"liver": 1000, "spleen": 200} if voxels is None else voxels
        image = self.volumes[project_id, image_id]
        digest = sha256(f"mask of {image.canonical_digest} {sorted(found.items())}")
        mask_id = f"mask-{sha256(project_id + digest + coarse_id)[:12]}"
        effort = [
            common_pb2.OrganEffort(
                organ_id=organ, voxels_changed=10, added_path_length_mm=5.0, dice=dice if coarse_id else None
            )
            for organ in found
        ]
        receipt = volumes_pb2.Receipt(
            receipt_id=f"receipt-{mask_id}",
            project_id=project_id,
            mask_volume_id=mask_id,
            image_volume_id=image_id,
            mask_digest=digest,
            coarse_mask_volume_id=coarse_id,
            organs=[volumes_pb2.OrganFound(organ_id=key, voxels=value) for key, value in found.items()],
            effort=effort,
            image_digest=image.canonical_digest,
        )
        self.volumes[project_id, mask_id] = volumes_pb2.Volume(
            volume_id=mask_id,
            project_id=project_id,
            kind=common_pb2.VOLUME_KIND_MASK,
            canonical_digest=digest,
            image_volume_id=image_id,
        )
        self.receipts[project_id, receipt.receipt_id] = receipt
        return receipt

    def register(self, project_id: str, organs: list[common_pb2.Organ]) -> str:
        """A model from elsewhere; its version id."""
        request = inference_pb2.RegisterModelRequest(
            project_id=project_id, package_digest=sha256("package from elsewhere"), organs=organs
        )
        return self.RegisterModel(request, None).model.model_version_id

    def BatchGetVolumes(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("BatchGetVolumes", context)
        missing = [i for i in request.volume_ids if (request.project_id, i) not in self.volumes]
        if missing:
            self.refuse(context, NotFound(f"volumes {', '.join(missing)} do not exist"))
        found = [self.volumes[request.project_id, volume_id] for volume_id in request.volume_ids]
        return volumes_pb2.BatchGetVolumesResponse(volumes=found)

    def GetReceipt(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("GetReceipt", context)
        receipt = self.receipts.get((request.project_id, request.receipt_id))
        if receipt is None:
            self.refuse(context, NotFound(f"receipt {request.receipt_id} does not exist"))
        return volumes_pb2.GetReceiptResponse(receipt=receipt)

    def PublishResult(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("PublishResult", context)
        with self.lock:
            known = self.published.setdefault(request.request_id, request)
        if known != request:
            self.refuse(context, AlreadyExists("another request had this id"))
        return segmentations_pb2.PublishResultResponse()

    def PurgeVolumes(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("PurgeVolumes", context)
        with self.lock:
            gone = [
                (key, volume)
                for key, volume in self.volumes.items()
                if key[0] == request.project_id and {key[1], volume.image_volume_id} & set(request.volume_ids)
            ]
            for key, _ in gone:
                del self.volumes[key]
            left = {volume.canonical_digest for volume in self.volumes.values()}
            self.taught |= set(request.snapshot_digests)
        marked = [model.model_version_id for model in self.models.values() if model.snapshot_digest in self.taught]
        return volumes_pb2.PurgeVolumesResponse(
            volumes=len(gone),
            objects=len(gone),
            erased_digests=sorted({volume.canonical_digest for _, volume in gone} - left),
            marked_model_version_ids=marked if request.snapshot_digests else [],
        )

    def RegisterModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("RegisterModel", context)
        with self.lock:
            version_id = f"model-{sha256(f'{request.project_id} {request.package_digest}')[:12]}"
            of_project = [model for model in self.models.values() if model.project_id == request.project_id]
            self.models.setdefault(
                version_id,
                inference_pb2.Model(
                    model_version_id=version_id,
                    project_id=request.project_id,
                    role=request.role,
                    version=len(of_project) + 1,
                    package_digest=request.package_digest,
                    organs=request.organs,
                    modality=common_pb2.MODALITY_CT,
                    weights_digest=sha256(f"weights {request.package_digest}"),
                ),
            )
            return inference_pb2.RegisterModelResponse(model=self.models[version_id])

    def GetModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("GetModel", context)
        is_active = request.model.WhichOneof("model") == "active"
        version_id = self.active.get(request.project_id) if is_active else request.model.model_version_id
        if version_id is None:
            self.refuse(context, ModelNotReady("no model is active"))
        model = self.models.get(str(version_id))
        if model is None or model.project_id != request.project_id:
            self.refuse(context, NotFound(f"model {version_id} does not exist"))
        return inference_pb2.GetModelResponse(model=model)

    def ActivateModel(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("ActivateModel", context)
        with self.lock:
            current = self.active.get(request.project_id, "")
            if current != request.expected_current:
                self.refuse(context, VersionConflict(f"{current or 'none'} is active"))
            self.active[request.project_id] = request.model_version_id
        return inference_pb2.ActivateModelResponse(model=self.models[request.model_version_id])

    def PredictVolumes(self, request: Any, context: Any) -> Iterator[Any]:  # noqa: N802
        self.enter("PredictVolumes", context)
        version_id = request.model.model_version_id
        for volume_id in request.volume_ids:
            self.before_prediction(volume_id)
            self.calls[f"predict {version_id} {volume_id}"] += 1
            yield self._predicted(request.project_id, version_id, volume_id)

    def _predicted(self, project_id: str, version_id: str, volume_id: str) -> Any:
        if volume_id in self.unpredictable:
            failure = inference_pb2.PredictionFailure(reason="UNREADABLE", message="cannot be read")
            return inference_pb2.PredictVolumesResponse(volume_id=volume_id, failure=failure)
        image = self.volumes[project_id, volume_id].canonical_digest
        digest = sha256(f"{self.models[version_id].package_digest} {image}")
        confidence = int(digest[:4], 16) / 0xFFFF
        prediction = inference_pb2.Prediction(
            model_version_id=version_id,
            mask_volume_id=f"coarse-{sha256(version_id + volume_id)[:12]}",
            mask_digest=digest,
            quality=[common_pb2.OrganQuality(organ_id="liver", soft_dice_confidence=confidence, predicted_ml=1500)],
            predicted_minutes=5.0 + 10.0 * (1.0 - confidence),
        )
        return inference_pb2.PredictVolumesResponse(volume_id=volume_id, prediction=prediction)


class FakeTrainer(FakeService, trainer_pb2_grpc.TrainerServiceServicer):
    """Runs that take a few looks to succeed."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: dict[str, trainer_pb2.Run] = {}
        self.looks: Counter[str] = Counter()
        #: Digests that were struck.
        self.purged: set[str] = set()
        #: How many looks a run takes.
        self.duration = 2
        #: Reasons with which the next runs fail, one for each.
        self.failures: list[str] = []
        #: Newest limits by project; None for a trainer that knows no limits.
        self.limits: dict[str, trainer_pb2.TrainingLimits] | None = {}
        #: Why runs of projects that have a window wait.
        self.held = "waits for its window: opens at 20:00 Europe/Berlin"
        #: Dice of the candidate on each held-out and checked case.
        self.candidate_dice: Callable[[trainer_pb2.RunSpec], float] = lambda spec: 0.9
        trainer_pb2_grpc.add_TrainerServiceServicer_to_server(self, self.server)

    def StartRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("StartRun", context)
        with self.lock:
            if self.limits is not None:
                self._limit(request.project_id, request.limits)
            known = self.runs.get(request.run_id)
            if known is not None and known.spec != request.spec:
                self.refuse(context, AlreadyExists("another run has this id"))
            if known is None:
                known = trainer_pb2.Run(
                    run_id=request.run_id,
                    project_id=request.project_id,
                    spec=request.spec,
                    state=trainer_pb2.RUN_STATE_QUEUED,
                    reason="waits for its turn",
                    snapshot_digest=sha256(" ".join(sorted(e.mask_digest for e in request.spec.training))),
                )
                if self.failures:
                    known.reason = self.failures.pop(0)
                    known.state = trainer_pb2.RUN_STATE_FAILED
                self.runs[request.run_id] = known
            return trainer_pb2.StartRunResponse(run=known)

    def PurgeExamples(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("PurgeExamples", context)
        with self.lock:
            self.purged |= set(request.digests)
            learnt = {
                run.snapshot_digest
                for run in self.runs.values()
                if any({e.image_digest, e.mask_digest} & self.purged for e in run.spec.training)
            }
            for run in self.runs.values():
                examples = (*run.spec.training, *run.spec.heldout)
                open_ = run.state in (trainer_pb2.RUN_STATE_QUEUED, trainer_pb2.RUN_STATE_RUNNING)
                if open_ and any({e.image_digest, e.mask_digest} & self.purged for e in examples):
                    run.state = trainer_pb2.RUN_STATE_CANCELLED
        return trainer_pb2.PurgeExamplesResponse(snapshot_digests=sorted(learnt))

    def GetRun(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("GetRun", context)
        with self.lock:
            run = self.runs.get(request.run_id)
            if run is None:
                self.refuse(context, NotFound(f"run {request.run_id} does not exist"))
            assert run is not None
            self.looks[request.run_id] += 1
            limits = (self.limits or {}).get(request.project_id, trainer_pb2.TrainingLimits())
            run.limits_version = limits.version
            if limits.HasField("window"):
                run.state, run.reason = trainer_pb2.RUN_STATE_QUEUED, self.held
            elif run.state in (trainer_pb2.RUN_STATE_QUEUED, trainer_pb2.RUN_STATE_RUNNING):
                self._advance(run)
            return trainer_pb2.GetRunResponse(run=run)

    def SetTrainingLimits(self, request: Any, context: Any) -> Any:  # noqa: N802
        self.enter("SetTrainingLimits", context)
        with self.lock:
            if self.limits is None:
                context.abort(grpc.StatusCode.UNIMPLEMENTED, "Method not found!")
            assert self.limits is not None
            self._limit(request.project_id, request.limits)
            return trainer_pb2.SetTrainingLimitsResponse(limits=self.limits[request.project_id])

    def _limit(self, project_id: str, limits: trainer_pb2.TrainingLimits) -> None:
        assert self.limits is not None
        known = self.limits.get(project_id)
        if known is None or known.version < limits.version:
            self.limits[project_id] = limits

    def _advance(self, run: trainer_pb2.Run) -> None:
        run.reason = ""
        if self.looks[run.run_id] < self.duration:
            run.state = trainer_pb2.RUN_STATE_RUNNING
            return
        run.state = trainer_pb2.RUN_STATE_SUCCEEDED
        run.result.CopyFrom(self._result(run.spec))

    def _result(self, spec: trainer_pb2.RunSpec) -> trainer_pb2.RunResult:
        # By content alone, as the real ones: ids of cases and runs have no part in it.
        lines = [f"{e.source} {e.image_digest} {e.mask_digest}" for part in (spec.training, spec.heldout) for e in part]
        weights = sha256("\n".join([str(spec.kind), str(spec.seed), spec.initial_weights_digest, *lines]))
        package = trainer_pb2.RunPackage(modality=spec.modality, package_digest=sha256(f"package {weights}"))
        dice = self.candidate_dice(spec)
        return trainer_pb2.RunResult(
            packages=[package],
            weights_digest=weights,
            candidate=[_metrics(spec, example, dice) for example in spec.heldout],
            current=[_metrics(spec, example, 0.8) for example in spec.heldout],
            training_check=[
                _metrics(spec, e, dice) for e in spec.training if e.source == common_pb2.EXAMPLE_SOURCE_TARGET
            ],
            train_seconds=1.5,
            epochs=2,
            final_loss=0.1,
        )


def _metrics(spec: trainer_pb2.RunSpec, example: common_pb2.Example, dice: float) -> trainer_pb2.CaseMetrics:
    return trainer_pb2.CaseMetrics(
        image_digest=example.image_digest,
        case_id=example.case_id,
        organs=[trainer_pb2.OrganMetrics(organ_id=organ.id, dice=dice, predicted_ml=100.0) for organ in spec.organs],
    )
