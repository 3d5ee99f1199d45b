"""Tar archives (POSIX ustar), read by hand: members are looked at where they lie and never unpacked to a name."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from rekindle_imaging.errors import VolumeError

MAX_MEMBERS: Final = 20_000
_BLOCK: Final = 512
_MAX_EXTENSION_BYTES: Final = 65_536
_OCTAL: Final = re.compile(rb" *([0-7]{1,11})[ \0]*")
_REGULAR: Final = (b"0", b"\0")
_FOLDER: Final = b"5"
#: Records that describe the next member (pax, GNU long name): they matter for its name and size only.
_NEXT_NAME: Final = {b"x", b"L"}
_GLOBAL: Final = b"g"


@dataclass(frozen=True, slots=True)
class Member:
    """Where the bytes of one file lie in the archive."""

    offset: int
    size: int


def is_tar(data: memoryview) -> bool:
    """Whether the bytes begin with a ustar header."""
    return len(data) >= _BLOCK and bytes(data[257:262]) == b"ustar"


def members(data: memoryview) -> list[Member]:
    """The plain files of an archive, in its order; folders are passed over.

    Raises VolumeError: UNSAFE_ARCHIVE for links, devices, sparse files and names that are absolute or go up,
    TRUNCATED for an archive without its end, BAD_ARCHIVE, TOO_MANY_FILES.
    """
    found: list[Member] = []
    described = ""
    for position, header, member in _records(data):
        kind = header[156:157]
        if kind in _NEXT_NAME or kind == _GLOBAL:
            described += _extension(data, member, is_pax=kind != b"L")
            continue
        _check_name(described or _name(header))
        described = ""
        if kind == _FOLDER:
            continue
        if kind not in _REGULAR:
            raise VolumeError(
                "UNSAFE_ARCHIVE", f"{_which(found, position)} is a link or a device; send plain files only"
            )
        found.append(member)
        if len(found) > MAX_MEMBERS:
            raise VolumeError("TOO_MANY_FILES", f"the archive holds more than {MAX_MEMBERS} files")
    return found


def _records(data: memoryview) -> Iterator[tuple[int, bytes, Member]]:
    """Every header with its position and the place of what it heads, up to the block of zeros at the end."""
    position = 0
    while position + _BLOCK <= len(data):
        header = bytes(data[position : position + _BLOCK])
        if not any(header):
            return
        size = _size(header)
        start = position + _BLOCK
        if start + size > len(data):
            raise VolumeError("TRUNCATED", "the archive ends inside one of its files; send it again")
        yield position, header, Member(start, size)
        position = start + (size + _BLOCK - 1) // _BLOCK * _BLOCK
    raise VolumeError("TRUNCATED", "the archive has no end; send it again")


def _size(header: bytes) -> int:
    stated, size = _OCTAL.fullmatch(header[148:156]), _OCTAL.fullmatch(header[124:136])
    actual = sum(header) - sum(header[148:156]) + 8 * 32
    if stated is None or int(stated[1], 8) != actual or header[257:262] != b"ustar":
        raise VolumeError("BAD_ARCHIVE", "the archive is damaged, or is no POSIX tar")
    if size is None:
        raise VolumeError("BAD_ARCHIVE", "the archive has a file of more than 8 GiB, or of a size that is no number")
    # Folders and links have no content, even where they claim a size.
    return int(size[1], 8) if header[156:157] in (*_REGULAR, *_NEXT_NAME, _GLOBAL) else 0


def _name(header: bytes) -> str:
    name, prefix = (header[a:b].split(b"\0")[0].decode("latin-1") for a, b in ((0, 100), (345, 500)))
    return f"{prefix}/{name}" if prefix else name


def _extension(data: memoryview, member: Member, *, is_pax: bool) -> str:
    """The name that an extension gives to the member after it; "" where it gives none."""
    if member.size > _MAX_EXTENSION_BYTES:
        raise VolumeError("BAD_ARCHIVE", "the archive has a name or attributes of more than 64 KiB")
    text = bytes(data[member.offset : member.offset + member.size])
    if not is_pax:
        return text.rstrip(b"\0").decode("latin-1")
    if re.search(rb"\d+ (size|GNU\.sparse\.[a-z]+)=", text):
        raise VolumeError("UNSAFE_ARCHIVE", "the archive holds sparse or oversized files; send plain files only")
    path = re.search(rb"\d+ path=([^\n]*)\n", text)
    return path[1].decode("latin-1") if path else ""


def _check_name(name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in parts:
        raise VolumeError(
            "UNSAFE_ARCHIVE", "the archive has a name that is absolute or leads out of it; pack a folder's own files"
        )


def _which(found: list[Member], _position: int) -> str:
    return f"file {len(found) + 1} of the archive"
