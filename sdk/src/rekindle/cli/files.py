"""Images in folders."""

from __future__ import annotations

import re
from pathlib import Path

from rekindle.dicom import dicom_files, is_dicom
from rekindle.errors import InvalidInput
from rekindle.formats import IMAGE_SUFFIXES, MASK_SUFFIXES


def stem(path: Path) -> str:
    """The name of a file without its ending, or of a folder."""
    return next((path.name.removesuffix(end) for end in MASK_SUFFIXES if path.name.endswith(end)), path.name)


def images_in(folder: Path) -> list[Path]:
    """The images of a folder by name: NIfTI, NRRD and MetaImage files, and folders of DICOM files.

    A folder with DICOM files of its own, and no other images, is one image. Raises InvalidInput where there is none.
    """
    paths = _files_in(folder, IMAGE_SUFFIXES)
    if not paths and any(path.is_file() and is_dicom(path) for path in folder.iterdir()):
        return [folder]
    paths += [path for path in folder.iterdir() if path.is_dir() and any(dicom_files(path))]
    if not paths:
        raise InvalidInput(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}, or folders of DICOM files)")
    return sorted(paths)


def labels_in(folder: Path) -> list[Path]:
    """The masks of a folder by name. Raises InvalidInput where there is none."""
    paths = _files_in(folder, MASK_SUFFIXES)
    if not paths:
        raise InvalidInput(f"{folder} holds no masks ({', '.join(MASK_SUFFIXES)})")
    return sorted(paths)


def _files_in(folder: Path, endings: tuple[str, ...]) -> list[Path]:
    if not folder.is_dir():
        raise InvalidInput(f"{folder} is not a folder")
    return [
        path
        for path in folder.iterdir()
        if path.is_file() and path.name.endswith(endings) and not path.name.startswith(".")
    ]


def pairs_in(folder: Path) -> list[tuple[Path, Path]]:
    """(image, label) of a folder with images/ and labels/. Raises InvalidInput naming images without a label."""
    labels = {stem(path): path for path in labels_in(folder / "labels")}
    images = images_in(folder / "images")
    missing = [path.name for path in images if stem(path) not in labels]
    if missing:
        raise InvalidInput(f"no label of the same name in {folder / 'labels'} for: {', '.join(missing)}")
    return [(path, labels[stem(path)]) for path in images]


def group_keys(paths: list[Path], pattern: str | None) -> list[str]:
    """What `pattern` finds in each name (its first group where it has one); all empty without a pattern."""
    if pattern is None:
        return ["" for _ in paths]
    try:
        compiled = re.compile(pattern)
    except re.error as failure:
        raise InvalidInput(f"--group-from {pattern!r} is no regular expression: {failure}") from None
    keys: list[str] = []
    for path in paths:
        match = compiled.search(stem(path))
        if match is None:
            raise InvalidInput(f"--group-from {pattern!r} finds nothing in the name {path.name}")
        keys.append(match[1] if compiled.groups else match[0])
    return keys
