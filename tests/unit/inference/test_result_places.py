"""Results: which takes the place of which."""

from datetime import UTC, datetime

import pytest
from rekindle_inference.domain.results import Place, Result, ResultOrigin, place_mask, place_retraction, says_already

MODEL, CORRECTED, REVIEWED = ResultOrigin.MODEL, ResultOrigin.CORRECTED, ResultOrigin.REVIEWED


def result(origin, *, retracted=False, mask="mask", name="head"):
    return Result(
        result_id=name,
        project_id="p",
        cursor=1,
        image_volume_id="image",
        mask_volume_id=mask,
        origin=origin,
        retracted=retracted,
        leads=True,
        created_at=datetime(2030, 1, 1, tzinfo=UTC),
    )


@pytest.mark.parametrize(
    ("head", "origin", "expected"),
    [
        (None, MODEL, Place(leads=True)),
        (None, CORRECTED, Place(leads=True)),
        (result(MODEL), MODEL, Place(supersedes="head", leads=True)),
        (result(MODEL), CORRECTED, Place(supersedes="head", leads=True)),
        (result(CORRECTED), REVIEWED, Place(supersedes="head", leads=True)),
        (result(REVIEWED), CORRECTED, Place(supersedes="head", leads=True)),
        (result(CORRECTED), MODEL, Place(outranked_by="head", leads=False)),
        (result(REVIEWED), MODEL, Place(outranked_by="head", leads=False)),
        (result(CORRECTED, retracted=True), MODEL, Place(supersedes="head", leads=True)),
    ],
)
def test_places_a_mask_by_who_made_the_newest(head, origin, expected):
    """Persons take anybody's place, models only models', and what was taken back bars nobody."""
    assert expected == place_mask(head, origin)


def test_taking_back_leads_only_where_the_mask_did():
    """Taking back an older mask says nothing of the newer one."""
    taken_back = result(CORRECTED, name="r")
    assert Place(supersedes="r", leads=True) == place_retraction(taken_back, taken_back)
    assert Place(supersedes="r", leads=False) == place_retraction(result(CORRECTED), taken_back)


@pytest.mark.parametrize(
    ("newest", "origin", "retracted", "said"),
    [
        (None, CORRECTED, False, False),
        (result(CORRECTED), CORRECTED, False, True),
        (result(CORRECTED), REVIEWED, False, False),
        (result(REVIEWED), CORRECTED, False, True),
        (result(CORRECTED, mask="other"), CORRECTED, False, False),
        (result(CORRECTED), CORRECTED, True, False),
        (result(CORRECTED, retracted=True), REVIEWED, True, True),
        (result(CORRECTED, retracted=True), CORRECTED, False, False),
    ],
)
def test_knows_what_the_feed_says_already(newest, origin, retracted, said):
    """A review is more than a correction; what was taken back can be published again."""
    assert said is says_already(newest, newest, mask_volume_id="mask", origin=origin, retracted=retracted)


def test_a_mask_that_was_superseded_can_stand_again():
    """When the correction after it is withdrawn, the earlier one is told anew."""
    earlier, later = result(CORRECTED, name="earlier"), result(CORRECTED, name="later")
    assert not says_already(later, earlier, mask_volume_id="mask", origin=CORRECTED, retracted=False)
