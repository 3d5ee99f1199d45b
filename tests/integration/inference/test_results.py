"""The feed of results over gRPC: what is delivered, what takes whose place, what is left out."""

import hashlib
import threading
import uuid

import grpc
import numpy as np
import pytest
import SimpleITK as sitk
from refusals import refused, refused_with
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as messages

MODEL, CORRECTED, REVIEWED = (
    messages.RESULT_ORIGIN_MODEL,
    messages.RESULT_ORIGIN_CORRECTED,
    messages.RESULT_ORIGIN_REVIEWED,
)
#: The phantom's label values.
LIVER, SPLEEN = 6, 1


@pytest.fixture
def image(active, phantom, tmp_path):
    return active.upload(phantom.file(tmp_path), source={"accession_number": "A1"}).volume.volume_id


@pytest.fixture
def segmented(active, image):
    """The model's result of the image."""
    return active.result(active.ended(active.create(image)).result_id)


@pytest.fixture
def corrected(active, phantom, image, tmp_path):
    """Two masks that a person has made of the image."""
    masks = [phantom.mask, np.where(phantom.mask == SPLEEN, 0, phantom.mask).astype(np.uint8)]
    return [active.upload_mask(phantom.file(tmp_path, "mask", voxels=mask), image).volume.volume_id for mask in masks]


def chain(results):
    """What each result says of the others: origin, index of the one superseded, retracted."""
    index = {result.result_id: number for number, result in enumerate(results)}
    return [(r.origin, index.get(r.supersedes_result_id), r.retracted) for r in results]


def test_a_correction_takes_the_models_place(active, segmented, corrected):
    """Model, corrected, reviewed: each supersedes the one before, with the image's source for the archive."""
    active.publish(corrected[0], "s1", model_version_id=segmented.model_version_id)
    active.publish(corrected[0], "s1", origin=REVIEWED)
    results = active.feed(3)
    assert [(MODEL, None, False), (CORRECTED, 0, False), (REVIEWED, 1, False)] == chain(results)
    assert [1, 2, 3] == [result.cursor for result in results]
    assert ["A1"] * 3 == [result.source.accession_number for result in results]
    assert [segmented.volume_id] * 3 == [result.volume_id for result in results]
    assert (corrected[0], "s1", segmented.model_version_id) == (
        results[1].mask_volume_id,
        results[1].submission_id,
        results[1].model_version_id,
    )


def test_a_models_mask_does_not_take_a_persons_place(active, image, segmented, corrected):
    """A newer model's mask is told with the result that outranks it; once that is taken back, it may lead again."""
    person = active.publish(corrected[0], "s1")
    outranked = active.result(active.ended(active.create(image)).result_id)
    active.publish(corrected[0], "s1", retracted=True)
    after = active.result(active.ended(active.create(image)).result_id)
    results = active.feed(5)
    assert [
        (MODEL, None, False),
        (CORRECTED, 0, False),
        (MODEL, None, False),
        (CORRECTED, 1, True),
        (MODEL, 3, False),
    ] == chain(results)
    assert person.result_id == outranked.outranked_by_result_id
    assert "" == after.outranked_by_result_id


def test_taking_back_what_was_superseded_leaves_the_newer_one(active, segmented, corrected):
    """The retraction names what it takes back; the correction that came after it goes on to stand."""
    active.publish(corrected[0], "s1")
    newer = active.publish(corrected[1], "s2")
    active.publish(corrected[0], "s1", retracted=True)
    last = active.publish(corrected[1], "s2", origin=REVIEWED)
    assert [(CORRECTED, 0, False), (CORRECTED, 1, False), (CORRECTED, 1, True), (REVIEWED, 2, False)] == chain(
        active.feed(5)
    )[1:]
    assert newer.result_id == last.supersedes_result_id


@pytest.mark.parametrize("origin", [CORRECTED, REVIEWED])
def test_publishing_again_adds_nothing(active, corrected, origin):
    """Under the same request id, under another one, and the correction after its review; also the taking back."""
    request_id = uuid.uuid4().hex
    first = active.publish(corrected[0], "s1", origin=origin, request_id=request_id)
    same = active.publish(corrected[0], "s1", origin=origin, request_id=request_id)
    other = active.publish(corrected[0], "s1", origin=origin)
    late = active.publish(corrected[0], "s1")
    back = active.publish(corrected[0], "s1", retracted=True)
    again = active.publish(corrected[0], "s1", retracted=True)
    following = active.publish(corrected[1], "s2")
    assert first == same == other == late
    assert back == again
    assert [1, 2, 3] == [first.cursor, back.cursor, following.cursor]


def test_an_earlier_correction_stands_again(active, corrected):
    """Published once more after another one took its place, it is the newest word again."""
    active.publish(corrected[0], "s1")
    active.publish(corrected[1], "s2")
    active.publish(corrected[0], "s1")
    assert [(CORRECTED, None, False), (CORRECTED, 0, False), (CORRECTED, 1, False)] == chain(active.feed(3))


def test_watching_goes_on_from_a_cursor_and_waits(active, corrected):
    """A watcher has all that was there, and then what comes, in one order; a second one begins where it says."""
    active.publish(corrected[0], "s1")
    active.publish(corrected[1], "s2")
    call = active.segmentations.WatchResults(messages.WatchResultsRequest(project_id="project-a"), timeout=60)
    there = [next(call).result.submission_id for _ in range(2)]
    threading.Timer(0.2, lambda: active.publish(corrected[0], "s3")).start()
    assert ["s1", "s2", "s3"] == [*there, next(call).result.submission_id]
    call.cancel()
    assert ["s2", "s3"] == [result.submission_id for result in active.feed(2, after=1)]


def test_a_watcher_is_told_to_come_again_when_the_service_ends(start, active, corrected):
    """UNAVAILABLE, so that a client goes on after its cursor; another process has all of the feed."""
    active.publish(corrected[0], "s1")
    call = active.segmentations.WatchResults(messages.WatchResultsRequest(project_id="project-a"), timeout=60)
    seen = next(call).result
    errors = []
    waiting = threading.Thread(target=lambda: errors.append(refused_with(lambda: next(call))[0]))
    waiting.start()
    start.stop(active)
    waiting.join(30)
    again = start()
    again.publish(corrected[1], "s2")
    assert [grpc.StatusCode.UNAVAILABLE] == errors
    assert ["s2"] == [result.submission_id for result in again.feed(1, after=seen.cursor)]


def test_projects_have_feeds_of_their_own(active, corrected, phantom, tmp_path):
    """Cursors count within the project, and no project sees another's results."""
    active.publish(corrected[0], "s1")
    other = active.upload(phantom.file(tmp_path), project_id="project-b").volume.volume_id
    mask = active.upload_mask(phantom.file(tmp_path, "mask"), other, project_id="project-b").volume.volume_id
    theirs = active.publish(mask, "s1", project_id="project-b")
    error = refused(lambda: active.result(theirs.result_id))
    assert 1 == theirs.cursor
    assert "RESULT_NOT_FOUND" == error.reason
    assert ["project-a"] == [result.project_id for result in active.feed(1)]


def test_lists_the_results_of_an_image_newest_first(active, image, segmented, corrected):
    """Pages follow each other without gaps."""
    active.publish(corrected[0], "s1")
    active.publish(corrected[1], "s2")
    request = messages.ListResultsRequest(project_id="project-a", volume_id=image, page_size=2)
    first = active.segmentations.ListResults(request, timeout=10)
    request.page_token = first.next_page_token
    second = active.segmentations.ListResults(request, timeout=10)
    assert [[3, 2], [1]] == [[result.cursor for result in page.results] for page in (first, second)]
    assert "" == second.next_page_token


def test_abstains_from_organs_below_the_limit(active, segmented, image, phantom, tmp_path):
    """The organ is not in the mask, its quality is, and the field says why; the others are untouched."""
    liver, spleen = segmented.quality
    limit = (spleen.soft_dice_confidence + 1) / 2
    active.limit(
        inference.QualityLimit(organ_id="spleen", min_soft_dice_confidence=limit),
        # Exactly at its limit, which is not below it.
        inference.QualityLimit(organ_id="liver", min_soft_dice_confidence=liver.soft_dice_confidence),
    )
    result = active.result(active.ended(active.create(image)).result_id)
    _, mask = active.download(result.mask_volume_id, tmp_path)
    (abstention,) = result.abstentions
    assert np.array_equal(np.where(phantom.mask == LIVER, LIVER, 0), sitk.GetArrayFromImage(mask))
    assert ("spleen", spleen.soft_dice_confidence, limit, inference.ABSTENTION_REASON_LOW_CONFIDENCE) == (
        abstention.organ_id,
        abstention.soft_dice_confidence,
        abstention.limit,
        abstention.reason,
    )
    assert "spleen" in abstention.message
    assert segmented.quality == result.quality
    assert segmented.result_id == result.supersedes_result_id
    # What annotators correct has all organs, as before.
    (prediction,) = active.predict(image)
    assert segmented.mask_volume_id == prediction.prediction.mask_volume_id
    _, coarse = active.download(prediction.prediction.mask_volume_id, tmp_path)
    assert np.array_equal(phantom.mask, sitk.GetArrayFromImage(coarse))


def test_a_streamed_segmentation_abstains_too(active, phantom, tmp_path):
    """The same limits, the same field, and the label is not in the file."""
    active.limit(inference.QualityLimit(organ_id="liver", min_soft_dice_confidence=1.0))
    data = phantom.file(tmp_path).read_bytes()
    header = inference.SegmentHeader(
        project_id="project-a",
        model=inference.ModelSelector(active=True),
        format=common.FILE_FORMAT_NIFTI,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    parts = [inference.SegmentRequest(header=header), inference.SegmentRequest(chunk=data)]
    answers = list(active.inference.Segment(iter(parts), timeout=60))
    (result,) = [answer.result for answer in answers if answer.HasField("result")]
    path = tmp_path / "mask.nii.gz"
    path.write_bytes(b"".join(answer.chunk for answer in answers))
    assert ["liver"] == [abstention.organ_id for abstention in result.abstentions]
    assert {0, SPLEEN} == set(np.unique(sitk.GetArrayFromImage(sitk.ReadImage(str(path)))))


@pytest.mark.parametrize(("strict", "left_out"), [(False, []), (True, ["spleen"])])
def test_nothing_found_is_believed_unless_the_limit_says_otherwise(active, phantom, tmp_path, strict, left_out):
    """Without voxels there is no confidence to compare: the limit itself decides."""
    phantom.image[phantom.mask == SPLEEN] = 0
    image = active.upload(phantom.file(tmp_path)).volume.volume_id
    active.limit(
        inference.QualityLimit(organ_id="spleen", min_soft_dice_confidence=0.9, abstain_when_nothing_found=strict)
    )
    result = active.result(active.ended(active.create(image)).result_id)
    assert left_out == [abstention.organ_id for abstention in result.abstentions]
    assert not any(abstention.HasField("soft_dice_confidence") for abstention in result.abstentions)


def test_limits_are_kept_replaced_and_of_one_project(active):
    """Setting them again is the whole truth; another project has none of them."""
    liver = inference.QualityLimit(organ_id="liver", min_soft_dice_confidence=0.5)
    spleen = inference.QualityLimit(organ_id="spleen", min_soft_dice_confidence=0.7, abstain_when_nothing_found=True)
    ask = lambda project: list(  # noqa: E731
        active.segmentations.GetQualityLimits(messages.GetQualityLimitsRequest(project_id=project), timeout=9).limits
    )
    active.limit(spleen, liver)
    both, elsewhere = ask("project-a"), ask("project-b")
    active.limit(liver)
    assert ([liver, spleen], [], [liver]) == (both, elsewhere, ask("project-a"))


BAD_LIMITS = {
    "below 0": ([("liver", -0.1)], "INVALID_INPUT"),
    "above 1": ([("liver", 1.1)], "INVALID_INPUT"),
    "no number": ([("liver", float("nan"))], "INVALID_INPUT"),
    "a nameless organ": ([("", 0.5)], "INVALID_INPUT"),
    "a path as organ": ([("../liver", 0.5)], "INVALID_INPUT"),
    "an organ twice": ([("liver", 0.5), ("liver", 0.6)], "INVALID_INPUT"),
    "a misspelt organ": ([("livr", 0.5)], "UNKNOWN_ORGAN"),
}


def test_refuses_wrong_limits(active):
    """A typed error for each, and those that were there stay."""
    good = inference.QualityLimit(organ_id="liver", min_soft_dice_confidence=0.5)
    active.limit(good)
    found = {}
    for name, (limits, _) in BAD_LIMITS.items():
        wrong = [inference.QualityLimit(organ_id=organ, min_soft_dice_confidence=least) for organ, least in limits]
        found[name] = refused(lambda wrong=wrong: active.limit(*wrong)).reason
    asked = messages.GetQualityLimitsRequest(project_id="project-a")
    assert {name: reason for name, (_, reason) in BAD_LIMITS.items()} == found
    assert [good] == list(active.segmentations.GetQualityLimits(asked, timeout=9).limits)


BAD_PUBLICATIONS = {
    "a mask that is not there": ({"mask_volume_id": "none"}, "VOLUME_NOT_FOUND"),
    "no submission": ({"submission_id": ""}, "INVALID_INPUT"),
    "a submission with a path": ({"submission_id": "../../x"}, "INVALID_INPUT"),
    "an endless submission": ({"submission_id": "x" * 129}, "INVALID_INPUT"),
    "a model's origin": ({"origin": MODEL}, "INVALID_INPUT"),
    "no origin": ({"origin": 0}, "INVALID_INPUT"),
    "an unknown origin": ({"origin": 9}, "INVALID_INPUT"),
    "a model that is not there": ({"model_version_id": "none"}, "MODEL_NOT_FOUND"),
    "taking back what was never there": ({"retracted": True}, "RESULT_NOT_FOUND"),
    "another project's mask": ({"project_id": "project-b"}, "VOLUME_NOT_FOUND"),
    "no request id": ({"request_id": ""}, "INVALID_INPUT"),
}


def test_refuses_wrong_publications(active, corrected):
    """A typed error for each, and no place in the feed is taken."""
    good = {"mask_volume_id": corrected[0], "submission_id": "s1"}
    found = {
        name: refused(lambda fields=fields: active.publish(**{**good, **fields})).reason
        for name, (fields, _) in BAD_PUBLICATIONS.items()
    }
    assert {name: reason for name, (_, reason) in BAD_PUBLICATIONS.items()} == found
    assert 1 == active.publish(corrected[0], "s2").cursor


def test_refuses_to_publish_an_image(active, image):
    """Only masks are results."""
    code, error = refused_with(lambda: active.publish(image, "s1"))
    assert (grpc.StatusCode.INVALID_ARGUMENT, "mask_volume_id") == (code, error.violations[0].field)


def test_refuses_a_cursor_below_zero(active):
    """It names the field."""
    error = refused(lambda: active.feed(1, after=-1))
    assert "after_cursor" == error.violations[0].field
