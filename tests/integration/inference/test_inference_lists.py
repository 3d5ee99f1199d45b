"""Lists of the inference service: all of them page alike."""

from collections.abc import Callable
from typing import Any

import pytest
from refusals import refused
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as segmentations
from rekindle.api.inference.v1 import volumes_pb2 as volumes

PROJECT = "project-a"
SERIES = "1.2.840.1"
LISTS = ["models", "segmentations", "results", "volumes"]


@pytest.fixture
def lists(active, phantom, tmp_path) -> dict[str, Callable[..., Any]]:
    """Each list as a function of its paging, over a project that has two of everything."""
    path = phantom.file(tmp_path)
    images = [active.upload(path, source={"series_instance_uid": SERIES}).volume.volume_id for _ in range(2)]
    for image in [images[0], images[0]]:
        assert active.ended(active.create(image)).result_id
    asked = {
        "models": (active.inference.ListModels, inference.ListModelsRequest(project_id=PROJECT)),
        "segmentations": (
            active.segmentations.ListSegmentations,
            segmentations.ListSegmentationsRequest(project_id=PROJECT),
        ),
        "results": (
            active.segmentations.ListResults,
            segmentations.ListResultsRequest(project_id=PROJECT, volume_id=images[0]),
        ),
        "volumes": (
            active.volumes.FindVolumes,
            volumes.FindVolumesRequest(project_id=PROJECT, series_instance_uid=SERIES),
        ),
    }

    def listing(method: Any, request: Any) -> Callable[..., Any]:
        def ask(**paging: Any) -> Any:
            return method(type(request)(**{field.name: value for field, value in request.ListFields()}, **paging))

        return ask

    return {name: listing(*pair) for name, pair in asked.items()}


def test_every_list_refuses_a_negative_page_size(lists):
    """A size below zero is a mistake and not the default."""
    fields = [refused(lambda name=name: lists[name](page_size=-1)).violations[0].field for name in LISTS]
    assert ["page_size"] * 4 == fields


def test_every_list_refuses_what_is_no_token(lists):
    """Numbers and ids, which tokens once were, too."""
    for token in ["1", "none", "\x00", "é", "x" * 100_000]:
        fields = [refused(lambda n=name, t=token: lists[n](page_token=t)).violations[0].field for name in LISTS]
        assert ["page_token"] * 4 == fields


def test_a_token_belongs_to_its_list(lists):
    """The token of one list is refused by the others."""
    token = lists["segmentations"](page_size=1).next_page_token
    assert token
    others = [name for name in LISTS if name != "segmentations"]
    fields = [refused(lambda name=name: lists[name](page_token=token)).violations[0].field for name in others]
    assert ["page_token"] * 3 == fields


def test_a_token_belongs_to_its_filters(lists):
    """A list that is asked for other things must begin with its first page."""
    token = lists["segmentations"](page_size=1).next_page_token
    changed = refused(lambda: lists["segmentations"](page_token=token, volume_id="other"))
    assert "page_token" == changed.violations[0].field
