"""Words of durable segmentations, and images to have segmented."""

from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as messages

STAT, ROUTINE, BATCH = inference.PRIORITY_STAT, inference.PRIORITY_ROUTINE, inference.PRIORITY_BATCH
QUEUED, RUNNING = messages.SEGMENTATION_STATE_QUEUED, messages.SEGMENTATION_STATE_RUNNING
SUCCEEDED, FAILED = messages.SEGMENTATION_STATE_SUCCEEDED, messages.SEGMENTATION_STATE_FAILED
CANCELLED, EXPIRED = messages.SEGMENTATION_STATE_CANCELLED, messages.SEGMENTATION_STATE_EXPIRED


def volume(running, phantom, folder, slices=12):
    """The id of an image of the phantom's first slices."""
    return running.upload(phantom.file(folder, voxels=phantom.image[:slices])).volume.volume_id
