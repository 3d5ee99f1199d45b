"""The canonical form: what goes in comes out, and damaged bytes do not."""

import hashlib
import json
import struct

import numpy as np
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from rekindle_imaging import canonical
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume

GRID = Geometry(
    size=(4, 3, 2),
    spacing_mm=(0.7, 0.8, 5.0),
    origin_mm=(-10.5, 3.25, 700.1),
    direction=(1, 0, 0, 0, -1, 0, 0, 0, 1),
)
IMAGE = Volume(np.arange(24, dtype=np.int16).reshape(2, 3, 4) - 12, GRID)
ENCODED = canonical.encode(IMAGE, "image")


def _grid_of(shape: tuple[int, ...]) -> Geometry:
    return Geometry(size=(shape[2], shape[1], shape[0]), **{k: v for k, v in GRID.to_dict().items() if k != "size"})


@given(npst.arrays(st.sampled_from([np.int16, np.uint8]), npst.array_shapes(min_dims=3, max_dims=3, max_side=6)))
@settings(max_examples=60, deadline=None)
def test_what_goes_in_comes_out(voxels: np.ndarray) -> None:
    """Voxels, type and geometry survive, and the same volume gives the same bytes."""
    volume = Volume(voxels, _grid_of(voxels.shape))
    kind = "image" if voxels.dtype == np.int16 else "mask"
    data = canonical.encode(volume, kind)
    back = canonical.decode(data)
    np.testing.assert_array_equal(voxels, back.voxels)
    assert voxels.dtype == back.voxels.dtype
    assert volume.geometry == back.geometry
    assert data == canonical.encode(Volume(voxels.copy(), volume.geometry), kind)


def test_the_layout_is_as_documented() -> None:
    """Magic, little-endian length, sorted compact JSON, zstd of little-endian C-order voxels."""
    (length,) = struct.unpack("<I", ENCODED[7:11])
    header = ENCODED[11 : 11 + length]
    expected = {"dtype": "int16", "geometry": GRID.to_dict(), "kind": "image"}
    assert b"RKVOL1\n" == ENCODED[:7]
    assert json.dumps(expected, sort_keys=True, separators=(",", ":")).encode() == header
    raw = zstandard.ZstdDecompressor().decompress(ENCODED[11 + length :])
    assert IMAGE.voxels.astype("<i2").tobytes() == raw
    assert hashlib.sha256(ENCODED).hexdigest() == canonical.digest(ENCODED)
    assert expected == canonical.read_header(ENCODED)


def test_non_contiguous_and_big_endian_voxels_give_the_same_bytes() -> None:
    """How the voxels lie in memory does not show."""
    turned = np.ascontiguousarray(IMAGE.voxels.T).T
    assert ENCODED == canonical.encode(Volume(turned, GRID), "image")
    assert ENCODED == canonical.encode(Volume(IMAGE.voxels.astype(">i2"), GRID), "image")


@given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
@settings(max_examples=200, deadline=None)
def test_tampered_bytes_are_refused(position: int, change: int) -> None:
    """With the digest known, no changed byte passes."""
    data = bytearray(ENCODED)
    data[position] ^= change
    with pytest.raises(VolumeError) as caught:
        canonical.decode(bytes(data), expected_digest=canonical.digest(ENCODED))
    assert "DIGEST_MISMATCH" == caught.value.reason


@given(st.integers(0, len(ENCODED) - 1), st.integers(1, 255))
@settings(max_examples=300, deadline=None)
def test_tampered_voxels_are_refused_without_a_digest(position: int, change: int) -> None:
    """Whatever byte is changed, the decoder raises its own error or returns the voxels unchanged."""
    data = bytearray(ENCODED)
    data[position] ^= change
    try:
        back = canonical.decode(bytes(data))
    except VolumeError:
        return
    np.testing.assert_array_equal(IMAGE.voxels, back.voxels.reshape(IMAGE.voxels.shape))


@given(st.integers(0, len(ENCODED) - 1))
@settings(max_examples=60, deadline=None)
def test_cut_off_bytes_are_refused(length: int) -> None:
    """No prefix of canonical bytes is a volume."""
    with pytest.raises(VolumeError):
        canonical.decode(ENCODED[:length])


@given(st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_arbitrary_bytes_are_refused(data: bytes) -> None:
    """Noise, with or without the magic in front, raises this package's error and no other."""
    for attempt in (data, canonical.MAGIC + data):
        with pytest.raises(VolumeError):
            canonical.decode(attempt)


def _forged(header: object, payload: bytes) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header, sort_keys=True, separators=(",", ":")).encode()
    return canonical.MAGIC + struct.pack("<I", len(text)) + text + payload


def _header(**change: object) -> dict[str, object]:
    return {"dtype": "int16", "geometry": GRID.to_dict(), "kind": "image", **change}


RAW = IMAGE.voxels.tobytes()
PACKED = zstandard.compress(RAW)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (_forged(_header(), PACKED + b"x"), "BAD_CANONICAL"),
        (_forged(_header(), zstandard.compress(RAW[:-2])), "BAD_CANONICAL"),
        (_forged(_header(), zstandard.compress(RAW + b"\0\0")), "BAD_CANONICAL"),
        (_forged(_header(), PACKED[:-3]), "BAD_CANONICAL"),
        (_forged(_header(kind="mask"), PACKED), "BAD_CANONICAL"),
        (_forged(_header(dtype="float64"), PACKED), "BAD_CANONICAL"),
        (_forged(_header(kind=["image"]), PACKED), "BAD_CANONICAL"),
        (_forged(_header(comment="hello"), PACKED), "BAD_CANONICAL"),
        (_forged(_header(geometry=3), PACKED), "BAD_CANONICAL"),
        (_forged(json.dumps(_header()).encode(), PACKED), "BAD_CANONICAL"),
        (_forged(b"[" * 60_000, PACKED), "BAD_CANONICAL"),
        (_forged(_header(geometry={**GRID.to_dict(), "spacing_mm": [0, 1, 1]}), PACKED), "BAD_GEOMETRY"),
        (_forged(_header(geometry={**GRID.to_dict(), "size": [60000, 60000, 60000]}), PACKED), "TOO_LARGE"),
    ],
)
def test_forged_bytes_are_refused(data: bytes, reason: str) -> None:
    """Contradictory headers, surplus or missing voxels and impossible sizes are errors."""
    with pytest.raises(VolumeError) as caught:
        canonical.decode(data)
    assert reason == caught.value.reason


def test_a_frame_that_hides_its_size_is_refused() -> None:
    """A compressed frame must say how much it holds, so that it cannot be a bomb."""
    packer = zstandard.ZstdCompressor(write_content_size=False)
    with pytest.raises(VolumeError):
        canonical.decode(_forged(_header(), packer.compress(RAW)))


def test_the_voxel_limit_is_the_callers() -> None:
    """24 voxels are too many where 23 are allowed."""
    with pytest.raises(VolumeError) as caught:
        canonical.decode(ENCODED, max_voxels=23)
    assert "TOO_LARGE" == caught.value.reason
    assert 24 == canonical.decode(ENCODED, max_voxels=24).voxels.size


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (40000.0, "image", "OUT_OF_RANGE"),
        (-32769.0, "image", "OUT_OF_RANGE"),
        (np.nan, "image", "NON_FINITE"),
        (np.inf, "image", "NON_FINITE"),
        (0.5, "image", "OUT_OF_RANGE"),
        (1.5, "mask", "NOT_A_MASK"),
        (256.0, "mask", "NOT_A_MASK"),
        (-1.0, "mask", "NOT_A_MASK"),
        (np.nan, "mask", "NOT_A_MASK"),
    ],
)
def test_values_that_the_form_cannot_hold_are_refused(value: float, kind: str, reason: str) -> None:
    """Nothing is clipped, wrapped or rounded away in silence."""
    voxels = np.zeros(GRID.shape, np.float32)
    voxels[0, 0, 0] = value
    with pytest.raises(VolumeError) as caught:
        canonical.encode(Volume(voxels, GRID), kind)
    assert reason == caught.value.reason


def test_floats_are_rounded() -> None:
    """An image in fractional HU is stored to the nearest whole one."""
    voxels = np.zeros(GRID.shape, np.float64)
    voxels[0, 0, :] = [-1000.4, 12.6, 3071.2, 0.4]
    back = canonical.decode(canonical.encode(Volume(voxels, GRID), "image"))
    assert [-1000, 13, 3071, 0] == back.voxels[0, 0].tolist()
