"""NRRD and MetaImage are read as ITK reads them, and written so that ITK reads them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.files import Format, read_volume
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.metaimage import write_metaimage
from rekindle_imaging.nrrd import write_nrrd
from rekindle_imaging.volume import Volume

FORMATS: list[tuple[Format, str]] = [("nrrd", "nrrd"), ("metaimage", "mha")]


@pytest.mark.parametrize(("format", "suffix"), FORMATS)
@pytest.mark.parametrize("compress", [True, False])
def test_what_itk_wrote_is_read_as_it_was(
    geometry: Geometry, tmp_path: Path, format: Format, suffix: str, compress: bool
) -> None:
    """Every kind of grid, compressed or not."""
    voxels = np.random.default_rng(2).integers(-1000, 1000, (3, 4, 5)).astype(np.int16)
    small = geometry.box((0, 0, 0), (5, 4, 3))
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(Volume(voxels, small).to_sitk(), str(path), useCompression=compress)
    found = read_volume(path, kind="image", format=format)
    assert np.array_equal(voxels, found.voxels)
    assert found.geometry.matches(small, 1e-6)


@pytest.mark.parametrize(("format", "suffix"), FORMATS)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int32", "uint32", "float32", "float64"])
def test_every_type_of_number_is_read(tmp_path: Path, format: Format, suffix: str, dtype: str) -> None:
    """As int16."""
    voxels = np.arange(60).reshape(3, 4, 5).astype(dtype)
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    assert np.array_equal(voxels, read_volume(path, kind="image", format=format).voxels)


@pytest.mark.parametrize("write", [write_nrrd, write_metaimage])
@pytest.mark.parametrize("dtype", ["int16", "uint8"])
def test_itk_reads_what_is_written(
    geometry: Geometry, tmp_path: Path, write: Callable[[Volume, Path], None], dtype: str
) -> None:
    """Voxels and grid, and equal volumes give equal bytes."""
    voxels = np.random.default_rng(2).integers(0, 200, (3, 4, 5)).astype(dtype)
    small = geometry.box((0, 0, 0), (5, 4, 3))
    path = tmp_path / ("a.nrrd" if write is write_nrrd else "a.mha")
    write(Volume(voxels, small), path)
    read = sitk.ReadImage(str(path))
    assert np.array_equal(voxels, sitk.GetArrayFromImage(read))
    assert Volume.from_sitk(read).geometry.matches(small, 1e-6)
    first = path.read_bytes()
    write(Volume(voxels, small), path)
    assert first == path.read_bytes()


@pytest.mark.parametrize(
    ("space", "signs"),
    [("right-anterior-superior", (-1, -1, 1)), ("LAS", (1, -1, 1)), ("left-posterior-superior", (1, 1, 1))],
)
def test_spaces_of_nrrd_become_lps(tmp_path: Path, space: str, signs: tuple[int, int, int]) -> None:
    """By hand: left and posterior are positive."""
    path = tmp_path / "a.nrrd"
    head = f"""NRRD0004
# a comment
type: uint8
dimension: 3
space: {space}
sizes: 2 2 2
space directions: (2,0,0) (0,3,0) (0,0,4)
endian: little
encoding: raw
space origin: (10,20,30)
key:=value

"""
    path.write_bytes(head.encode() + bytes(range(8)))
    found = read_volume(path, kind="image", format="nrrd").geometry
    assert (10 * signs[0], 20 * signs[1], 30) == found.origin_mm
    assert (2, 3, 4) == found.spacing_mm
    assert [signs[0], 0, 0, 0, signs[1], 0, 0, 0, 1] == list(found.direction)


def test_big_endian_voxels_are_turned(tmp_path: Path) -> None:
    """MetaImage's byte order, by hand."""
    path = tmp_path / "a.mha"
    head = "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = True\n"
    head += "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\nDimSize = 2 1 1\n"
    path.write_bytes((head + "ElementType = MET_SHORT\nElementDataFile = LOCAL\n").encode() + b"\x01\x02\xff\xfe")
    assert [258, -2] == read_volume(path, kind="image", format="metaimage").voxels.ravel().tolist()


@pytest.mark.parametrize(("format", "suffix"), FORMATS)
def test_voxels_that_are_no_numbers_are_refused(tmp_path: Path, format: Format, suffix: str) -> None:
    """NaN, and images without a direction in space."""
    voxels = np.full((2, 3, 4), np.nan, np.float32)
    path = tmp_path / f"a.{suffix}"
    sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path), useCompression=True)
    with pytest.raises(VolumeError) as refused:
        read_volume(path, kind="image", format=format)
    assert "NON_FINITE" == refused.value.reason
