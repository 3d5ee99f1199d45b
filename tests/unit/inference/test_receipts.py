"""Whether a mask fits, and what is said when it does not."""

import numpy as np
import pytest
from rekindle.errors import InvalidInput
from rekindle.vocabulary import Organ
from rekindle_imaging.geometry import Geometry
from rekindle_inference.domain.receipts import (
    check_geometry,
    check_labels,
    correction_effort,
    found_organs,
)

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
TURNED = (0.0, -1.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0)
ORGANS = [Organ(id="liver", label_value=1), Organ(id="spleen", label_value=7)]


def grid(**changes):
    fields = {
        "size": (10, 10, 4),
        "spacing_mm": (2.0, 2.0, 5.0),
        "origin_mm": (0.0, 0.0, 0.0),
        "direction": IDENTITY,
    }
    return Geometry(**{**fields, **changes})


def test_float32_rounding_is_no_mismatch():
    """What a NIfTI header loses does not matter."""
    check_geometry(grid(origin_mm=(0.004, 0.0, 0.0), spacing_mm=(2.0000002, 2.0, 5.0)), grid())


@pytest.mark.parametrize(
    ("changes", "named", "not_named"),
    [
        ({"size": (11, 10, 4)}, ["size"], ["spacing", "origin", "direction"]),
        ({"spacing_mm": (2.0, 2.0, 5.1)}, ["spacing"], ["size", "origin", "direction"]),
        ({"origin_mm": (1.0, 0.0, 0.0)}, ["origin"], ["size", "spacing", "direction"]),
        ({"direction": TURNED}, ["direction"], ["size", "spacing", "origin"]),
        ({"size": (9, 9, 9), "origin_mm": (0.0, 0.0, 9.0)}, ["size", "origin"], ["spacing"]),
    ],
)
def test_the_message_names_what_differs(changes, named, not_named):
    """And only that."""
    with pytest.raises(InvalidInput) as refused:
        check_geometry(grid(**changes), grid())
    assert "GEOMETRY_MISMATCH" == refused.value.reason
    assert all(word in refused.value.message for word in named)
    assert not any(f"{word} (" in refused.value.message for word in not_named)


def test_a_drift_that_no_field_shows_is_still_a_mismatch():
    """Small spacing errors add up over many voxels."""
    with pytest.raises(InvalidInput):
        check_geometry(grid(size=(500, 10, 4), spacing_mm=(2.0001, 2.0, 5.0)), grid(size=(500, 10, 4)))


def test_unknown_label_values_are_listed_up_to_a_limit():
    """A mask full of nonsense gives a message of bounded length."""
    voxels = np.arange(256, dtype=np.uint8).reshape(4, 8, 8)
    with pytest.raises(InvalidInput, match=r"2, 3, 4, 5, 6, 8, .* and 237 more") as refused:
        check_labels(voxels, ORGANS)
    assert "UNKNOWN_LABEL_VALUES" == refused.value.reason


def test_known_label_values_pass():
    """Background and the organs' values, whether all occur or none."""
    check_labels(np.asarray([[[0, 1, 7]]], np.uint8), ORGANS)
    check_labels(np.zeros((1, 1, 3), np.uint8), ORGANS)


def test_found_organs_in_millilitres():
    """Three voxels of 2 x 2 x 5 mm are 0.06 ml."""
    voxels = np.zeros((4, 10, 10), np.uint8)
    voxels[0, 0, :3] = 7
    liver, spleen = found_organs(voxels, ORGANS, grid())
    assert (0, 0.0, 3, pytest.approx(0.06)) == (liver.voxels, liver.volume_ml, spleen.voxels, spleen.volume_ml)


def test_an_unchanged_label_is_no_effort():
    """Accepting a coarse label as it is costs nothing."""
    voxels = np.zeros((4, 10, 10), np.uint8)
    voxels[1:3, 2:8, 2:8] = 1
    liver, spleen = correction_effort(voxels, voxels, ORGANS, grid())
    assert (0, 0.0, 1.0, 0) == (
        liver.voxels_changed,
        liver.added_path_length_mm,
        liver.dice,
        liver.components_removed,
    )
    assert spleen.dice is None
