"""Two campaigns compared by what they did."""

import copy

import pytest
from rekindle.errors import NotFound
from rekindle_local.history import differences, read_history, write_history

HISTORY = {
    "options": {"seed": 0},
    "rounds": [
        {"number": 0, "cases": [], "serving": "aa", "snapshot": "s0"},
        {"number": 1, "cases": ["case_01"], "serving": "bb", "snapshot": "s1"},
    ],
    "coarse_labels": {"case_01": {"model": "aa", "mask": "m1"}, "case_02": {"model": "bb", "mask": "m2"}},
}


def changed(change):
    other = copy.deepcopy(HISTORY)
    change(other)
    return differences(HISTORY, other)


def test_the_same_campaign_has_no_differences(tmp_path):
    """Also after it was written and read."""
    write_history(HISTORY, tmp_path)
    assert [] == differences(HISTORY, read_history(tmp_path))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda h: h["coarse_labels"]["case_02"].update(mask="other"), "coarse labels of case_02"),
        (lambda h: h["coarse_labels"].pop("case_01"), "coarse labels of case_01"),
        (lambda h: h["rounds"][1].update(snapshot="x", serving="y"), "round 1: serving, snapshot"),
        (lambda h: h["rounds"].pop(), "2 rounds and 1"),
    ],
)
def test_every_difference_is_named(change, said):
    """A label, a snapshot or a round that is not the same."""
    assert [said] == changed(change)


def test_different_campaigns_are_not_compared():
    """Another seed is another campaign."""
    assert "different campaigns" in changed(lambda h: h["options"].update(seed=1))[0]


def test_a_folder_without_a_campaign_is_named(tmp_path):
    """What to do is said."""
    with pytest.raises(NotFound, match="run the campaign"):
        read_history(tmp_path)
