"""Bytes changed at random: what comes out is a volume or a VolumeError, and nothing else."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from dicom_phantom import deflated, enhanced, instance, packed, series, stored_values, to_bytes
from pydicom.uid import UID, ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLSLossless, RLELossless
from rekindle_imaging.dicom.codes import code_of
from rekindle_imaging.dicom.seg_reader import SegmentClass, read_segmentation
from rekindle_imaging.dicom.segmentation import Authorship, Segment, segmentation_bytes
from rekindle_imaging.dicom.series import files_in, look_through, read_series, single_series
from rekindle_imaging.dicom.study import take_apart
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.volume import Volume

TIMES = 60
WORDS = (b"\xff\xff\xff\xff", b"\0\0\0\0", b"\xfe\xff\xff\xff", b"\0\0\0\x80")


def mutated(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at, kind = rng.randrange(len(changed)), rng.random()
        if kind < 0.6:
            changed[at] = rng.randrange(256)
        elif kind < 0.8:
            changed[at : at + 4] = rng.choice(WORDS)
        elif kind < 0.9:
            changed[at:at] = rng.randbytes(rng.randrange(1, 20))
        else:
            del changed[at : at + rng.randrange(1, 40)]
    return bytes(changed)


def compressed_series(syntax: UID) -> bytes:
    made = series(stored_values((2, 32, 40)))
    for dataset in made:
        dataset.compress(syntax, generate_instance_uid=False)
    return packed(made, syntax)


def read(data: bytes) -> None:
    view = memoryview(data)
    take_apart(view)
    read_series(view, single_series(look_through(view, files_in(view))), max_voxels=2**20)


MADE: dict[str, Callable[[], bytes]] = {
    "explicit": lambda: packed(series(stored_values())),
    "implicit": lambda: packed(series(stored_values()), ImplicitVRLittleEndian),
    "deflated": lambda: deflated(instance(stored_values()[0], 0)),
    "enhanced": lambda: to_bytes(enhanced(stored_values())),
    "J2K": lambda: compressed_series(JPEG2000Lossless),
    "JPEG-LS": lambda: compressed_series(JPEGLSLossless),
    "RLE": lambda: compressed_series(RLELossless),
}


@pytest.mark.parametrize("name", sorted(MADE))
def test_a_damaged_series_is_read_or_refused(name: str) -> None:
    """Series and bare files of every kind of encoding."""
    data, rng, ends = MADE[name](), random.Random(name), Counter[str]()
    for _ in range(TIMES):
        try:
            read(mutated(data, rng))
            ends["read"] += 1
        except VolumeError as error:
            ends[error.reason] += 1
    assert len(ends) > 2, "the changes did not reach anything"


def test_a_damaged_segmentation_is_read_or_refused() -> None:
    """A SEG that comes in as a mask."""
    view = memoryview(packed(series(stored_values())))
    instances = single_series(look_through(view, files_in(view)))
    image = read_series(view, instances, max_voxels=2**20)
    mask = Volume((image.volume.voxels > 1000).astype("uint8"), image.volume.geometry)
    code = code_of("liver")
    assert code is not None
    authorship = Authorship(algorithm_type="MANUAL", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    segments = [Segment(label="liver", label_value=1, code=code)]
    made = segmentation_bytes(view, instances, mask, segments, authorship, max_voxels=2**20)
    rng, ends = random.Random(5), Counter[str]()
    for _ in range(TIMES):
        try:
            data = memoryview(mutated(made, rng))
            organs = [SegmentClass(organ_id="liver", label_value=1)]
            read_segmentation(data, image.volume.geometry, image.reference.sop_instance_uids, organs)
            ends["read"] += 1
        except VolumeError as error:
            ends[error.reason] += 1
    assert len(ends) > 2, "the changes did not reach anything"
