"""Everything of the service, put together from settings: what `__main__` serves and tests talk to."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import TypedDict

from rekindle.api.inference.v1.inference_pb2_grpc import add_InferenceServiceServicer_to_server
from rekindle.api.inference.v1.segmentations_pb2_grpc import add_SegmentationServiceServicer_to_server
from rekindle.api.inference.v1.volumes_pb2_grpc import add_VolumeServiceServicer_to_server
from rekindle_servicekit.admin import serve_admin
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.info import ServerFacts, database_capabilities, serve_info
from rekindle_servicekit.layout import UploadKeys
from rekindle_servicekit.listening import make_authenticator, server_options
from rekindle_servicekit.metrics import StateCollector
from rekindle_servicekit.object_store import open_store
from rekindle_servicekit.objects import Objects, PrefixedObjects
from rekindle_servicekit.retention import Retention
from rekindle_servicekit.server import Background, Server
from rekindle_servicekit.workers import Workers

from rekindle_inference.adapters.archive import project_archive
from rekindle_inference.adapters.engines import open_engine
from rekindle_inference.adapters.files import FileWriter
from rekindle_inference.adapters.incoming import Incoming
from rekindle_inference.adapters.prometheus import InferenceMetrics, queue_metrics
from rekindle_inference.adapters.sandbox_child import Limits
from rekindle_inference.adapters.sandbox_reader import SandboxReader
from rekindle_inference.adapters.sandbox_segmentations import SandboxSegmentations
from rekindle_inference.dispatcher import Dispatcher
from rekindle_inference.domain.segmentations import Priority
from rekindle_inference.domain.uploads import MAX_CHUNK_BYTES
from rekindle_inference.grpc.inference import InferenceServicer
from rekindle_inference.grpc.segmentations import Backend, SegmentationServicer
from rekindle_inference.grpc.volumes import VolumeServicer
from rekindle_inference.ports import Engine
from rekindle_inference.settings import Settings
from rekindle_inference.state import Inventory, State
from rekindle_inference.sweeper import Sweeper
from rekindle_inference.usecases.decoded import DecodedVolumes
from rekindle_inference.usecases.models import Models
from rekindle_inference.usecases.predictions import MAX_VOLUMES, Predictions
from rekindle_inference.usecases.segmentations import QueueRules
from rekindle_inference.usecases.slices import Slices
from rekindle_inference.usecases.uploads import Uploads
from rekindle_inference.usecases.verification import verify
from rekindle_inference.usecases.volumes import MAX_BATCH, Volumes

VOLUME_SERVICE = "rekindle.api.inference.v1.VolumeService"
INFERENCE_SERVICE = "rekindle.api.inference.v1.InferenceService"
#: Models that are proven or made ready at a time, beside the predictions.
PUBLISHING_THREADS = 2
SEGMENTATION_SERVICE = "rekindle.api.inference.v1.SegmentationService"


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """The server, ready to start, and what must be closed after it."""

    server: Server
    state: State
    engine: Engine
    objects: Objects
    incoming: Incoming
    pools: tuple[Workers, ...]
    #: Work beside the calls, for as long as the server runs.
    background: tuple[Background, ...]
    #: To be run beside the server.
    dispatcher: Dispatcher

    def close(self) -> None:
        """Once the server has stopped."""
        self.dispatcher.close()
        for pool in self.pools:
            pool.close()
        self.engine.close()
        self.state.close()
        self.incoming.close()


def build_service(settings: Settings, *, engine: Engine | None = None, objects: Objects | None = None) -> Service:
    """Wire the service; inside a running event loop. `engine` and `objects` replace those that the settings say."""
    store = open_store(settings, settings.objects_directory)
    objects = objects or _own_part(store, settings.installation_id)
    state = State(settings.database_url, migrates=settings.migrate_on_start)
    server = Server(server_options(settings), make_authenticator(settings))
    metrics = _measure(server, state)
    incoming = Incoming(settings.temporary_directory)
    engine = engine or open_engine(settings, objects, store)
    work = _use_cases(settings, state, objects, engine, incoming, metrics)
    pools = _pools(settings)
    _serve_volumes(server, settings, work, incoming, pools)
    _serve_predictions(server, settings, work, incoming, pools)
    serve_info(server, _facts(settings, objects))
    verification = metrics.noting_orphans(partial(verify, Inventory(state.engine), objects))
    archive = project_archive(state.engine, objects, engine, settings.smoke_tolerance)
    serve_admin(server, pools.transfers, verify=verification, archive=archive)
    sweeper = Sweeper(work.uploads, pools.transfers, every_s=settings.upload_sweep_s)
    dispatcher = _serve_segmentations(server, settings, work.predictions, pools.transfers)
    retention = Retention(state.engine, pools.transfers, days=settings.request_retention_days)
    return Service(
        server=server,
        state=state,
        engine=engine,
        objects=objects,
        incoming=incoming,
        background=(sweeper, dispatcher.run, retention),
        pools=(pools.compute, pools.publishing, *pools.lanes.values(), pools.transfers),
        dispatcher=dispatcher,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _UseCases:
    volumes: Volumes
    uploads: Uploads
    slices: Slices
    models: Models
    predictions: Predictions


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pools:
    #: Moves bytes and asks the database.
    transfers: Workers
    compute: Workers
    #: Loads models, which may take minutes.
    publishing: Workers
    #: Each priority's own threads: what waits for one must not wait for another.
    lanes: dict[Priority, Workers]


def _use_cases(
    settings: Settings,
    state: State,
    objects: Objects,
    engine: Engine,
    incoming: Incoming,
    metrics: InferenceMetrics,
) -> _UseCases:
    files: _Files = {
        "reader": SandboxReader(incoming.root, _limits(settings)),
        "writer": FileWriter(),
        "segmentations": SandboxSegmentations(incoming.root, _limits(settings)),
        "max_voxels": settings.max_voxels,
    }
    volumes = Volumes(state=state, objects=objects, observer=metrics, **files)
    decoded = DecodedVolumes(objects, max_voxels=settings.max_voxels, max_bytes=settings.read_cache_bytes)
    return _UseCases(
        volumes=volumes,
        uploads=Uploads(
            state=state,
            objects=objects,
            volumes=volumes,
            max_file_bytes=settings.max_file_bytes,
            max_open=settings.max_open_uploads,
            max_open_bytes=settings.max_open_upload_bytes,
            lifetime=timedelta(seconds=settings.upload_lifetime_s),
        ),
        slices=Slices(state=state, decoded=decoded),
        models=Models(
            state=state, objects=objects, engine=engine, smoke_tolerance=settings.smoke_tolerance, observer=metrics
        ),
        predictions=Predictions(state=state, objects=objects, engine=engine, observer=metrics, **files),
    )


class _Files(TypedDict):
    """How files come in and go out."""

    reader: SandboxReader
    writer: FileWriter
    segmentations: SandboxSegmentations
    max_voxels: int


def _pools(settings: Settings) -> _Pools:
    threads = settings.compute_threads
    return _Pools(
        transfers=Workers(max_threads=settings.transfer_threads, name="transfer"),
        compute=Workers(max_threads=threads, name="compute"),
        publishing=Workers(max_threads=PUBLISHING_THREADS, name="publishing"),
        lanes={priority: Workers(max_threads=threads, name=f"predict-{priority}") for priority in Priority},
    )


def _serve_volumes(server: Server, settings: Settings, work: _UseCases, incoming: Incoming, pools: _Pools) -> None:
    servicer = VolumeServicer(
        work.volumes,
        work.uploads,
        work.slices,
        incoming,
        transfers=pools.transfers,
        compute=pools.compute,
        max_file_bytes=settings.max_file_bytes,
    )
    server.add(VOLUME_SERVICE, servicer, add_VolumeServiceServicer_to_server)


def _serve_predictions(server: Server, settings: Settings, work: _UseCases, incoming: Incoming, pools: _Pools) -> None:
    servicer = InferenceServicer(
        work.models,
        work.predictions,
        incoming,
        transfers=pools.transfers,
        compute=pools.compute,
        publishing=pools.publishing,
        lanes=pools.lanes,
        max_file_bytes=settings.max_file_bytes,
        max_model_bytes=settings.max_model_bytes,
    )
    server.add(INFERENCE_SERVICE, servicer, add_InferenceServiceServicer_to_server)


def _measure(server: Server, state: State) -> InferenceMetrics:
    """What the server's metrics tell of the work beside its calls."""
    metrics = InferenceMetrics(server.metrics.registry)
    server.metrics.on_error(metrics.call_refused)
    server.metrics.registry.register(StateCollector(partial(queue_metrics, state)))
    return metrics


def _serve_segmentations(
    server: Server, settings: Settings, predictions: Predictions, transfers: Workers
) -> Dispatcher:
    """Add the service of durable segmentations and results; what works them off."""
    bell = Bell()
    dispatcher = Dispatcher(
        predictions,
        bell,
        transfers,
        per_priority=settings.segmentation_workers,
        claim_for=timedelta(seconds=settings.segmentation_claim_s),
    )
    backend = Backend(
        state=predictions.state,
        rules=_rules(settings),
        workers=transfers,
        bell=bell,
        stopping=server.stopping,
        call_off=dispatcher.call_off,
    )
    server.add(SEGMENTATION_SERVICE, SegmentationServicer(backend), add_SegmentationServiceServicer_to_server)
    return dispatcher


def _own_part(store: Objects, installation_id: str) -> Objects:
    """The object store, or the part of it that belongs to this installation."""
    return PrefixedObjects(store, installation_id) if installation_id else store


def _facts(settings: Settings, objects: Objects) -> ServerFacts:
    engine = "triton" if settings.triton_address else "onnxruntime"
    always = {"durable-segmentations", "resumable-uploads", "slices", engine}
    formats = {"dicom", "dicom-seg", "metaimage", "nifti", "nrrd"}
    return ServerFacts(
        service="inference",
        capabilities=database_capabilities(settings.database_url) | always | formats | _addresses(objects),
        limits={
            "max_file_bytes": settings.max_file_bytes,
            "max_model_bytes": settings.max_model_bytes,
            "max_voxels": settings.max_voxels,
            "max_chunk_bytes": MAX_CHUNK_BYTES,
            "max_open_uploads_per_project": settings.max_open_uploads,
            "max_open_upload_bytes": settings.max_open_upload_bytes,
            "max_volumes_per_prediction": MAX_VOLUMES,
            "max_volumes_per_batch": MAX_BATCH,
            "max_queued_segmentations": settings.segmentation_queue_most,
            "max_time_to_live_s": settings.segmentation_longest_time_to_live_s,
        },
        installation_id=settings.installation_id,
    )


def _addresses(objects: Objects) -> frozenset[str]:
    """Whether files can be sent to the object store itself."""
    has_them = objects.presign_put(UploadKeys("probe").whole, 60.0) is not None
    return frozenset({"presigned-uploads"} if has_them else ())


def _limits(settings: Settings) -> Limits:
    return Limits(
        memory_bytes=settings.parser_memory_bytes,
        cpu_s=settings.parser_cpu_s,
        wall_s=settings.parser_wall_s,
        output_bytes=2 * settings.max_voxels + 1024 * 1024,
        max_voxels=settings.max_voxels,
    )


def _rules(settings: Settings) -> QueueRules:
    return QueueRules(
        most=settings.segmentation_queue_most,
        time_to_live=timedelta(seconds=settings.segmentation_time_to_live_s),
        longest_time_to_live=timedelta(seconds=settings.segmentation_longest_time_to_live_s),
        batch_patience=timedelta(seconds=settings.segmentation_batch_patience_s),
    )
