"""InferenceService."""

# ruff: noqa: N802 - methods are named as the proto names them

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from pathlib import Path
from uuid import uuid4

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as messages
from rekindle.api.inference.v1.inference_pb2_grpc import InferenceServiceServicer
from rekindle.convert import number_of, to_proto, word_of
from rekindle.errors import Cancelled, DeadlineExceeded, DependencyUnavailable, RekindleError
from rekindle.vocabulary import FileFormat, ModelRole
from rekindle_imaging.package import parse_manifest
from rekindle_servicekit import context as ambient
from rekindle_servicekit.pages import Paging
from rekindle_servicekit.workers import Workers

from rekindle_inference.domain.records import ModelVersion
from rekindle_inference.domain.segmentations import Priority
from rekindle_inference.grpc import convert
from rekindle_inference.grpc.calls import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Context, Folders, make_request
from rekindle_inference.grpc.streams import (
    check_arrived,
    check_sha256,
    chunks_of,
    receive_file,
    receive_header,
)
from rekindle_inference.usecases import models as model_usecases
from rekindle_inference.usecases import predictions as prediction_usecases
from rekindle_inference.usecases.checks import check_project, wrong_field
from rekindle_inference.usecases.packages import store_package

_log = logging.getLogger(__name__)

#: The whole call fails with these, since the same is to be expected of the volumes that follow.
_OF_THE_CALL = (Cancelled, DeadlineExceeded, DependencyUnavailable)


class InferenceServicer(InferenceServiceServicer):
    """Convert, call, convert. `transfers` moves bytes and asks the database.

    `lanes` predict, each priority in its own, so that what is urgent never waits for a thread that a batch holds.
    `publishing` makes models ready: however long that takes, predictions with other models go on.
    """

    def __init__(
        self,
        models: model_usecases.Models,
        predictions: prediction_usecases.Predictions,
        folders: Folders,
        *,
        transfers: Workers,
        compute: Workers,
        publishing: Workers,
        lanes: Mapping[Priority, Workers],
        max_file_bytes: int,
        max_model_bytes: int,
    ) -> None:
        self._models = models
        self._predictions = predictions
        self._folders = folders
        self._transfers = transfers
        self._compute = compute
        self._publishing = publishing
        self._lanes = lanes
        self._max_file_bytes = max_file_bytes
        self._max_model_bytes = max_model_bytes

    async def Segment(
        self, request_iterator: AsyncIterator[messages.SegmentRequest], context: Context
    ) -> AsyncGenerator[messages.SegmentResponse]:
        header: messages.SegmentHeader = await receive_header(request_iterator)
        check_sha256(header.sha256)
        format = word_of(FileFormat, common.FileFormat, header.format, "format")
        own = FileFormat.DICOM_SEG if format is FileFormat.DICOM else format
        formats = (format, convert.format_from_proto(header.result_format, own, field="result_format"))
        priority = convert.priority_from_proto(header.priority)
        model = await self._model(header.project_id, header.model)
        with ambient.bind(project=header.project_id), self._folders.folder() as folder:
            received = await receive_file(
                request_iterator, folder / "upload", max_bytes=self._max_file_bytes, workers=self._transfers
            )
            check_arrived(received, header.sha256)
            async for response in self._segment(model, received.path, formats, priority, context):
                yield response

    async def _segment(
        self,
        model: ModelVersion,
        file: Path,
        formats: tuple[FileFormat, FileFormat],
        priority: Priority,
        context: Context,
    ) -> AsyncGenerator[messages.SegmentResponse]:
        progress: asyncio.Queue[messages.SegmentProgress | None] = asyncio.Queue()
        loop = asyncio.get_running_loop()

        def on_progress(done: int, total: int) -> None:
            message = messages.SegmentProgress(slices_done=done, slices_total=total)
            loop.call_soon_threadsafe(progress.put_nowait, message)

        work = asyncio.ensure_future(
            self._lanes[priority].run_cancellable(
                context,
                lambda stop: prediction_usecases.segment_file(
                    self._predictions, model, file, formats, on_progress, stop, priority=priority
                ),
            )
        )
        work.add_done_callback(lambda _: progress.put_nowait(None))
        try:
            while (message := await progress.get()) is not None:
                yield messages.SegmentResponse(progress=message)
            result = await work
            yield messages.SegmentResponse(result=_segment_result(model, result, formats[1]))
            async for chunk in chunks_of(result.path, self._transfers):
                yield messages.SegmentResponse(chunk=chunk)
        finally:
            # The files go with the call, so the work must have ended before it does.
            work.cancel()
            await asyncio.wait([work])

    async def PredictVolumes(
        self, request: messages.PredictVolumesRequest, context: Context
    ) -> AsyncGenerator[messages.PredictVolumesResponse]:
        if not 1 <= len(request.volume_ids) <= prediction_usecases.MAX_VOLUMES:
            raise wrong_field("volume_ids", f"must be 1 to {prediction_usecases.MAX_VOLUMES}")
        model = await self._model(request.project_id, request.model)
        with ambient.bind(project=request.project_id):
            for volume_id in request.volume_ids:
                yield await self._predict(model, volume_id, context)

    async def _predict(self, model: ModelVersion, volume_id: str, context: Context) -> messages.PredictVolumesResponse:
        try:
            prediction = await self._lanes[Priority.BATCH].run_cancellable(
                context,
                lambda stop: prediction_usecases.predict_volume(self._predictions, model, volume_id, stop),
            )
        except _OF_THE_CALL:
            raise
        except RekindleError as error:
            failure = messages.PredictionFailure(reason=error.reason, message=error.message)
            return messages.PredictVolumesResponse(volume_id=volume_id, failure=failure)
        except Exception as error:
            failure = _incident(error)
            return messages.PredictVolumesResponse(volume_id=volume_id, failure=failure)
        return messages.PredictVolumesResponse(
            volume_id=volume_id, prediction=to_proto(prediction, messages.Prediction)
        )

    async def UploadPackage(
        self, request_iterator: AsyncIterator[messages.UploadPackageRequest], context: Context
    ) -> messages.UploadPackageResponse:
        header: messages.UploadPackageHeader = await receive_header(request_iterator)
        check_project(header.project_id)
        # Before gigabytes are sent for nothing.
        parse_manifest(header.manifest)
        with self._folders.folder() as folder:
            received = await receive_file(
                request_iterator,
                folder / "model.onnx",
                max_bytes=self._max_model_bytes,
                workers=self._transfers,
            )
            digest = await self._transfers.run_cancellable(
                context,
                lambda _: store_package(
                    self._models.objects, header.project_id, header.manifest, received.path, received.sha256
                ),
            )
        return messages.UploadPackageResponse(package_digest=digest)

    async def RegisterModel(
        self, request: messages.RegisterModelRequest, context: Context
    ) -> messages.RegisterModelResponse:
        identity = make_request("RegisterModel", request.request_id, request)
        role = word_of(ModelRole, messages.ModelRole, request.role, "role")
        organs = convert.organs_from_proto(request.organs)
        model = await self._publishing.run_cancellable(
            context,
            lambda stop: model_usecases.register_model(
                self._models,
                identity,
                project_id=request.project_id,
                role=role,
                package_digest=request.package_digest,
                organs=organs,
                cancellation=stop,
            ),
        )
        return messages.RegisterModelResponse(model=convert.model_to_proto(model))

    async def GetModel(self, request: messages.GetModelRequest, context: Context) -> messages.GetModelResponse:
        model = await self._model(request.project_id, request.model)
        return messages.GetModelResponse(model=convert.model_to_proto(model))

    async def ListModels(self, request: messages.ListModelsRequest, context: Context) -> messages.ListModelsResponse:
        page = await self._transfers.run_blocking(
            model_usecases.list_models,
            self._models,
            request.project_id,
            Paging(request, [0], default_size=DEFAULT_PAGE_SIZE, max_size=MAX_PAGE_SIZE),
        )
        return messages.ListModelsResponse(
            models=[convert.model_to_proto(model) for model in page.items], next_page_token=page.next_token
        )

    async def ActivateModel(
        self, request: messages.ActivateModelRequest, context: Context
    ) -> messages.ActivateModelResponse:
        activated = await self._publishing.run_blocking(
            model_usecases.activate_model,
            self._models,
            make_request("ActivateModel", request.request_id, request),
            project_id=request.project_id,
            model_version_id=request.model_version_id,
            expected_current=request.expected_current,
        )
        return messages.ActivateModelResponse(
            model=convert.model_to_proto(activated.model), previous_model_version_id=activated.previous or ""
        )

    async def _model(self, project_id: str, selector: messages.ModelSelector) -> ModelVersion:
        chosen = convert.model_from_proto(selector)
        return await self._transfers.run_blocking(model_usecases.get_model, self._models, project_id, chosen)


def _segment_result(
    model: ModelVersion, result: prediction_usecases.SegmentedFile, format: FileFormat
) -> messages.SegmentResult:
    return messages.SegmentResult(
        model_version_id=model.model_version_id,
        geometry=to_proto(result.mask.geometry, common.Geometry),
        quality=convert.quality_to_proto(result.quality),
        abstentions=convert.abstentions_to_proto(result.abstentions),
        format=number_of(common.FileFormat, format),
        sha256=result.sha256,
        size_bytes=result.size_bytes,
    )


def _incident(error: Exception) -> messages.PredictionFailure:
    """What may be told of an unforeseen error: where its traceback is."""
    incident_id = uuid4().hex
    extra = {"action": "incident", "incident_id": incident_id}
    _log.error("incident %s", incident_id, exc_info=error, extra=extra)
    return messages.PredictionFailure(
        reason="INTERNAL_ERROR",
        message=f"the prediction failed: the service's log has the details as incident {incident_id}",
    )
