"""A client that sends a file in pieces, call by call."""

import hashlib
import uuid

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes

CHUNK = 3000


class Tool:
    """A client that sends a file in pieces."""

    def __init__(self, running, data, **header):
        self.running, self.data = running, data
        self.header = volumes.UploadVolumeHeader(
            **{
                "project_id": "project-a",
                "kind": common.VOLUME_KIND_IMAGE,
                "format": common.FILE_FORMAT_NIFTI,
                "sha256": hashlib.sha256(data).hexdigest(),
                "modality": common.MODALITY_CT,
                **header,
            }
        )

    def create(self, **fields):
        request = volumes.CreateUploadRequest(
            **{
                "request_id": uuid.uuid4().hex,
                "header": self.header,
                "size_bytes": len(self.data),
                **fields,
            }
        )
        self.upload = self.running.volumes.CreateUpload(request, timeout=10).upload
        return self.upload

    def put(self, offset, size=CHUNK, **fields):
        request = volumes.PutChunkRequest(
            **{**self.names, "offset": offset, "data": self.data[offset : offset + size], **fields}
        )
        return self.running.volumes.PutChunk(request, timeout=10).received_bytes

    def put_all(self, offset=0, size=CHUNK):
        while offset < len(self.data):
            offset = self.put(offset, size)

    def query(self):
        return self.running.volumes.QueryUpload(volumes.QueryUploadRequest(**self.names), timeout=10).upload

    def finalize(self, **fields):
        request = volumes.FinalizeUploadRequest(**{"request_id": uuid.uuid4().hex, **self.names, **fields})
        return self.running.volumes.FinalizeUpload(request, timeout=60)

    def abort(self, **fields):
        request = volumes.AbortUploadRequest(**{"request_id": uuid.uuid4().hex, **self.names, **fields})
        return self.running.volumes.AbortUpload(request, timeout=10).upload

    @property
    def names(self):
        return {"project_id": "project-a", "upload_id": self.upload.upload_id}


def pieces(running):
    """Objects of uploads that are still there."""
    return sorted(running.service.objects.list("uploads/"))


def purge(running, volume_id):
    request = volumes.PurgeVolumesRequest(request_id=uuid.uuid4().hex, project_id="project-a", volume_ids=[volume_id])
    running.volumes.PurgeVolumes(request, timeout=30)
