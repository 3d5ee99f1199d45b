"""Voxels expected to be wrong: sums that can be done by hand, and grids of another resolution."""

import numpy as np
import pytest
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.uncertainty import slice_uncertainties


def grid(columns, rows, slices, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0)):
    return Geometry(
        size=(columns, rows, slices),
        spacing_mm=spacing,
        origin_mm=origin,
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )


@pytest.fixture
def by_hand():
    """Three slices of 1 x 4 voxels with background, liver, spleen: probabilities (D, K, H, W) and the mask."""
    liver = [[0.9, 0.6, 0.2, 0.0], [0.5, 0.5, 0.5, 0.5], [0.0, 0.005, 0.0, 0.0]]
    spleen = [[0.0, 0.3, 0.7, 0.25], [0.0, 0.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    p = np.zeros((3, 3, 1, 4), np.float32)
    p[:, 1, 0], p[:, 2, 0] = liver, spleen
    p[:, 0] = 1 - p[:, 1] - p[:, 2]
    mask = np.asarray([[[1, 1, 2, 0]], [[0, 0, 0, 0]], [[0, 0, 0, 0]]], np.uint8)
    return p, mask


def test_sums_of_each_organ_are_those_done_by_hand(by_hand):
    """1 - p where the mask has the organ, p where it has not."""
    p, mask = by_hand
    _, liver, spleen = slice_uncertainties(p, grid(4, 1, 3), mask, grid(4, 1, 3))
    # Slice 0: liver 0.1 + 0.4 inside, 0.2 outside. Slice 1: 4 x 0.5 missed. Slice 2: below 0.01, so nothing.
    assert pytest.approx([0.7, 2.0, 0.0], abs=1e-6) == liver.voxels_wrong
    # Spleen 0.3 inside; 0.3 + 0.25 outside.
    assert pytest.approx([0.85, 0.0, 0.0], abs=1e-6) == spleen.voxels_wrong
    # 2 (0.9 + 0.6) / (2 + 1.7) missing from 1; all of an organ missing is full doubt; nothing likely is none.
    assert pytest.approx([1 - 3.0 / 3.7, 1.0, 0.0], abs=1e-6) == liver.uncertainty


def test_a_voxel_is_wrong_once_among_all_organs(by_hand):
    """The sum of 1 - p of what the mask says, not the sum over the organs."""
    p, mask = by_hand
    both = slice_uncertainties(p, grid(4, 1, 3), mask, grid(4, 1, 3))[0]
    # Slice 0: 0.1 + 0.4 + 0.3 + 0.25.
    assert pytest.approx([1.05, 2.0, 0.0], abs=1e-6) == both.voxels_wrong
    # Within: 1.5 + 0.7; sizes: liver 2 + 1.7, spleen 1 + 1.25.
    assert pytest.approx([1 - 4.4 / 5.95, 1.0, 0.0], abs=1e-6) == both.uncertainty


def test_a_finer_native_grid_is_interpolated_linearly():
    """Between a slice at p = 0.8 and one at p = 0.4 lies one at 0.6; voxels are those of the native grid."""
    p = np.zeros((2, 2, 2, 2), np.float32)
    p[:, 1] = np.asarray([0.8, 0.4])[:, None, None]
    p[:, 0] = 1 - p[:, 1]
    model = grid(2, 2, 2, spacing=(2.0, 2.0, 2.0), origin=(0.5, 0.5, 0.0))
    native = grid(4, 4, 3)
    mask = np.ones((3, 4, 4), np.uint8)
    both, organ = slice_uncertainties(p, model, mask, native)
    assert pytest.approx([16 * 0.2, 16 * 0.4, 16 * 0.6], abs=1e-4) == organ.voxels_wrong
    assert pytest.approx(list(organ.voxels_wrong), abs=1e-6) == both.voxels_wrong


def test_what_the_model_grid_does_not_cover_is_background():
    """An organ drawn there is expected to be wrong altogether; nothing drawn there is expected to be right."""
    p = np.zeros((1, 2, 2, 2), np.float32)
    p[:, 1] = 1.0
    mask = np.zeros((3, 2, 2), np.uint8)
    mask[2] = 1
    _, organ = slice_uncertainties(p, grid(2, 2, 1), mask, grid(2, 2, 3))
    assert pytest.approx([4.0, 0.0, 4.0]) == organ.voxels_wrong


@pytest.mark.parametrize("flipped", [False, True])
def test_sums_are_those_of_a_simulation(flipped):
    """Truths drawn voxel by voxel from p differ from the mask in as many voxels as are expected, within 4 sigma."""
    rng = np.random.default_rng(5)
    raw = rng.random((4, 3, 8, 9)) ** 3
    raw[:, 1:][raw[:, 1:] / raw.sum(axis=1, keepdims=True) < 0.02] = 0
    p = (raw / raw.sum(axis=1, keepdims=True)).astype(np.float32)
    mask = p.argmax(axis=1).astype(np.uint8)
    model = native = grid(9, 8, 4)
    if flipped:  # the same voxels, stored from the other end
        native = Geometry(
            size=(9, 8, 4), spacing_mm=(1, 1, 1), origin_mm=(0, 7, 3), direction=(1, 0, 0, 0, -1, 0, 0, 0, -1)
        )
        mask = mask[::-1, ::-1]
    uncertainties = slice_uncertainties(p, model, mask, native)
    seen = p[::-1, :, ::-1] if flipped else p
    draws = 400
    drawn = np.stack([(rng.random(seen[:, :1].shape) > seen.cumsum(axis=1)).sum(axis=1) for _ in range(draws)])
    for found, wrong in [
        (uncertainties[0], drawn != mask),
        (uncertainties[1], (drawn == 1) != (mask == 1)),
        (uncertainties[2], (drawn == 2) != (mask == 2)),
    ]:
        counts = wrong.sum(axis=(2, 3))
        tolerance = 4 * counts.std(axis=0) / draws**0.5
        assert (np.abs(counts.mean(axis=0) - found.voxels_wrong) < tolerance).all()
