"""The simulated annotator's minutes follow the stated model."""

import dataclasses

import numpy as np
import pytest
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_local.annotator import Annotator, TimeModel

GEOMETRY = Geometry(
    size=(40, 40, 5),
    spacing_mm=(1.0, 1.0, 4.0),
    origin_mm=(0.0, 0.0, 0.0),
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)
ORGANS = {"liver": 1}
QUIET = TimeModel(
    name="quiet",
    reading_s_per_slice=2.0,
    drawing_s_per_mm=0.5,
    tolerance_mm=3.0,
    removal_s_per_component=30.0,
    noise_sigma=0.0,
)


def squares(*boxes: tuple[int, int, int, int], slices: slice = slice(1, 3)) -> Volume:
    """Label 1 in boxes (first row, last row, first column, last column), in two slices by default."""
    voxels = np.zeros(GEOMETRY.shape, dtype=np.uint8)
    for top, bottom, left, right in boxes:
        voxels[slices, top:bottom, left:right] = 1
    return Volume(voxels=voxels, geometry=GEOMETRY)


SQUARE = (5, 25, 5, 25)


def quiet() -> Annotator:
    """An annotator without noise, for one organ."""
    return Annotator(0, organs=ORGANS, model=QUIET)


def test_perfect_label_costs_reading_only() -> None:
    """5 slices at 2 s: 10 s, and nothing to draw or remove."""
    cost = quiet().minutes(squares(SQUARE), squares(SQUARE), "case")
    assert 10.0 == cost.reading_s
    assert {"liver": 0.0} == cost.editing_s
    assert pytest.approx(10.0 / 60.0) == cost.total


def test_square_drawn_from_nothing_costs_its_outline() -> None:
    """Two slices with a 20 mm square: about 160 mm at 0.5 s, 80 s (corners may be cut by a pixel)."""
    cost = quiet().minutes(None, squares(SQUARE), "case")
    assert pytest.approx(160.0, rel=0.06) == cost.added_path_mm["liver"]
    assert pytest.approx(80.0, rel=0.06) == cost.editing_s["liver"]


def test_no_label_and_empty_label_cost_the_same() -> None:
    """Drawing from nothing is correcting an empty label."""
    empty = squares(slices=slice(0, 0))
    assert quiet().minutes(empty, squares(SQUARE), "c").total == quiet().minutes(None, squares(SQUARE), "c").total


def test_false_component_costs_its_removal() -> None:
    """One stray blob beside a perfect label: 30 s."""
    coarse = squares(SQUARE, (32, 36, 32, 36))
    cost = quiet().minutes(coarse, squares(SQUARE), "case")
    assert {"liver": 1} == cost.removed_components
    assert {"liver": 30.0} == cost.editing_s


def test_one_side_that_is_far_off_costs_that_side_alone() -> None:
    """A square whose right side lies 10 mm too far left: that side and its two ends are redrawn.

    By hand, per slice: the side of 20 mm, and of top and bottom the 10 mm that stick out less the 3 mm of
    tolerance: 20 + 2 * 7 = 34 mm, 68 mm in two slices.
    """
    cost = quiet().minutes(squares((5, 25, 5, 15)), squares(SQUARE), "case")
    assert pytest.approx(68.0, rel=0.08) == cost.added_path_mm["liver"]


def test_error_within_tolerance_is_free_only_in_the_tolerant_model() -> None:
    """A label 2 mm off costs nothing to draw with 3 mm of tolerance and something without."""
    shifted = squares((7, 27, 5, 25))
    strict = dataclasses.replace(QUIET, tolerance_mm=0.0)
    assert {"liver": 0.0} == quiet().minutes(shifted, squares(SQUARE), "case").editing_s
    assert Annotator(0, organs=ORGANS, model=strict).minutes(shifted, squares(SQUARE), "case").editing_s["liver"] > 20.0


def test_minutes_grow_with_the_error() -> None:
    """The farther a label is shrunk, the more it costs; from nothing is dearest."""
    truth = squares(SQUARE)
    boxes = [(5, 25, 5, right) for right in (25, 20, 15, 10)]
    costs = [quiet().minutes(squares(box), truth, "case").total for box in boxes]
    costs.append(quiet().minutes(None, truth, "case").total)
    assert sorted(costs) == costs
    assert len(set(costs)) == len(costs)


def test_noise_is_paired_by_case() -> None:
    """A case's noise is the same for every label and time model, and differs between cases and seeds."""
    truth, coarse = squares(SQUARE), squares((5, 25, 5, 15))
    still = dataclasses.replace(TimeModel.ADDED_PATH, noise_sigma=0.0)

    def factor(seed: int, case: str, label: Volume | None) -> float:
        noisy = Annotator(seed, organs=ORGANS).minutes(label, truth, case).total
        return noisy / Annotator(seed, organs=ORGANS, model=still).minutes(label, truth, case).total

    assert pytest.approx(factor(1, "a", coarse)) == factor(1, "a", None)
    assert factor(1, "a", coarse) != pytest.approx(factor(1, "b", coarse))
    assert factor(1, "a", coarse) != pytest.approx(factor(2, "a", coarse))
    exact = Annotator(1, organs=ORGANS, model=TimeModel.EXACT).minutes(truth, truth, "a")
    assert pytest.approx(factor(1, "a", coarse)) == exact.reading_s / (TimeModel.EXACT.reading_s_per_slice * 5)


def test_noise_is_lognormal_with_mean_one() -> None:
    """Over 2,000 cases the factor's mean is 1 and its log deviates by sigma."""
    truth = Volume(voxels=np.zeros((1, 1, 1), dtype=np.uint8), geometry=dataclasses.replace(GEOMETRY, size=(1, 1, 1)))
    annotator = Annotator(0, organs={})
    factors = np.array([annotator.minutes(None, truth, f"case {n}").reading_s for n in range(2000)])
    factors /= TimeModel.ADDED_PATH.reading_s_per_slice
    assert pytest.approx(1.0, abs=0.02) == float(factors.mean())
    assert pytest.approx(TimeModel.ADDED_PATH.noise_sigma, rel=0.1) == float(np.log(factors).std())


def test_label_on_another_grid_is_refused() -> None:
    """Minutes of a label that is not on the case's grid would mean nothing."""
    moved = dataclasses.replace(GEOMETRY, origin_mm=(5.0, 0.0, 0.0))
    coarse = Volume(voxels=squares(SQUARE).voxels, geometry=moved)
    with pytest.raises(ValueError, match="another grid"):
        quiet().minutes(coarse, squares(SQUARE), "case")


def test_painted_area_counts_every_changed_voxel() -> None:
    """Painting a 20 x 20 mm square in two slices from nothing: 8 cm², 32 s at 4 s per cm²."""
    brush = dataclasses.replace(QUIET, drawing_s_per_mm=0.0, painting_s_per_cm2=4.0)
    cost = Annotator(0, organs=ORGANS, model=brush).minutes(None, squares(SQUARE), "case")
    assert pytest.approx(32.0) == cost.editing_s["liver"]
