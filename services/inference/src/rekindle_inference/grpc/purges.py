"""PurgeVolumes of VolumeService."""

# ruff: noqa: N802 - methods are named as the proto names them

from __future__ import annotations

from functools import partial

from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle_servicekit import context as ambient
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.workers import Workers

from rekindle_inference.grpc.calls import Context, make_request
from rekindle_inference.state import State
from rekindle_inference.usecases import purges as usecases


class PurgeCalls:
    """Convert, call, convert."""

    def __init__(self, state: State, objects: Objects, workers: Workers) -> None:
        self._purge = partial(usecases.purge_volumes, state, objects)
        self._purge_workers = workers

    async def PurgeVolumes(
        self, request: messages.PurgeVolumesRequest, context: Context
    ) -> messages.PurgeVolumesResponse:
        identity = make_request("PurgeVolumes", request.request_id, request)
        with ambient.bind(project=request.project_id):
            purged = await self._purge_workers.run_blocking(
                self._purge,
                identity,
                project_id=request.project_id,
                volume_ids=list(request.volume_ids),
                snapshot_digests=list(request.snapshot_digests),
                forget_digests=list(request.forget_digests),
            )
        return messages.PurgeVolumesResponse(
            volumes=purged.volumes,
            objects=purged.objects,
            erased_digests=purged.erased_digests,
            marked_model_version_ids=purged.marked,
        )
