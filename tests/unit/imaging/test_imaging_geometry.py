"""Geometry: positions against SimpleITK, and what is refused."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.grids import nearest_lps, oriented_view
from rekindle_imaging.volume import Volume

PLAIN = Geometry(size=(4, 5, 6), spacing_mm=(1, 2, 3), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))


def _rotation(q: NDArray[np.float64]) -> NDArray[np.float64]:
    w, x, y, z = q / np.linalg.norm(q)
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    """Any small grid, of either handedness."""
    quaternion = np.array([draw(st.floats(-1, 1)) for _ in range(4)])
    if np.linalg.norm(quaternion) < 0.1:
        quaternion = np.array([1.0, 0, 0, 0])
    axes = _rotation(quaternion) * [draw(st.sampled_from([1, -1])), 1, 1]
    return Geometry(
        size=tuple(draw(st.tuples(*[st.integers(1, 5)] * 3))),
        spacing_mm=tuple(draw(st.tuples(*[st.floats(0.2, 12)] * 3))),
        origin_mm=tuple(draw(st.tuples(*[st.floats(-2000, 2000)] * 3))),
        direction=tuple(float(x) for x in axes.ravel()),
    )


def test_positions_are_those_of_simpleitk(geometry: Geometry) -> None:
    """An index lies where SimpleITK says it lies."""
    image = Volume(np.zeros(geometry.shape, np.uint8), geometry).to_sitk()
    for index in [(0, 0, 0), (1.5, 2.25, 3.0), tuple(n - 1 for n in geometry.size)]:
        expected = image.TransformContinuousIndexToPhysicalPoint(index)
        np.testing.assert_allclose(geometry.physical_point(index), expected, atol=1e-9)
        np.testing.assert_allclose(geometry.continuous_index(expected), index, atol=1e-9)


@given(geometries(), st.tuples(*[st.floats(-3, 8)] * 3))
@settings(max_examples=60, deadline=None)
def test_index_and_position_are_inverse(grid: Geometry, index: tuple[float, float, float]) -> None:
    """Going to space and back returns the index on any grid."""
    np.testing.assert_allclose(grid.continuous_index(grid.physical_point(index)), index, atol=1e-6)


@given(geometries())
@settings(max_examples=60, deadline=None)
def test_dictionary_and_image_bring_the_geometry_back(grid: Geometry) -> None:
    """A geometry survives JSON's plain lists exactly, and a SimpleITK image."""
    assert grid == Geometry.from_dict(grid.to_dict())
    assert grid.matches(Volume.from_sitk(Volume(np.zeros(grid.shape, np.uint8), grid).to_sitk()).geometry, 1e-6)


@given(geometries())
@settings(max_examples=60, deadline=None)
def test_nearest_lps_moves_no_voxel(grid: Geometry) -> None:
    """Reordering the axes keeps every value at its position; the axes then run nearest to the patient's."""
    values = np.arange(grid.voxels, dtype=np.int32).reshape(grid.shape)
    view = oriented_view(Volume(values, grid))
    for index in np.ndindex(view.geometry.shape):
        there = grid.continuous_index(view.geometry.physical_point(index[::-1]))
        i, j, k = (round(x) for x in there)
        assert values[k, j, i] == view.voxels[index]
    assert np.trace(view.geometry.axes) >= 1 - 1e-9


@pytest.mark.parametrize("kind", ["flipped", "permuted", "sagittal", "left-handed"])
def test_nearest_lps_agrees_with_dicom_orient(kind: str, make_geometry: Callable[..., Geometry]) -> None:
    """For right-angled grids the view equals SimpleITK's DICOMOrient to LPS."""
    grid: Geometry = make_geometry(kind, 30.0)
    values = np.random.default_rng(3).integers(0, 99, grid.shape).astype(np.int16)
    expected = sitk.DICOMOrient(Volume(values, grid).to_sitk(), "LPS")
    view = oriented_view(Volume(values, grid))
    np.testing.assert_array_equal(view.voxels, sitk.GetArrayFromImage(expected))
    np.testing.assert_allclose(view.geometry.origin_mm, expected.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(view.geometry.spacing_mm, expected.GetSpacing(), atol=1e-9)
    np.testing.assert_allclose(view.geometry.direction, expected.GetDirection(), atol=1e-9)


def test_oblique_stays_oblique(make_geometry: Callable[..., Geometry]) -> None:
    """A tilted grid keeps its own axes; nothing is rotated to the patient's."""
    grid: Geometry = make_geometry("oblique")
    oriented, order, flips = nearest_lps(grid)
    assert ((0, 1, 2), (False, False, False)) == (order, flips)
    assert grid.direction == oriented.direction


@pytest.mark.parametrize(
    "change",
    [
        {"spacing_mm": (0.0, 1, 1)},
        {"spacing_mm": (-1.0, 1, 1)},
        {"spacing_mm": (math.nan, 1, 1)},
        {"spacing_mm": (2000.0, 1, 1)},
        {"origin_mm": (math.inf, 0, 0)},
        {"origin_mm": (1e9, 0, 0)},
        {"size": (0, 1, 1)},
        {"size": (2.5, 1, 1)},
        {"size": (True, 1, 1)},
        {"size": (1, 1)},
        {"direction": (1, 0.01, 0, 0, 1, 0, 0, 0, 1)},
        {"direction": (2, 0, 0, 0, 1, 0, 0, 0, 1)},
        {"direction": (0,) * 9},
    ],
)
def test_what_is_no_grid_is_refused(change: dict[str, tuple[float, ...]]) -> None:
    """Sizes below 1, spacings that are not positive, sheared or scaled axes and NaN are errors."""
    with pytest.raises(VolumeError) as caught:
        replace(PLAIN, **change)  # type: ignore[arg-type]
    assert "BAD_GEOMETRY" == caught.value.reason


@pytest.mark.parametrize("fields", [{}, {"size": [1, 1, 1]}, {**PLAIN.to_dict(), "units": "mm"}])
def test_unknown_and_missing_fields_are_refused(fields: dict[str, object]) -> None:
    """A dictionary with other fields than a geometry's is an error."""
    with pytest.raises(VolumeError):
        Geometry.from_dict(fields)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, True),
        ({"origin_mm": (0.005, 0, 0)}, True),
        ({"origin_mm": (0.02, 0, 0)}, False),
        ({"spacing_mm": (1.01, 2, 3)}, False),
        ({"size": (4, 5, 7)}, False),
        ({"direction": (-1, 0, 0, 0, 1, 0, 0, 0, 1)}, False),
    ],
)
def test_matching_is_by_millimetres(change: dict[str, tuple[float, ...]], expected: bool) -> None:
    """Two grids match when no corner voxel is off by more than a hundredth of a millimetre."""
    assert expected == PLAIN.matches(replace(PLAIN, **change))  # type: ignore[arg-type]


def test_a_single_slice_of_other_thickness_does_not_match() -> None:
    """The spacing counts even along an axis that has one voxel."""
    single = replace(PLAIN, size=(4, 5, 1))
    assert not single.matches(replace(single, spacing_mm=(1, 2, 5)))


def test_voxel_volume_in_millilitres() -> None:
    """1 x 2 x 3 mm are 0.006 ml."""
    assert 0.006 == pytest.approx(PLAIN.voxel_ml)


def test_voxels_must_have_the_shape_of_the_grid() -> None:
    """An array in (i, j, k) order is refused."""
    with pytest.raises(VolumeError):
        Volume(np.zeros((4, 5, 6)), PLAIN)
