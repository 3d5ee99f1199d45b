"""What cannot be segmented is refused before it is queued."""

import grpc
from google.protobuf.duration_pb2 import Duration
from refusals import refused, refused_with
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as messages
from segmenting import volume

BAD_REQUESTS = {
    "no project": ({"project_id": ""}, "INVALID_INPUT"),
    "a path as project": ({"project_id": "../../etc"}, "INVALID_INPUT"),
    "no volume": ({"volume_id": ""}, "VOLUME_NOT_FOUND"),
    "a volume that is not there": ({"volume_id": "' OR 1=1 --"}, "VOLUME_NOT_FOUND"),
    "a volume's id with a null": ({"volume_id": "a\0b"}, "VOLUME_NOT_FOUND"),
    "an endless volume id": ({"volume_id": "x" * 100_000}, "VOLUME_NOT_FOUND"),
    "another project's volume": ({"project_id": "project-b"}, "VOLUME_NOT_FOUND"),
    "no model": ({"model": inference.ModelSelector()}, "INVALID_INPUT"),
    "a model that is not there": ({"model": inference.ModelSelector(model_version_id="none")}, "MODEL_NOT_FOUND"),
    "no request id": ({"request_id": ""}, "INVALID_INPUT"),
    "an unknown priority": ({"priority": 77}, "INVALID_INPUT"),
    "no time to live": ({"time_to_live": Duration()}, "INVALID_INPUT"),
    "a negative time to live": ({"time_to_live": Duration(seconds=-1)}, "INVALID_INPUT"),
    "too long a time to live": ({"time_to_live": Duration(seconds=8 * 86400)}, "INVALID_INPUT"),
    "an absurd time to live": ({"time_to_live": Duration(seconds=2**62)}, "INVALID_INPUT"),
}


def test_refuses_what_cannot_be_segmented(active, phantom, tmp_path):
    """A typed error for each, and nothing in the queue."""
    image = volume(active, phantom, tmp_path, slices=2)
    found = {
        name: refused(lambda fields=fields: active.create(**{"volume_id": image, **fields})).reason
        for name, (fields, _) in BAD_REQUESTS.items()
    }
    listed = active.segmentations.ListSegmentations(
        messages.ListSegmentationsRequest(project_id="project-a"), timeout=10
    ).segmentations
    assert {name: reason for name, (_, reason) in BAD_REQUESTS.items()} == found
    assert 0 == len(listed)


def test_refuses_masks_other_modalities_and_projects_without_a_model(active, phantom, tmp_path):
    """What the model could not make sense of is refused before it is queued."""
    image = volume(active, phantom, tmp_path)
    mask = active.upload_mask(phantom.file(tmp_path, "mask"), image).volume.volume_id
    magnetic = active.upload(phantom.file(tmp_path), modality=common.MODALITY_MR).volume.volume_id
    elsewhere = active.upload(phantom.file(tmp_path), project_id="project-c").volume.volume_id
    found = [
        refused_with(lambda: active.create(mask)),
        refused_with(lambda: active.create(magnetic)),
        refused_with(lambda: active.create(elsewhere, project_id="project-c")),
    ]
    assert [
        (grpc.StatusCode.INVALID_ARGUMENT, "NOT_AN_IMAGE"),
        (grpc.StatusCode.INVALID_ARGUMENT, "MODALITY_MISMATCH"),
        (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_NOT_READY"),
    ] == [(code, error.reason) for code, error in found]


def test_unknown_segmentations_are_not_found(active):
    """By get, cancel and watch alike, whatever is sent as an id."""
    for segmentation_id in ["", "none", "../x", "a\0b", "x" * 100_000]:
        asked = messages.Segmentation(segmentation_id=segmentation_id)
        calls = [active.get, active.cancel, lambda each: list(active.watch(each))]
        found = [refused(lambda call=call, asked=asked: call(asked)).reason for call in calls]
        assert ["SEGMENTATION_NOT_FOUND"] * 3 == found


def test_refuses_wrong_cursors_pages_and_states(active, phantom, tmp_path):
    """Each names its field."""
    asked = active.create(volume(active, phantom, tmp_path, slices=2))
    listing = active.segmentations.ListSegmentations
    calls = {
        "after_cursor": lambda: list(active.watch(asked, after=-1)),
        "page_token": lambda: listing(
            messages.ListSegmentationsRequest(project_id="project-a", page_token="x"), timeout=9
        ),
        "page_size": lambda: listing(
            messages.ListSegmentationsRequest(project_id="project-a", page_size=-1), timeout=9
        ),
        "states": lambda: listing(messages.ListSegmentationsRequest(project_id="project-a", states=[99]), timeout=9),
    }
    assert list(calls) == [refused(call).violations[0].field for call in calls.values()]
