"""Measures of masks against hand calculation, scipy and SimpleITK."""

import math

import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.masks import (
    added_path_length_mm,
    boundary_length_mm,
    count_components,
    dice,
    keep_largest_per_class,
    largest_component,
    removed_components,
    voxels_changed,
)


def _grid(shape: tuple[int, int, int], spacing: tuple[float, float, float] = (1, 1, 1)) -> Geometry:
    return Geometry(
        size=(shape[2], shape[1], shape[0]),
        spacing_mm=spacing,
        origin_mm=(0, 0, 0),
        direction=(1, 0, 0, 0, 1, 0, 0, 0, 1),
    )


def _square(side: int, at: int = 10, shape: tuple[int, int, int] = (1, 100, 100)) -> NDArray[np.bool_]:
    mask = np.zeros(shape, bool)
    mask[:, at : at + side, at : at + side] = True
    return mask


def _noise(seed: int, share: float = 0.12) -> NDArray[np.bool_]:
    return np.random.default_rng(seed).random((12, 30, 25)) < share


def _disc(radius_mm: float, spacing: tuple[float, float]) -> tuple[NDArray[np.bool_], Geometry]:
    n = (int(2.6 * radius_mm / spacing[1]), int(2.6 * radius_mm / spacing[0]))
    y, x = np.mgrid[: n[0], : n[1]].astype(float)
    ring = np.hypot((x - n[1] / 2 + 0.3) * spacing[0], (y - n[0] / 2 + 0.1) * spacing[1])
    return (ring <= radius_mm)[None], _grid((1, *n), (*spacing, 4.0))


def test_dice_by_hand() -> None:
    """Two squares of 16 that share 4 have Dice 0.25; one empty mask gives 0, two give None."""
    a, b = _square(4, 10), _square(4, 12)
    assert 0.25 == dice(a, b)
    assert 0.0 == dice(a, a & False)
    assert dice(a & False, a & False) is None


def test_masks_of_different_shapes_are_refused() -> None:
    """Nothing is broadcast."""
    for measure in (dice, voxels_changed, removed_components):
        with pytest.raises(ValueError, match="shapes"):
            measure(np.ones((2, 2, 2), bool), np.ones((1, 2, 2), bool))


@pytest.mark.parametrize("seed", range(4))
def test_components_are_those_of_simpleitk(seed: int) -> None:
    """Number and largest of the 26-connected components are SimpleITK's."""
    mask = _noise(seed, 0.05)
    labels = sitk.ConnectedComponent(sitk.GetImageFromArray(mask.astype(np.uint8)), True)
    relabelled = sitk.GetArrayFromImage(sitk.RelabelComponent(labels))
    assert int(relabelled.max()) == count_components(mask)
    kept = largest_component(mask)
    assert int((relabelled == 1).sum()) == int(kept.sum())
    assert 1 == count_components(kept)
    assert not (kept & ~mask).any()


def test_nothing_has_no_components() -> None:
    """An empty mask has none, and the largest of none is empty."""
    empty = np.zeros((3, 4, 5), bool)
    assert 0 == count_components(empty)
    assert not largest_component(empty).any()
    assert 0 == removed_components(empty, ~empty)


def test_a_corner_connects() -> None:
    """Voxels that touch at a corner are one component."""
    mask = np.zeros((2, 2, 2), bool)
    mask[0, 0, 0] = mask[1, 1, 1] = True
    assert 1 == count_components(mask)


def test_each_class_keeps_its_largest() -> None:
    """Islands of a class become background, whatever touches them."""
    classes = np.zeros((1, 20, 20), np.uint8)
    classes[0, 2:8, 2:8], classes[0, 8:10, 2:4], classes[0, 15:17, 15:17] = 1, 2, 2
    classes[0, 18, 18] = 1
    classes[0, 17, 17] = 2
    expected = classes.copy()
    expected[0, 18, 18] = 0
    expected[0, 8:10, 2:4] = 0
    np.testing.assert_array_equal(expected, keep_largest_per_class(classes, 3))


def test_removed_components_touch_no_truth() -> None:
    """Of three islands the one that overlaps the truth stays."""
    prediction = _square(5, 10) | _square(3, 40) | _square(2, 60)
    assert 2 == removed_components(prediction, _square(8, 12))
    assert 3 == removed_components(prediction, prediction & False)


def test_changed_voxels_by_hand() -> None:
    """Two squares of 16 that share 4 differ in 24 voxels."""
    assert 24 == voxels_changed(_square(4, 10), _square(4, 12))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.7, 1.9)])
def test_contour_of_a_square(spacing: tuple[float, float]) -> None:
    """A rectangle's contour is its perimeter, less what four cut corners save."""
    grid = _grid((3, 100, 100), (*spacing, 5.0))
    cut = 4 * (sum(spacing) - math.hypot(*spacing)) / 2
    expected = 3 * (2 * 40 * spacing[0] + 2 * 40 * spacing[1] - cut)
    assert expected == pytest.approx(boundary_length_mm(_square(40, shape=(3, 100, 100)), grid))


@pytest.mark.parametrize(("spacing", "excess"), [((1.0, 1.0), 0.06), ((1.5, 1.5), 0.06), ((0.8, 1.6), 0.09)])
def test_contour_of_a_circle(spacing: tuple[float, float], excess: float) -> None:
    """A circle's contour is at most 6 per cent too long on square pixels, 9 where they are twice as tall."""
    mask, grid = _disc(40.0, spacing)
    ratio = boundary_length_mm(mask, grid) / (2 * math.pi * 40)
    assert 1.0 <= ratio <= 1 + excess


def test_a_mask_at_the_edge_has_a_contour_there() -> None:
    """The image's edge bounds a mask like background does."""
    full = np.ones((2, 30, 20), bool)
    assert 2 * (100 - 4 * (2 - math.sqrt(2)) / 2) == pytest.approx(boundary_length_mm(full, _grid((2, 30, 20))))


def test_no_path_is_added_where_nothing_differs() -> None:
    """Equal masks, and masks that differ by less than the tolerance, need no drawing."""
    grid = _grid((1, 100, 100))
    assert 0.0 == added_path_length_mm(_square(40), _square(40), grid)
    assert 0.0 == added_path_length_mm(_square(40, 12), _square(40), grid, tolerance_mm=3.0)
    assert 0.0 == added_path_length_mm(_square(40), _square(40) & False, grid)


def test_the_whole_contour_is_added_where_nothing_is_offered() -> None:
    """Without a prediction in a slice, or with one far away, all of the truth's contour counts."""
    grid = _grid((2, 100, 100), (1.3, 0.9, 5.0))
    truth = _square(30, shape=(2, 100, 100))
    whole = boundary_length_mm(truth, grid)
    assert whole == pytest.approx(added_path_length_mm(truth & False, truth, grid))
    assert whole == pytest.approx(added_path_length_mm(_square(20, 70, (2, 100, 100)), truth, grid))
    half = truth.copy()
    half[1] = False
    assert whole / 2 == pytest.approx(added_path_length_mm(half, truth, grid))


@pytest.mark.parametrize("spacing", [(1.0, 1.0), (0.5, 2.0)])
def test_a_moved_side_is_added(spacing: tuple[float, float]) -> None:
    """A prediction that misses ten columns leaves the far side and what leads to it, beyond the tolerance."""
    grid = _grid((1, 100, 100), (*spacing, 5.0))
    truth = np.zeros((1, 100, 100), bool)
    truth[0, 20:60, 10:60] = True
    prediction = truth.copy()
    prediction[0, :, 50:] = False
    tolerance = 2.2 * spacing[0]
    got = added_path_length_mm(prediction, truth, grid, tolerance_mm=tolerance)
    # The far side of 40 rows, and above and below it the columns beyond the tolerance.
    straight = 40 * spacing[1] + 2 * 10 * spacing[0]
    assert straight - 2 * (3 * spacing[0]) == pytest.approx(got, abs=sum(spacing) + spacing[0])


def test_spacing_decides_what_is_near() -> None:
    """Two pixels are within 3 mm at 1 mm and beyond it at 2 mm."""
    truth, prediction = _square(40, 10), _square(44, 8)
    assert 0.0 == added_path_length_mm(prediction, truth, _grid((1, 100, 100)))
    wide = _grid((1, 100, 100), (2.0, 2.0, 5.0))
    assert boundary_length_mm(truth, wide) == pytest.approx(added_path_length_mm(prediction, truth, wide))


@pytest.mark.parametrize("seed", range(3))
def test_adding_equals_a_search_of_all_pairs(seed: int) -> None:
    """On noise, the added length is what comparing every contour cell with every other gives."""
    grid = _grid((12, 30, 25), (1.2, 0.7, 3.0))
    truth, prediction = _noise(seed, 0.02), _noise(seed + 50, 0.01)
    expected = 0.0
    for wanted, offered in zip(truth, prediction, strict=True):
        lines, others = _cells(wanted, 1.2, 0.7), _cells(offered, 1.2, 0.7)
        for (y, x), length in lines.items():
            near = any(math.hypot((y - v) * 0.7, (x - u) * 1.2) <= 3.0 for v, u in others)
            expected += 0.0 if near else length
    assert expected > 0
    assert expected == pytest.approx(added_path_length_mm(prediction, truth, grid), rel=1e-5)


def _cells(mask: NDArray[np.bool_], column_mm: float, row_mm: float) -> dict[tuple[int, int], float]:
    """Marching squares, cell by cell, by the rules of the method."""
    padded = np.pad(mask, 1)
    cells: dict[tuple[int, int], float] = {}
    for y in range(padded.shape[0] - 1):
        for x in range(padded.shape[1] - 1):
            cell = padded[y : y + 2, x : x + 2]
            corner = math.hypot(column_mm, row_mm) / 2
            if cell.sum() in (1, 3):
                cells[y, x] = corner
            elif cell.sum() == 2 and cell[0, 0] == cell[0, 1]:
                cells[y, x] = column_mm
            elif cell.sum() == 2 and cell[0, 0] == cell[1, 0]:
                cells[y, x] = row_mm
            elif cell.sum() == 2:
                cells[y, x] = 2 * corner
    return cells
