"""Files that are made to do harm, each with the reason that it is refused with."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import SimpleITK as sitk
from dicom_phantom import archive, compressed, deflated, instance, packed, series, stored_values, to_bytes
from pydicom import Dataset, FileMetaDataset
from pydicom.config import disable_value_validation
from pydicom.uid import (
    UID,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    MediaStorageDirectoryStorage,
    RLELossless,
)

STORED = stored_values()
Made = tuple[str, Callable[[], bytes], set[str]]


def slice_file(**changes: Any) -> bytes:
    return to_bytes(instance(STORED[0], 0, **changes))


def element(group: int, number: int, vr: bytes, value: bytes) -> bytes:
    """An explicit little-endian element."""
    head = struct.pack("<HH", group, number) + vr
    is_long = vr in (b"OB", b"OW", b"SQ", b"UN")
    return head + (struct.pack("<HI", 0, len(value)) if is_long else struct.pack("<H", len(value))) + value


def with_raw(raw: bytes) -> bytes:
    """A good header with raw bytes behind it, where pixels would be."""
    bare = instance(STORED[0], 0)
    del bare.PixelData
    return to_bytes(bare) + raw


def unknown_vr_in_meta() -> bytes:
    data = bytearray(slice_file())
    at = data.index(b"\x02\x00\x02\x00UI")
    data[at + 4 : at + 6] = b"Q\xff"
    return bytes(data)


def deep_sequences(depth: int = 10_000) -> bytes:
    head = struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)
    item = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
    return with_raw((head + item) * depth)


def pixels_of(syntax: UID, stream: bytes, **changes: Any) -> bytes:
    return to_bytes(compressed(instance(STORED[0], 0, **changes), stream), syntax)


def corrupted(syntax: UID) -> bytes:
    """A good compressed image of which the middle is noise."""
    image = instance(np.random.default_rng(3).integers(0, 4096, (32, 40)).astype(np.uint16), 0)
    image.compress(syntax, generate_instance_uid=False)
    data = bytearray(to_bytes(image, syntax))
    start = data.index(b"\xe0\x7f\x10\x00") + 40
    noise = np.random.default_rng(5).integers(0, 256, (len(data) - start) // 2).astype(np.uint8)
    data[start : start + len(noise)] = noise.tobytes()
    return bytes(data)


def false_offset_table() -> bytes:
    image = instance(STORED[0], 0, Rows=32, Columns=40)
    image.PixelData = b"".join(
        [
            struct.pack("<HHI", 0xFFFE, 0xE000, 8) + struct.pack("<II", 0xFFFFFFF0, 7),
            struct.pack("<HHI", 0xFFFE, 0xE000, 6) + b"abcdef",
            struct.pack("<HHI", 0xFFFE, 0xE0DD, 0),
        ]
    )
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    return to_bytes(image, RLELossless)


def fragments(*lengths: int) -> bytes:
    image = instance(STORED[0], 0)
    parts = [struct.pack("<HHI", 0xFFFE, 0xE000, 0)]
    parts += [struct.pack("<HHI", 0xFFFE, 0xE000, length) + b"x" * length for length in lengths]
    image.PixelData = b"".join([*parts, struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)])
    image["PixelData"].VR, image["PixelData"].is_undefined_length = "OB", True
    return to_bytes(image, JPEG2000Lossless)


def deflated_bomb() -> bytes:
    data = deflated(instance(STORED[0], 0))
    start = _end_of_meta(data)
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(600)) + packer.flush()
    return data[:start] + bomb


def _end_of_meta(data: bytes) -> int:
    (length,) = struct.unpack_from("<I", data, 140)
    return 144 + length


def dicomdir() -> bytes:
    directory = Dataset()
    directory.file_meta = FileMetaDataset()
    directory.SOPClassUID, directory.SOPInstanceUID = MediaStorageDirectoryStorage, "1.2.3.5"
    record = Dataset()
    record.DirectoryRecordType = "IMAGE"
    with disable_value_validation():
        record.ReferencedFileID = ["..", "..", "ETC", "PASSWD"]
    directory.DirectoryRecordSequence = [record]
    return to_bytes(directory)


def uid(text: str) -> bytes:
    """A series whose SOP instance UID is something else."""
    good = slice_file()
    return good.replace(b"1.2.3.1.1.1\0", text.encode().ljust(12, b"\0"))


def explicit_said_implicit() -> bytes:
    """The header says explicit, the data set is implicit and cut off."""
    implicit = to_bytes(instance(STORED[0], 0), UID("1.2.840.10008.1.2"))
    explicit = to_bytes(instance(STORED[0], 0))
    return explicit[: _end_of_meta(explicit)] + implicit[_end_of_meta(implicit) : -40]


def claims(**elements: tuple[int, bytes, bytes]) -> bytes:
    """A good slice in which elements are replaced by raw ones."""
    image = instance(STORED[0], 0)
    data = to_bytes(image)
    for tag, vr, value in elements.values():
        group, number = tag >> 16, tag & 0xFFFF
        old = data.index(struct.pack("<HH", group, number) + b"US")
        data = data[:old] + element(group, number, vr, value) + data[old + 10 :]
    return data


def tar_of(**changes: Any) -> bytes:
    packed_file = io.BytesIO()
    with tarfile.open(fileobj=packed_file, mode="w", format=changes.pop("format", tarfile.USTAR_FORMAT)) as tar:
        member = tarfile.TarInfo("slice.dcm")
        data = slice_file()
        member.size = len(data)
        for name, value in changes.items():
            setattr(member, name, value)
        tar.addfile(member, io.BytesIO(data))
    return packed_file.getvalue()


def nan_spacing() -> bytes:
    return slice_file().replace(b"2.0\\1.5 ", b"NaN\\NaN ")


HOSTILE_DICOM: list[Made] = [
    ("1 PE preamble", lambda: to_bytes(instance(STORED[0], 0), preamble=b"MZ" + bytes(126)), {"EXECUTABLE_PREAMBLE"}),
    (
        "2 ELF preamble",
        lambda: to_bytes(instance(STORED[0], 0), preamble=b"\x7fELF" + bytes(124)),
        {"EXECUTABLE_PREAMBLE"},
    ),
    ("3 truncated meta", lambda: slice_file()[:170], {"NOT_DICOM", "NOT_AN_IMAGE"}),
    ("4 unknown VR in meta", unknown_vr_in_meta, {"NOT_DICOM", "NOT_AN_IMAGE"}),
    (
        "5 undefined length never ended",
        lambda: with_raw(struct.pack("<HH2sHI", 0x0040, 0xA730, b"SQ", 0, 0xFFFFFFFF)),
        {"NOT_DICOM", "BAD_PIXELS"},
    ),
    ("6 sequences 10,000 deep", deep_sequences, {"NOT_DICOM", "BAD_PIXELS"}),
    (
        "7 element length 0xFFFFFFFE",
        lambda: with_raw(struct.pack("<HH2sHI", 0x7FE0, 0x0010, b"OW", 0, 0xFFFFFFFE) + bytes(64)),
        {"NOT_DICOM", "TRUNCATED"},
    ),
    ("8 Rows as UL 2^31", lambda: claims(rows=(0x00280010, b"UL", struct.pack("<I", 2**31))), {"BAD_PIXELS"}),
    (
        "9 product over 32 bits",
        lambda: claims(
            rows=(0x00280010, b"US", struct.pack("<H", 65535)), columns=(0x00280011, b"US", struct.pack("<H", 65535))
        ),
        {"TOO_LARGE"},
    ),
    ("10 10^9 frames", lambda: slice_file(NumberOfFrames=10**9), {"TOO_LARGE"}),
    ("11 pixels shorter than declared", lambda: slice_file(Rows=9), {"TRUNCATED"}),
    ("12 deflated bomb", deflated_bomb, {"TOO_LARGE"}),
    ("13 empty fragment", lambda: fragments(0), {"UNDECODABLE_PIXELS"}),
    ("13 odd fragment", lambda: fragments(7, 3), {"UNDECODABLE_PIXELS"}),
    ("14 false offset table", false_offset_table, {"UNDECODABLE_PIXELS"}),
    ("15 corrupt J2K", lambda: corrupted(JPEG2000Lossless), {"UNDECODABLE_PIXELS", "BAD_PIXELS"}),
    ("15 corrupt JPEG-LS", lambda: corrupted(JPEGLSLossless), {"UNDECODABLE_PIXELS", "BAD_PIXELS"}),
    ("15 corrupt RLE", lambda: corrupted(RLELossless), {"UNDECODABLE_PIXELS", "BAD_PIXELS"}),
    (
        "15 corrupt JPEG",
        lambda: pixels_of(JPEGLosslessSV1, b"\xff\xd8" + bytes(range(256)) * 4),
        {"UNDECODABLE_PIXELS"},
    ),
    ("16 palette", lambda: slice_file(PhotometricInterpretation="PALETTE COLOR"), {"BAD_PIXELS"}),
    ("17 another transfer syntax than is said", explicit_said_implicit, {"NOT_DICOM", "TRUNCATED", "NOT_AN_IMAGE"}),
    (
        "17 J2K said to be raw",
        lambda: pixels_of(JPEG2000Lossless, b"12").replace(b"1.2.840.10008.1.2.4.90", b"1.2.840.10008.1.2.1\0\0\0"),
        {"NOT_DICOM", "TRUNCATED", "BAD_PIXELS"},
    ),
    (
        "4 unknown VR of the spacing",
        lambda: slice_file().replace(b"\x28\x00\x30\x00DS", b"\x28\x00\x30\x00D\x11"),
        {"NOT_DICOM", "MISSING_TAG"},
    ),
    (
        "17 a transfer syntax that is none",
        lambda: slice_file().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.1\0\0\0"),
        {"UNDECODABLE_PIXELS"},
    ),
    ("18 UID ../../x", lambda: uid("../../x"), {"BAD_UID"}),
    ("19 UID /etc/cron.d/x", lambda: uid("/etc/cron.d"), {"BAD_UID"}),
    ("20 UID $(id)", lambda: uid("$(id)"), {"BAD_UID"}),
    ("21 DICOMDIR", dicomdir, {"NOT_AN_IMAGE"}),
    ("22 one UID, two images", lambda: archive([slice_file(), to_bytes(instance(STORED[1], 0))]), {"DUPLICATE_SLICES"}),
    ("23 NaN spacing", nan_spacing, {"BAD_GEOMETRY"}),
    ("23 zero spacing", lambda: slice_file(PixelSpacing=[0, 0]), {"BAD_GEOMETRY"}),
    (
        "24 mixed orientations",
        lambda: packed(
            series(STORED, lambda d, n: setattr(d, "ImageOrientationPatient", [0, 1, 0, 0, 0, -1]) if n else None)
        ),
        {"MIXED_ORIENTATION"},
    ),
    (
        "26 HTML and escapes in the name, beside a flaw",
        lambda: slice_file(PatientName="<script>\x1b$B^Canary", Rows=9),
        {"TRUNCATED"},
    ),
    ("43 name that goes up", lambda: tar_of(name="../../etc/cron.d/x"), {"UNSAFE_ARCHIVE"}),
    ("43 absolute name", lambda: tar_of(name="/etc/passwd"), {"UNSAFE_ARCHIVE"}),
    ("43 symbolic link", lambda: tar_of(type=tarfile.SYMTYPE, linkname="/etc/passwd"), {"UNSAFE_ARCHIVE"}),
    ("43 hard link", lambda: tar_of(type=tarfile.LNKTYPE, linkname="x"), {"UNSAFE_ARCHIVE"}),
    ("43 device", lambda: tar_of(type=tarfile.CHRTYPE), {"UNSAFE_ARCHIVE"}),
    (
        "43 sparse file",
        lambda: tar_of(format=tarfile.PAX_FORMAT, pax_headers={"GNU.sparse.size": "99999999999"}),
        {"UNSAFE_ARCHIVE"},
    ),
    (
        "43 long name that goes up",
        lambda: tar_of(format=tarfile.GNU_FORMAT, name="a/" * 90 + "../x"),
        {"UNSAFE_ARCHIVE"},
    ),
    (
        "43 pax name that goes up",
        lambda: tar_of(format=tarfile.PAX_FORMAT, name="a/" * 180 + "../x"),
        {"UNSAFE_ARCHIVE"},
    ),
    ("43 cut off", lambda: archive([slice_file()])[:900], {"TRUNCATED"}),
    ("43 without its end", lambda: archive([slice_file()])[:1536], {"TRUNCATED"}),
    (
        "43 damaged header",
        lambda: archive([slice_file(), slice_file()], shuffle=None).replace(b"1\0\0\0", b"\xff\xff\xff\xff", 1),
        {"BAD_ARCHIVE", "TRUNCATED", "UNSAFE_ARCHIVE"},
    ),
]


def nifti(**fields: tuple[int, str, tuple[Any, ...]]) -> bytes:
    """A small NIfTI with raw header fields replaced: position, format, values."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 4, 4, 4, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 4, 16)
    struct.pack_into("<8f", header, 76, 1, 1, 1, 1, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    for position, format, values in fields.values():
        struct.pack_into(format, header, position, *values)
    return bytes(header) + bytes(128)


def gzip_bomb() -> bytes:
    out = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, out) as packed_file:
        packed_file.write(nifti())
        for _ in range(300):
            packed_file.write(bytes(1 << 20))
    return out.getvalue()


def written(suffix: str, *, compress: bool = True) -> bytes:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{suffix}"
        sitk.WriteImage(sitk.GetImageFromArray(STORED.astype(np.int16)), str(path), useCompression=compress)
        return path.read_bytes()


def nrrd(old: bytes = b"", new: bytes = b"", *, compress: bool = True) -> bytes:
    data = written("nrrd", compress=compress)
    assert old in data
    return data.replace(old, new, 1)


def mha(old: bytes = b"", new: bytes = b"", *, compress: bool = True) -> bytes:
    data = written("mha", compress=compress)
    assert old in data
    return data.replace(old, new, 1)


def deflate_bomb_in_mha() -> bytes:
    head, _, _ = mha().partition(b"ElementDataFile = LOCAL\n")
    return head + b"ElementDataFile = LOCAL\n" + zlib.compress(bytes(50_000_000), 9)


HOSTILE_NIFTI: list[Made] = [
    (
        "36 480 bytes that claim 18 GB",
        lambda: nifti(dim=(40, "<4h", (3, 2100, 2100, 2100))),
        {"TOO_LARGE", "TRUNCATED"},
    ),
    ("37 negative sizes", lambda: nifti(dim=(42, "<h", (-4,))), {"NOT_A_VOLUME"}),
    ("38 NaN vox_offset", lambda: nifti(offset=(108, "<f", (float("nan"),))), {"NOT_A_VOLUME"}),
    ("39 gzip bomb", gzip_bomb, {"TOO_LARGE"}),
]
HOSTILE_NRRD: list[Made] = [
    ("40 data file", lambda: nrrd(b"encoding:", b"data file: /etc/passwd\nencoding:"), {"DETACHED_DATA"}),
    ("40 datafile", lambda: nrrd(b"encoding:", b"datafile: LIST\nencoding:"), {"DETACHED_DATA"}),
    ("40 byte skip", lambda: nrrd(b"encoding:", b"byte skip: -1\nencoding:"), {"NOT_A_VOLUME"}),
    ("36 claims 18 GB", lambda: nrrd(b"sizes: 6 8 5", b"sizes: 2100 2100 2100"), {"TOO_LARGE"}),
    ("37 negative sizes", lambda: nrrd(b"sizes: 6 8 5", b"sizes: -6 8 5"), {"NOT_A_VOLUME"}),
    ("36 more voxels than there are", lambda: nrrd(b"sizes: 6 8 5", b"sizes: 6 8 50"), {"TRUNCATED"}),
    ("36 fewer voxels than there are", lambda: nrrd(b"sizes: 6 8 5", b"sizes: 6 8 4"), {"TOO_LARGE"}),
    ("42 comma decimals", lambda: nrrd(b"(1,0,0)", b"(1,5,0,0)"), {"BAD_GEOMETRY"}),
    ("23 NaN direction", lambda: nrrd(b"(1,0,0)", b"(nan,0,0)"), {"BAD_GEOMETRY"}),
    ("41 damaged stream", lambda: nrrd()[:-30], {"TRUNCATED"}),
    ("header without end", lambda: b"NRRD0004\ntype: short\n" + b"# x\n" * 20_000, {"TRUNCATED"}),
]
HOSTILE_METAIMAGE: list[Made] = [
    ("40 other file", lambda: mha(b"LOCAL", b"/etc/passwd"), {"DETACHED_DATA"}),
    ("40 list of files", lambda: mha(b"LOCAL", b"LIST"), {"DETACHED_DATA"}),
    ("36 claims 18 GB", lambda: mha(b"DimSize = 6 8 5", b"DimSize = 2100 2100 2100"), {"TOO_LARGE"}),
    ("37 negative sizes", lambda: mha(b"DimSize = 6 8 5", b"DimSize = 6 -8 5"), {"NOT_A_VOLUME"}),
    ("41 compressed-size lie and bomb", deflate_bomb_in_mha, {"TOO_LARGE"}),
    ("42 comma decimals", lambda: mha(b"ElementSpacing = 1 1 1", b"ElementSpacing = 1,5 1 1"), {"BAD_GEOMETRY"}),
    ("23 zero spacing", lambda: mha(b"ElementSpacing = 1 1 1", b"ElementSpacing = 0 1 1"), {"BAD_GEOMETRY"}),
    ("header size", lambda: mha(b"ElementDataFile", b"HeaderSize = -1\nElementDataFile"), {"UNSUPPORTED_ENCODING"}),
]
