"""NIfTI files: good ones are read as SimpleITK reads them, bad ones are refused by name."""

import gzip
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.files import read_volume, write_nifti
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume


def nifti(
    voxels: np.ndarray,
    *,
    order: str = "<",
    dim: tuple[int, ...] | None = None,
    pixdim: tuple[float, ...] = (2.0, 3.0, 4.0),
    slope: tuple[float, float] = (0.0, 0.0),
    sform: tuple[float, ...] | None = None,
    datatype: int | None = None,
) -> bytes:
    """A NIfTI-1 file put together by hand from the standard's table of offsets; `voxels` are (k, j, i)."""
    codes = {"i2": (4, 16), "u1": (2, 8), "f4": (16, 32), "f8": (64, 64), "u2": (512, 16), "i4": (8, 32)}
    code, bits = codes[voxels.dtype.str[1:]]
    header = bytearray(352)
    struct.pack_into(f"{order}i", header, 0, 348)
    dims = dim if dim is not None else (3, *voxels.shape[::-1])
    struct.pack_into(f"{order}8h", header, 40, *(dims + (1,) * 8)[:8])
    struct.pack_into(f"{order}2h", header, 70, code if datatype is None else datatype, bits)
    struct.pack_into(f"{order}8f", header, 76, *((1.0, *pixdim) + (1.0,) * 8)[:8])
    struct.pack_into(f"{order}3f", header, 108, 352.0, *slope)
    header[123] = 2
    rows = sform or (pixdim[0], 0, 0, -5.0, 0, pixdim[1], 0, 6.0, 0, 0, pixdim[2], 7.0)
    struct.pack_into(f"{order}2h", header, 252, 0, 1)
    struct.pack_into(f"{order}12f", header, 280, *rows)
    header[344:348] = b"n+1\0"
    return bytes(header) + voxels.astype(voxels.dtype.newbyteorder(order)).tobytes()


VOXELS = np.random.default_rng(0).integers(-1000, 1500, (5, 6, 7)).astype(np.int16)


def _read(folder: Path, data: bytes, name: str = "v.nii", kind: str = "image", **limits: int) -> Volume:
    path = folder / name
    path.write_bytes(data)
    return read_volume(path, kind=kind, format="nifti", **limits)  # type: ignore[arg-type]


def _reason(folder: Path, data: bytes, name: str = "v.nii", kind: str = "image", **limits: int) -> str:
    with pytest.raises(VolumeError) as caught:
        _read(folder, data, name, kind, **limits)
    assert str(folder) not in caught.value.message
    return caught.value.reason


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz", "upload"])
def test_both_byte_orders_plain_and_gzip(tmp_path: Path, order: str, pack: Callable[[bytes], bytes], name: str) -> None:
    """Content decides how a file is read, not its name; RAS in the file is LPS here."""
    volume = _read(tmp_path, pack(nifti(VOXELS, order=order)), name)
    np.testing.assert_array_equal(VOXELS, volume.voxels)
    assert np.int16 == volume.voxels.dtype
    assert (7, 6, 5) == volume.geometry.size
    assert (2.0, 3.0, 4.0) == pytest.approx(volume.geometry.spacing_mm)
    assert (5.0, -6.0, 7.0) == pytest.approx(volume.geometry.origin_mm)
    assert (-1, 0, 0, 0, -1, 0, 0, 0, 1) == pytest.approx(volume.geometry.direction)


def test_write_and_read_bring_a_volume_back(tmp_path: Path, geometry: Geometry) -> None:
    """Any grid survives a file within float32's rounding, and SimpleITK reads the same."""
    voxels = np.random.default_rng(1).integers(-1000, 1000, geometry.shape).astype(np.int16)
    path = tmp_path / "v.nii.gz"
    write_nifti(Volume(voxels, geometry), path)
    back = read_volume(path, kind="image", format="nifti")
    np.testing.assert_array_equal(voxels, back.voxels)
    assert geometry.matches(back.geometry, 2e-3)
    reference = sitk.ReadImage(str(path))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(reference), back.voxels)
    np.testing.assert_allclose(reference.GetOrigin(), back.geometry.origin_mm)
    np.testing.assert_allclose(reference.GetDirection(), back.geometry.direction)
    assert [path] == list(tmp_path.iterdir())


def test_other_suffixes_are_not_written(tmp_path: Path) -> None:
    """A file that would not be gzip-compressed NIfTI is refused."""
    grid = Geometry(size=(1, 1, 1), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))
    with pytest.raises(VolumeError):
        write_nifti(Volume(np.zeros((1, 1, 1), np.uint8), grid), tmp_path / "v.mha")


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    """Stored value times slope plus intercept, rounded to whole numbers."""
    volume = _read(tmp_path, nifti(VOXELS, slope=(0.5, -100.0)))
    np.testing.assert_array_equal(np.rint(VOXELS * 0.5 - 100).astype(np.int16), volume.voxels)


def test_masks_are_labels(tmp_path: Path) -> None:
    """Float masks with whole numbers are labels."""
    labels = np.random.default_rng(3).integers(0, 4, (5, 6, 7))
    volume = _read(tmp_path, nifti(labels.astype(np.float32)), kind="mask")
    np.testing.assert_array_equal(labels, volume.voxels)
    assert np.uint8 == volume.voxels.dtype


def test_a_fourth_dimension_of_one_is_taken(tmp_path: Path) -> None:
    """Four dimensions that hold one volume are that volume."""
    volume = _read(tmp_path, nifti(VOXELS, dim=(4, 7, 6, 5, 1)))
    np.testing.assert_array_equal(VOXELS, volume.voxels)
    assert (2.0, 3.0, 4.0) == pytest.approx(volume.geometry.spacing_mm)


SHEAR = (2.0, 0.6, 0, 0, 0, 3.0, 0, 0, 0, 0, 4.0, 0)
FLOATS = VOXELS.astype(np.float32)


def _with(voxels: np.ndarray, value: float) -> np.ndarray:
    changed = voxels.copy()
    changed[1, 2, 3] = value
    return changed


@pytest.mark.parametrize(
    ("data", "kind", "reason"),
    [
        (nifti(VOXELS, dim=(2, 7, 6)), "image", "NOT_3D"),
        (nifti(VOXELS, dim=(4, 7, 6, 1, 5)), "image", "NOT_3D"),
        (nifti(VOXELS, dim=(5, 7, 6, 1, 1, 5)), "image", "NOT_3D"),
        (nifti(VOXELS, dim=(3, -7, 6, 5)), "image", "NOT_A_VOLUME"),
        (nifti(VOXELS, dim=(3, 7, 0, 5)), "image", "NOT_A_VOLUME"),
        (nifti(VOXELS, dim=(99, 7, 6, 5)), "image", "NOT_A_VOLUME"),
        (nifti(VOXELS, datatype=128), "image", "NOT_A_VOLUME"),
        (nifti(VOXELS, datatype=16), "image", "NOT_A_VOLUME"),
        (nifti(VOXELS, pixdim=(float("nan"), 3, 4)), "image", "BAD_GEOMETRY"),
        (nifti(VOXELS, pixdim=(2, 0, 4)), "image", "BAD_GEOMETRY"),
        (nifti(VOXELS, pixdim=(2, -3, 4)), "image", "BAD_GEOMETRY"),
        (nifti(VOXELS, pixdim=(2, float("inf"), 4)), "image", "BAD_GEOMETRY"),
        (nifti(VOXELS, pixdim=(2, 3, 5000)), "image", "BAD_GEOMETRY"),
        (nifti(VOXELS, sform=(float("nan"),) * 12), "image", "BAD_GEOMETRY"),
        (nifti(VOXELS, sform=(0.0,) * 12), "image", "BAD_GEOMETRY"),
        (nifti(VOXELS, sform=(1.0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 4, 0)), "image", "BAD_GEOMETRY"),
        (nifti(_with(FLOATS, np.nan)), "image", "NON_FINITE"),
        (nifti(_with(FLOATS, -np.inf)), "image", "NON_FINITE"),
        (nifti(_with(FLOATS, 40000)), "image", "OUT_OF_RANGE"),
        (nifti(_with(np.zeros((5, 6, 7), np.float32), 0.5)), "image", "OUT_OF_RANGE"),
        (nifti(_with(np.zeros((5, 6, 7), np.uint16), 40000)), "image", "OUT_OF_RANGE"),
        (nifti(_with(np.zeros((5, 6, 7), np.float32), 0.5)), "mask", "NOT_A_MASK"),
        (nifti(_with(np.zeros((5, 6, 7), np.float32), np.nan)), "mask", "NON_FINITE"),
        (nifti(_with(FLOATS, np.nan), order=">"), "image", "NON_FINITE"),
        (gzip.compress(nifti(_with(FLOATS.astype(np.float64), np.nan))), "image", "NON_FINITE"),
        (nifti(_with(np.zeros((5, 6, 7), np.int16), 256)), "mask", "NOT_A_MASK"),
        (nifti(VOXELS)[:-1], "image", "TRUNCATED"),
        (nifti(VOXELS)[:200], "image", "TRUNCATED"),
        (gzip.compress(nifti(VOXELS))[:-4], "image", "TRUNCATED"),
        (gzip.compress(nifti(VOXELS))[:300], "image", "TRUNCATED"),
        (gzip.compress(nifti(VOXELS)[:-1]), "image", "TRUNCATED"),
        (b"", "image", "NOT_A_VOLUME"),
        (b"\x1f\x8b", "image", "NOT_A_VOLUME"),
        (b"\x1f\x8b" + b"noise" * 100, "image", "NOT_A_VOLUME"),
        (b"PK\x03\x04" + bytes(1000), "image", "NOT_A_VOLUME"),
        (struct.pack("<i", 540) + bytes(600), "image", "NOT_A_VOLUME"),
        (nifti(VOXELS).replace(b"n+1\0", b"ni1\0"), "image", "NOT_A_VOLUME"),
    ],
)
@pytest.mark.parametrize("name", ["v.nii", "v.nii.gz"])
def test_bad_files_are_refused_by_name(tmp_path: Path, data: bytes, kind: str, reason: str, name: str) -> None:
    """Each defect has its reason, whatever the file is called."""
    assert reason == _reason(tmp_path, data, name, kind)


def test_shear_is_named(tmp_path: Path) -> None:
    """A sheared orientation is refused and called sheared, not read with other axes."""
    spacing = (2.0, float(np.hypot(0.6, 3.0)), 4.0)
    path = tmp_path / "v.nii"
    path.write_bytes(nifti(VOXELS, sform=SHEAR, pixdim=spacing))
    with pytest.raises(VolumeError, match="sheared") as caught:
        read_volume(path, kind="image", format="nifti")
    assert "BAD_GEOMETRY" == caught.value.reason


@pytest.mark.parametrize("skew", [2e-4, 5e-4, 9e-4])
def test_a_slight_shear_is_not_read_with_other_axes(tmp_path: Path, skew: float) -> None:
    """ITK silently drops an sform that is sheared by this little; the file is refused instead."""
    sform = (2.0, 3.0 * skew, 0, 5.0, 0, 3.0, 0, 6.0, 0, 0, 4.0, 7.0)
    path = tmp_path / "v.nii"
    path.write_bytes(nifti(VOXELS, sform=sform, pixdim=(2.0, 3.0, 4.0)))
    with pytest.raises(VolumeError, match="sheared"):
        read_volume(path, kind="image", format="nifti")


def test_a_damaged_gzip_checksum_is_refused(tmp_path: Path) -> None:
    """Every voxel may be there, but the checksum says that some are not what they were."""
    data = bytearray(gzip.compress(nifti(VOXELS)))
    data[-6] ^= 1
    assert "TRUNCATED" == _reason(tmp_path, bytes(data))


def test_a_tiny_file_that_claims_gigabytes_is_refused(tmp_path: Path) -> None:
    """377 bytes that claim 18 GB are refused from the header, with and without a limit on voxels."""
    claim = nifti(np.zeros((1, 1, 25), np.int16), dim=(3, 2100, 2100, 2100))[:377]
    assert "TOO_LARGE" == _reason(tmp_path, claim)
    assert "TRUNCATED" == _reason(tmp_path, claim, max_voxels=10**12)
    assert "TRUNCATED" == _reason(tmp_path, gzip.compress(claim), max_voxels=10**12)


def test_a_gzip_bomb_is_refused(tmp_path: Path) -> None:
    """A small header followed by 200 MB of zeros is refused after at most a megabyte too much."""
    bomb = gzip.compress(nifti(VOXELS) + bytes(200 << 20), compresslevel=1)
    assert "TOO_LARGE" == _reason(tmp_path, bomb)


def test_the_voxel_limit_is_the_callers(tmp_path: Path) -> None:
    """210 voxels are too many where 209 are allowed."""
    assert "TOO_LARGE" == _reason(tmp_path, nifti(VOXELS), max_voxels=209)
    assert 210 == _read(tmp_path, nifti(VOXELS), max_voxels=210).voxels.size
