"""From volume to network and back: nothing shifts, nothing is NaN, training and serving agree."""

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
from rekindle_imaging.grids import nearest_lps
from rekindle_imaging.masks import dice
from rekindle_imaging.preprocessing import prepare, prepare_mask, restore_labels, stack_channels
from rekindle_imaging.preprocessing_spec import CPU, NATIVE, PAPER, Preprocessing, Window
from rekindle_imaging.volume import Volume
from scipy.spatial.transform import Rotation

At = Callable[[Geometry], NDArray[np.float64]]
RampAt = Callable[[NDArray[np.float64]], NDArray[np.float64]]
MakeMask = Callable[[Geometry], Volume]
WIDE = Window(kind="fixed", low=-30000.0, high=30000.0)


def _recipe(spacing: float, slices: float | None, size: int = 40, window: Window = WIDE) -> Preprocessing:
    return replace(
        CPU,
        spacing_mm=(spacing, spacing),
        slice_spacing_mm=slices,
        size=(size, size),
        crop="none",
        window=window,
    )


def _one_hot(classes: NDArray[np.uint8], n_classes: int) -> NDArray[np.float32]:
    return (classes[:, None] == np.arange(n_classes)[:, None, None]).astype(np.float32)


def _inner(grid: Geometry, source: Geometry, at: At) -> NDArray[np.bool_]:
    """Grid voxels that lie, with all of their extent, between the centres of the source's outer voxels."""
    index = (at(grid) - np.array(source.origin_mm)) @ source.axes / np.array(source.spacing_mm)
    reach = np.abs(source.axes.T @ grid.axes) @ np.array(grid.spacing_mm) / 2 / np.array(source.spacing_mm)
    return ((index >= reach) & (index <= np.array(source.size) - 1 - reach)).all(axis=-1)


@pytest.mark.parametrize("recipe", [_recipe(3.0, None), _recipe(7.0, 8.0, 20), _recipe(2.0, 3.0, 50)])
def test_a_ramp_keeps_its_values(geometry: Geometry, recipe: Preprocessing, at: At, ramp_at: RampAt) -> None:
    """A linear function of space has, at every grid voxel, the value of that voxel's centre (any scale)."""
    prepared = prepare(Volume(ramp_at(at(geometry)), geometry), recipe)
    inner = _inner(prepared.grid, geometry, at)
    expected = ramp_at(at(prepared.grid))[inner]
    got = prepared.images[inner]
    assert inner.sum() > 1000
    scale = expected.std() / got.std()
    assert np.abs((got - got.mean()) * scale - (expected - expected.mean())).max() < 2e-3


def test_the_grid_is_parallel_and_nearest_lps(geometry: Geometry) -> None:
    """The grid's axes are the volume's own, up to order and sign, and run to left, posterior, superior."""
    grid = prepare(Volume(np.zeros(geometry.shape, np.int16), geometry), _recipe(3.0, 5.0)).grid
    cosines = np.abs(geometry.axes.T @ grid.axes)
    np.testing.assert_allclose(np.sort(cosines, axis=0), np.tile([[0], [0], [1]], 3), atol=1e-9)
    assert [0, 1, 2] == np.abs(grid.axes).argmax(axis=0).tolist()
    assert (np.diag(grid.axes) > 0).all()


def test_equals_simpleitk_resampling(geometry: Geometry) -> None:
    """On a grid that is not much coarser the result is SimpleITK's linear resampling, normalised."""
    rng = np.random.default_rng(1)
    volume = Volume(rng.integers(-150, 200, geometry.shape).astype(np.int16), geometry)
    prepared = prepare(volume, _recipe(2.5, None, 70, Window(kind="fixed", low=-200.0, high=250.0)))
    image = sitk.GetImageFromArray(volume.voxels)
    image.SetOrigin(geometry.origin_mm)
    image.SetSpacing(geometry.spacing_mm)
    image.SetDirection(geometry.direction)
    reference = sitk.Image(*prepared.grid.size, sitk.sitkFloat32)
    reference.SetOrigin(prepared.grid.origin_mm)
    reference.SetSpacing(prepared.grid.spacing_mm)
    reference.SetDirection(prepared.grid.direction)
    got = sitk.GetArrayFromImage(
        sitk.Resample(image, reference, sitk.Transform(), sitk.sitkLinear, -200.0, sitk.sitkFloat32)
    )
    within = sitk.GetArrayFromImage(
        sitk.Resample(image * 0 + 1, reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0.0)
    )
    expected = (got - got[within > 0].mean()) / got[within > 0].std()
    np.testing.assert_allclose(prepared.images, expected, atol=1e-3)


@pytest.mark.parametrize("slices", [None, 2.0, 6.0])
def test_a_liver_survives_there_and_back(geometry: Geometry, slices: float | None, liver_mask: MakeMask) -> None:
    """At 3 mm an ellipsoid liver comes back with a Dice above 0.97 and its centre within 0.3 mm."""
    mask = liver_mask(geometry)
    prepared = prepare(mask, _recipe(3.0, slices, 64))
    classes = prepare_mask(mask, prepared.grid)
    back = restore_labels(_one_hot(classes, 2), prepared.grid, prepared.source)
    score = dice(back == 1, mask.voxels == 1)
    assert score is not None
    assert score > 0.97
    shift = np.argwhere(back == 1).mean(axis=0) - np.argwhere(mask.voxels == 1).mean(axis=0)
    assert np.linalg.norm(shift * geometry.spacing_mm[::-1]) < 0.3


@given(
    st.tuples(*[st.floats(-40, 40)] * 3),
    st.permutations([0, 1, 2]),
    st.tuples(*[st.sampled_from([1.0, -1.0])] * 3),
    st.tuples(*[st.floats(0.9, 6.0)] * 3),
    st.sampled_from([None, 3.0, 6.0]),
)
@settings(max_examples=20, deadline=None)
def test_a_ball_survives_on_any_grid(
    turns: tuple[float, float, float],
    order: list[int],
    signs: tuple[float, float, float],
    spacing: tuple[float, float, float],
    slices: float | None,
) -> None:
    """However a grid is turned, reordered, flipped and stretched, a ball comes back in its place."""
    axes = Rotation.from_euler("xyz", turns, degrees=True).as_matrix()[:, order] * signs
    size = tuple(int(130 / s) for s in spacing)
    centre, radius = np.array([7.3, -21.9, 400.2]), 45.0
    origin = centre + np.array([2.0, -3.0, 1.0]) - axes @ ((np.array(size) - 1) / 2 * spacing)
    source = Geometry(size=size, spacing_mm=spacing, origin_mm=tuple(origin), direction=tuple(axes.ravel()))
    k, j, i = np.indices(source.shape)
    points = np.stack([i, j, k], axis=-1) * spacing @ axes.T + origin
    ball = (np.linalg.norm(points - centre, axis=-1) <= radius).astype(np.uint8)
    grid = prepare(Volume(ball, source), _recipe(3.0, slices, 64)).grid
    back = restore_labels(_one_hot(prepare_mask(Volume(ball, source), grid), 2), grid, source) == 1
    score = dice(back, ball == 1)
    assert score is not None
    assert score > 0.95
    # Half a voxel of shift would be 0.5 mm or more; what remains comes from slices coarser than the ball is smooth.
    assert np.linalg.norm(points[back].mean(axis=0) - points[ball == 1].mean(axis=0)) < 0.4


def test_restoring_equals_simpleitk_and_argmax(geometry: Geometry) -> None:
    """Labels on the native grid are the argmax of SimpleITK's linear interpolation of every class."""
    source = replace(geometry, size=tuple(max(3, n // 2) for n in geometry.size))
    grid = prepare(Volume(np.zeros(source.shape, np.int16), source), _recipe(4.0, 6.0, 24)).grid
    logits = np.random.default_rng(5).normal(size=(grid.size[2], 4, 24, 24)) * 2
    logits[:, 0] += 2.5
    exponents = np.exp(logits)
    probabilities = (exponents / exponents.sum(axis=1, keepdims=True)).astype(np.float32)
    reference = sitk.GetImageFromArray(np.zeros(source.shape, np.float32))
    reference.SetOrigin(source.origin_mm)
    reference.SetSpacing(source.spacing_mm)
    reference.SetDirection(source.direction)
    maps = []
    for c in range(4):
        image = sitk.GetImageFromArray(probabilities[:, c])
        image.SetOrigin(grid.origin_mm)
        image.SetSpacing(grid.spacing_mm)
        image.SetDirection(grid.direction)
        maps.append(sitk.GetArrayFromImage(sitk.Resample(image, reference, sitk.Transform(), sitk.sitkLinear, 0.0)))
    stacked = np.stack(maps)
    ranked = np.sort(stacked, axis=0)
    clear = (ranked[-1] - ranked[-2] > 1e-5) | (ranked[-1] == 0)
    got = restore_labels(probabilities, grid, source)
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(got[clear], stacked.argmax(axis=0)[clear])


def test_outside_the_grid_is_background(make_geometry: Callable[..., Geometry]) -> None:
    """Foreground everywhere on a small grid fills just that grid's extent of the volume."""
    source = make_geometry("plain")
    grid = prepare(Volume(np.zeros(source.shape, np.int16), source), _recipe(3.0, None, 10)).grid
    probabilities = np.zeros((grid.size[2], 2, 10, 10), np.float32)
    probabilities[:, 1] = 1
    labels = restore_labels(probabilities, grid, source)
    assert (source.size[2], 10, 10) == tuple(int(np.ptp(axis)) + 1 for axis in np.nonzero(labels))
    assert labels.any(axis=(1, 2)).all()


def test_all_slices_are_kept(geometry: Geometry) -> None:
    """The grid spans the whole extent along its slices, centred, and reaches beyond by less than a slice."""
    oriented, _, _ = nearest_lps(geometry)
    for spacing in (None, 2.0, 7.0, 8.0):
        grid = prepare(Volume(np.zeros(geometry.shape, np.int16), geometry), _recipe(5.0, spacing)).grid
        extent = oriented.size[2] * oriented.spacing_mm[2]
        reach = grid.size[2] * grid.spacing_mm[2]
        assert -1e-3 < reach - extent < grid.spacing_mm[2]
        middle = grid.physical_point([(n - 1) / 2 for n in grid.size])
        expected = oriented.physical_point([(n - 1) / 2 for n in oriented.size])
        np.testing.assert_allclose(middle, expected, atol=1e-6)


def test_restored_labels_cover_the_outermost_slices(geometry: Geometry) -> None:
    """Foreground all over the grid reaches the first and last native slice, whatever the slice spacing."""
    grid = prepare(Volume(np.zeros(geometry.shape, np.int16), geometry), _recipe(6.0, 8.0, 40)).grid
    probabilities = np.zeros((grid.size[2], 2, 40, 40), np.float32)
    probabilities[:, 1] = 1
    assert (restore_labels(probabilities, grid, geometry) == 1).all()


def test_an_empty_slice_and_a_constant_volume_stay_finite(make_geometry: Callable[..., Geometry]) -> None:
    """A slice of -125 everywhere does no harm, and a constant volume becomes zeros."""
    source = make_geometry("plain")
    voxels = np.random.default_rng(2).integers(-125, 275, source.shape).astype(np.int16)
    voxels[-1] = -125
    assert np.isfinite(prepare(Volume(voxels, source), CPU).images).all()
    for recipe in (CPU, CPU.for_modality("MR")):
        flat = prepare(Volume(np.full(source.shape, -125, np.int16), source), recipe).images
        assert np.isfinite(flat).all()
        assert (prepare(Volume(np.full(source.shape, -125, np.int16), source), _recipe(3.0, None)).images == 0).all()


def test_statistics_are_those_inside_the_volume(make_geometry: Callable[..., Geometry]) -> None:
    """Zero mean and unit variance inside the volume; outside lies the window's low end."""
    source = make_geometry("plain", 90.0)
    voxels = np.random.default_rng(2).integers(-100, 240, source.shape).astype(np.int16)
    recipe = _recipe(3.0, None, 50, Window(kind="fixed", low=-200.0, high=250.0))
    images = prepare(Volume(voxels, source), recipe).images
    inside = images[:, 10:40, 10:40]
    assert 0 == pytest.approx(float(inside.mean(dtype=np.float64)), abs=1e-4)
    assert 1 == pytest.approx(float(inside.std(dtype=np.float64)), abs=1e-4)
    np.testing.assert_allclose(images[:, :9], (-200 - voxels.mean()) / voxels.std(), rtol=1e-4)


def test_the_window_clips(make_geometry: Callable[..., Geometry]) -> None:
    """Metal and air end at the window's ends, and percentiles come from the whole volume."""
    source = make_geometry("plain", 90.0)
    voxels = np.random.default_rng(2).normal(500, 100, source.shape).round().astype(np.int16)
    voxels[3, 3, 3], voxels[4, 4, 4] = 20000, -20000
    recipe = _recipe(3.0, None, 30).for_modality("MR")
    images = prepare(Volume(voxels, source), recipe).images
    clipped = np.clip(voxels, *np.percentile(voxels, [1, 99]))
    np.testing.assert_allclose(images, (clipped - clipped.mean()) / clipped.std(), atol=1e-3)


def test_fine_stripes_average_out_instead_of_aliasing(make_geometry: Callable[..., Geometry]) -> None:
    """Of one-voxel stripes a quarter is left at a fifth of the resolution; sampling alone would leave all."""
    source = replace(make_geometry("plain"), spacing_mm=(1.0, 1.0, 3.0), size=(120, 120, 6))
    voxels = np.zeros(source.shape, np.int16)
    voxels[:, :, ::2] = 1000
    voxels[:, :, 60:] += 2000
    image = prepare(Volume(voxels, source), _recipe(5.0, None, 24)).images[2]
    # The step of 2000 gives the scale of the stripes' 1000; a perfect mean of five would leave a fifth.
    step = image[:, 13:].mean() - image[:, :11].mean()
    assert np.ptp(image[:, 1:11]) / step * 2000 < 260


def _body(source: Geometry, at: At, shift_mm: tuple[float, float], air: int, tissue: int) -> NDArray[np.int16]:
    oriented, _, _ = nearest_lps(source)
    middle = np.array(oriented.physical_point([(n - 1) / 2 for n in oriented.size]))
    around = (at(source) - middle) @ oriented.axes
    ring = ((around[..., 0] - shift_mm[0]) / 50) ** 2 + ((around[..., 1] - shift_mm[1]) / 40) ** 2
    return np.where(ring <= 1, tissue, air).astype(np.int16)


@pytest.mark.parametrize(("air", "tissue", "modality"), [(-1000, 40, "CT"), (-125, 40, "CT"), (3, 600, "MR")])
def test_the_grid_is_centred_on_the_body(geometry: Geometry, at: At, air: int, tissue: int, modality: str) -> None:
    """In plane the grid's middle is the body's, in clipped CT and in MR too, and a thin table is not body."""
    voxels = _body(geometry, at, (14.0, -9.0), air, tissue)
    recipe = replace(_recipe(3.0, None), crop="body", window=CPU.window).for_modality(modality)
    grid = prepare(Volume(voxels, geometry), recipe).grid
    oriented, _, _ = nearest_lps(geometry)
    expected = np.array(oriented.physical_point([(n - 1) / 2 for n in oriented.size]))
    expected = expected + oriented.axes @ np.array([14.0, -9.0, 0.0])
    got = grid.physical_point([(n - 1) / 2 for n in grid.size])
    assert np.abs(oriented.axes.T @ (np.array(got) - expected)).max() <= 4.0


def test_a_seed_mask_crops_slices_and_nothing_else(make_geometry: Callable[..., Geometry], at: At) -> None:
    """With an organ mask only the slices within 25 mm of the organs stay; in plane nothing moves."""
    source = make_geometry("flipped", 200.0)
    image = Volume(_body(source, at, (5.0, 5.0), -1000, 30), source)
    organs = np.zeros(source.shape, np.uint8)
    organs[12:17, 20:30, 50:60] = 2
    recipe = replace(_recipe(3.0, None), crop="body", window=CPU.window)
    whole = prepare(image, recipe).grid
    cropped = prepare(image, recipe, organ_mask=Volume(organs, source)).grid
    # 5 slices of 5 mm, 5 more on each side; the source's slices run downwards.
    assert 15 == cropped.size[2]
    lowest = source.physical_point((0, 0, 21))
    assert float(lowest[2]) == pytest.approx(cropped.origin_mm[2])
    assert whole.origin_mm[:2] == pytest.approx(cropped.origin_mm[:2])


def test_a_mask_of_another_grid_is_refused(make_geometry: Callable[..., Geometry]) -> None:
    """Image and organ mask must lie on one grid."""
    source = make_geometry("plain")
    moved = replace(source, origin_mm=(0.0, 0.0, 0.0))
    with pytest.raises(VolumeError) as caught:
        prepare(
            Volume(np.zeros(source.shape, np.int16), source),
            CPU,
            organ_mask=Volume(np.zeros(source.shape, np.uint8), moved),
        )
    assert "GEOMETRY_MISMATCH" == caught.value.reason


def test_masks_keep_their_label_values(geometry: Geometry, at: At, liver_mask: MakeMask) -> None:
    """Labels 7 and 200 stay 7 and 200, where they were, and are exact far from their borders."""
    voxels = liver_mask(geometry).voxels * np.uint8(7)
    voxels[at(geometry)[..., 0] > -31.3] = 200
    grid = prepare(Volume(voxels, geometry), _recipe(3.0, None, 60)).grid
    labels = prepare_mask(Volume(voxels, geometry), grid)
    assert {0, 7, 200} == set(np.unique(labels).tolist())
    right = at(grid)[..., 0] > -31.3 + 8
    assert (labels[right & _inner(grid, geometry, at)] == 200).all()


def test_a_mask_that_fills_the_volume_fills_the_grid_inside(geometry: Geometry, at: At) -> None:
    """A label that leaves no background is kept everywhere inside the volume."""
    mask = Volume(np.full(geometry.shape, 3, np.uint8), geometry)
    grid = prepare(mask, _recipe(3.0, None, 60)).grid
    labels = prepare_mask(mask, grid)
    assert (labels[_inner(grid, geometry, at)] == 3).all()


def test_three_channels_are_the_neighbouring_slices() -> None:
    """Channels are the slice before, the slice, the slice after; the edge slices repeat."""
    images = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((1, 2, 3), np.float32)
    assert [[0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 3]] == stack_channels(images, None, 3)[:, :, 0, 0].tolist()
    assert [[2, 3, 3], [0, 0, 1]] == stack_channels(images, np.array([3, 0]), 3)[:, :, 0, 0].tolist()
    assert (4, 1, 2, 3) == stack_channels(images, None, 1).shape


@pytest.mark.parametrize("recipe", [PAPER, NATIVE, CPU, CPU.for_modality("MR"), replace(CPU, crop="none")])
def test_recipes_survive_json(recipe: Preprocessing) -> None:
    """A preset is the same after a trip through plain lists."""
    assert recipe == Preprocessing.from_dict(recipe.to_dict())


def test_the_papers_preset() -> None:
    """The paper: 1.5 x 1.5 x 8.0 mm, 256 x 256, CT clipped to -200..250, zero mean, unit variance."""
    expected = {
        "orientation": "LPS",
        "spacing_mm": [1.5, 1.5],
        "slice_spacing_mm": 8.0,
        "size": [256, 256],
        "crop": "body",
        "window": {"kind": "fixed", "low": -200.0, "high": 250.0},
        "normalization": "zscore",
        "channels": 3,
    }
    assert expected == PAPER.to_dict()
    assert {**expected, "slice_spacing_mm": None} == NATIVE.to_dict()


@pytest.mark.parametrize(
    "change",
    [
        {"gamma": 1},
        {"size": [0, 10]},
        {"size": [10.5, 10]},
        {"size": 64},
        {"spacing_mm": [1.0, float("nan")]},
        {"spacing_mm": [1.0, True]},
        {"slice_spacing_mm": -1},
        {"channels": 2},
        {"crop": "organs"},
        {"orientation": "RAS"},
        {"window": {"kind": "fixed", "low": 1, "high": 1}},
        {"window": {"kind": "percentile", "low": -1, "high": 99}},
        {"window": {"kind": "otsu", "low": 0, "high": 1}},
        {"window": None},
    ],
)
def test_senseless_recipes_are_refused(change: dict[str, object]) -> None:
    """Unknown keys and impossible values are errors, not defaults."""
    with pytest.raises(VolumeError) as caught:
        Preprocessing.from_dict({**CPU.to_dict(), **change})
    assert "BAD_PREPROCESSING" == caught.value.reason
