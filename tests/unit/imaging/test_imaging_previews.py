"""Coarser levels: means and most frequent labels of blocks, on the grid that goes with them."""

import numpy as np
import pytest
import SimpleITK as sitk
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.previews import reduce_image, reduce_mask, reduced_geometry

OBLIQUE = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0, 0.0, 0.0, 1.0)


def test_image_blocks_are_rounded_means():
    """2 x 2 blocks from the first voxel on; the block at the edge has fewer; halves go to the even number."""
    image = np.asarray([[[1, 2, 10], [3, 4, -11], [5, 6, 7]]], np.int16)
    # Means 2.5, -0.5, 5.5, 7.
    assert [[[2, 0], [6, 7]]] == reduce_image(image, 1).tolist()
    assert np.int16 == reduce_image(image, 1).dtype


@pytest.mark.parametrize("level", [1, 2, 3])
def test_image_levels_are_those_of_simpleitk(level):
    """SimpleITK's BinShrink is the same area mean, up to the rounding of halves."""
    image = np.random.default_rng(1).integers(-1024, 3071, (3, 16, 24), dtype=np.int16)
    block = 2**level
    reference = sitk.GetArrayFromImage(
        sitk.BinShrink(sitk.GetImageFromArray(image.astype(np.float64)), [block, block, 1])
    )
    assert np.abs(reduce_image(image, level) - reference).max() <= 0.5


def test_extreme_values_do_not_overflow():
    """A block of the largest values is the largest value."""
    for value in (-32768, 32767):
        image = np.full((1, 256, 256), value, np.int16)
        assert [[[value]]] == reduce_image(image, 8).tolist()


def test_mask_blocks_are_most_frequent_labels():
    """Three of four win; of two and two the lower label wins, background included."""
    mask = np.asarray([[[7, 7, 2, 9, 0], [7, 0, 9, 2, 3], [3, 3, 0, 0, 5]]], np.uint8)
    assert [[[7, 2, 0], [3, 0, 5]]] == reduce_mask(mask, 1).tolist()


def test_level_0_is_the_volume_itself():
    """Nothing is copied or changed."""
    image, mask = np.zeros((1, 2, 2), np.int16), np.zeros((1, 2, 2), np.uint8)
    assert reduce_image(image, 0) is image
    assert reduce_mask(mask, 0) is mask


def test_grid_of_a_level_is_that_of_simpleitk():
    """Spacing grows in plane, and the first centre moves to the middle of its block, also on turned axes."""
    geometry = Geometry(size=(8, 12, 5), spacing_mm=(0.5, 0.75, 3.0), origin_mm=(10.0, -4.0, 7.0), direction=OBLIQUE)
    image = sitk.Image(8, 12, 5, sitk.sitkUInt8)
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(geometry.origin_mm)
    image.SetDirection(OBLIQUE)
    reference = sitk.BinShrink(image, [4, 4, 1])
    found = reduced_geometry(geometry, 2)
    assert (reference.GetSize(), reference.GetSpacing()) == (found.size, found.spacing_mm)
    assert pytest.approx(reference.GetOrigin()) == found.origin_mm
    assert pytest.approx(reference.GetDirection()) == found.direction


def test_a_block_larger_than_the_volume_is_centred_on_it():
    """One column of 3 voxels at level 2: its centre is the middle voxel's."""
    geometry = Geometry(
        size=(3, 8, 1), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)
    )
    found = reduced_geometry(geometry, 2)
    assert ((1, 2, 1), (1.0, 1.5, 0.0)) == (found.size, found.origin_mm)
